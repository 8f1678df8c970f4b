"""The interface of compressed embedding tables: budget, training stages, inference form, bytes, file."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from isometry.errors import DataFormatError, InputError, NotFitted
from isometry.files import write_whole
from isometry.numerics.budget import infeasible
from isometry.types import FloatArray, IntArray, check_vectors

INIT_STD = 0.05
Store = Mapping[str, Tensor]


@dataclass(frozen=True)
class Stage:
    """One stage of training.

    Parameters
    ----------
    name
        Told to `CompressedEmbedding.begin_stage`.
    trains
        False for a stage that only searches (it scores candidates on validation data).
    fresh
        Whether the network above the table starts anew, as in retraining a found structure.
    second
        After each step on the weights, take one on `CompressedEmbedding.second_parameters`: on the loss of the same
        ``"train"`` batch, of a ``"validation"`` batch, or not at all.
    """

    name: str
    trains: bool = True
    fresh: bool = False
    second: Literal["", "train", "validation"] = ""


@dataclass(frozen=True)
class StageContext:
    """What the trainer tells a table when a stage begins: steps to come, batch size, validation quality now."""

    steps: int
    batch: int
    evaluate: Callable[[], float]


class CompressedEmbedding(nn.Module):
    """A table of n vectors of width d in less memory: base class of the methods.

    Subclasses define `_build`, `_look` (rows from a mapping of tensors) and `_fit_rows`; and, where inference is
    stored differently from training, `_pack` and `_look_stored`.

    Parameters
    ----------
    n, d
        Rows and width of the table that is stood for.
    budget
        Share of its ``4 n d`` bytes that the inference form may take, everything counted (maps, masks, codebooks,
        scales). What is really taken is `ratio`.
    freq
        How often each row occurs in the *training* data, ``[n]``; equal where not given.
    fields
        Sizes by name, in order, of the fields whose rows lie one after the other in the table.
    seed
        Fixes initial values and hash functions.

    Raises
    ------
    InputError
        If the budget is infeasible (the message names the feasible range) or the sizes contradict each other.
    """

    stages: ClassVar[tuple[Stage, ...]] = (Stage("train"),)

    def __init__(
        self, n: int, d: int, budget: float = 1.0, *, freq: Any = None, fields: Mapping[str, int] | None = None,
        seed: int = 0, **options: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        sizes = dict(fields) if fields is not None else {"id": n}
        if n < 1 or d < 1 or min(sizes.values(), default=0) < 1 or sum(sizes.values()) != n:
            raise InputError(f"A table needs n, d >= 1 and fields of sizes that sum to n={n}; got d={d}, {sizes}.")
        if not budget > 0:
            raise InputError(f"budget must be positive, a share of 4 n d bytes; got {budget}.")
        self.freq = np.ones(n) if freq is None else np.asarray(freq, np.float64)
        if self.freq.shape != (n,) or not (self.freq >= 0).all():
            raise InputError(f"freq must be {n} counts, one a row; got shape {self.freq.shape}.")
        self.n, self.d, self.fields, self.seed, self.budget = n, d, sizes, seed, budget
        self.config: dict[str, Any] = {}
        self.store: dict[str, Tensor] | None = None
        self.generator = torch.Generator().manual_seed(seed)
        self._build(budget * 4 * n * d, **options)

    # What a method defines

    def _build(self, limit: float, **options: Any) -> None:
        """Choose the configuration that fits ``limit`` bytes into ``self.config`` and make the parameters."""
        raise TypeError(f"{type(self).__name__} must define _build.")

    def _look(self, weights: Store, ids: Tensor) -> Tensor:
        """Rows ``[b, d]`` for checked table rows ``[b]``, differentiable in the weights."""
        raise TypeError(f"{type(self).__name__} must define _look.")

    def _fit_rows(self, table: Tensor) -> None:
        """Set the parameters so that the rows come near ``table`` ``[n, d]``."""
        raise TypeError(f"{type(self).__name__} must define _fit_rows.")

    def _pack(self) -> dict[str, Tensor]:
        """Return the inference form; by default all parameters and buffers as they are."""
        return {name: value.detach().clone() for name, value in self.weights().items()}

    def _look_stored(self, store: Store, ids: Tensor) -> Tensor:
        """Rows from the inference form; by default the same as in training."""
        return self._look(store, ids)

    # Training hooks

    @property
    def train_hooks(self) -> tuple[Stage, ...]:
        """The stages a trainer goes through; it also calls `begin_stage`, `penalty` and `after_step`."""
        return self.stages

    def begin_stage(self, stage: Stage, context: StageContext) -> None:
        """Prepare for a stage; parameters may be replaced, so optimizers are made after this."""

    def second_parameters(self) -> list[nn.Parameter]:
        """Parameters of the alternate step (gates, thresholds, scales, architecture weights)."""
        return []

    second_lr: float = 1e-3

    def first_parameters(self) -> list[nn.Parameter]:
        """Parameters of the ordinary step."""
        second = {id(p) for p in self.second_parameters()}
        return [p for p in self.parameters() if id(p) not in second]

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """What the optimizer of the ordinary step is made of."""
        return [{"params": self.first_parameters(), "lr": lr}]

    def penalty(self) -> Tensor | None:
        """Regulariser of the last forward pass, added to the loss."""
        return None

    @property
    def settled(self) -> bool:
        """Whether the budget is met by now; before, a trainer neither stops nor keeps its best state."""
        return True

    def after_step(self) -> None:
        """Called after every step: rounding, pruning, clipping."""

    # Use

    def weights(self) -> dict[str, Tensor]:
        """Parameters and buffers by name."""
        return {**dict(self.named_parameters()), **dict(self.named_buffers())}

    def forward(self, ids: Tensor) -> Tensor:
        """Look vectors up: ids ``[...]`` to ``[..., d]``; with several fields ids are ``[..., F]``, each of its field.

        Raises
        ------
        InputError
            If an id is negative or at least the size of its field.
        """
        rows = self.rows_of(ids)
        flat = rows.reshape(-1)
        found = self._look(self.weights(), flat) if self.store is None else self._look_stored(self.store, flat)
        return found.reshape(*rows.shape, self.d)

    def rows_of(self, ids: Tensor) -> Tensor:
        """Check ids and return the rows of the whole table they stand for, int64."""
        if ids.is_floating_point() or ids.dtype == torch.bool:
            raise InputError(f"ids must be integers, got {ids.dtype}.")
        if len(self.fields) > 1 and (ids.ndim == 0 or ids.shape[-1] != len(self.fields)):
            raise InputError(f"ids must be [..., {len(self.fields)}], one of each field; got {tuple(ids.shape)}.")
        columns = ids.to(torch.int64).unsqueeze(-1) if len(self.fields) == 1 else ids.to(torch.int64)
        sizes = torch.tensor(list(self.fields.values()), device=ids.device)
        if bool(((columns < 0) | (columns >= sizes)).any()):
            self._refuse(columns.reshape(-1, len(sizes)))
        return (columns + (sizes.cumsum(0) - sizes)).reshape(ids.shape)

    def _refuse(self, columns: Tensor) -> None:
        for i, (name, size) in enumerate(self.fields.items()):
            wrong = columns[(columns[:, i] < 0) | (columns[:, i] >= size), i]
            if len(wrong):
                raise InputError(f"The id {int(wrong[0])} of field {name!r} is not in [0, {size}); map unseen values "
                                 "to an id of their own before looking them up.")  # fmt: skip

    def field_of(self, rows: Tensor) -> Tensor:
        """Return the number of the field each table row belongs to."""
        return torch.bucketize(rows, torch.tensor(list(self.fields.values())).cumsum(0), right=True)

    @property
    def final(self) -> bool:
        """Whether only the inference form is left."""
        return self.store is not None

    def finalize(self) -> Self:
        """Replace the parameters by the inference form."""
        if self.store is None:
            with torch.no_grad():
                self.store = {name: value.cpu().contiguous() for name, value in self._pack().items()}
            for group in (self._parameters, self._buffers, self._modules):
                group.clear()
        return self

    def compress(self, table: Any) -> Self:
        """Fit a given table ``[n, d]`` after training it elsewhere, and finalize."""
        if self.final:
            raise InputError("This table is final already; make a new one to compress other vectors.")
        values = check_vectors(table, dim=self.d, what="the table")
        if len(values) != self.n:
            raise InputError(f"The table must have {self.n} rows, got {len(values)}.")
        with torch.no_grad():
            self._fit_rows(torch.from_numpy(values))
        return self.finalize()

    def decode(self, rows: Any) -> FloatArray:
        """Vectors float32 ``[b, d]`` of table rows ``[b]``, from the inference form.

        Raises
        ------
        NotFitted
            Before `finalize` or `compress`.
        """
        if self.store is None:
            raise NotFitted("decode reads the inference form: call finalize() or compress(table) first.")
        ids = torch.as_tensor(np.asarray(rows, np.int64)).reshape(-1)
        if len(ids) and (int(ids.min()) < 0 or int(ids.max()) >= self.n):
            raise InputError(f"Rows must lie in [0, {self.n}), got {int(ids.min())} to {int(ids.max())}.")
        with torch.no_grad():
            return cast(FloatArray, self._look_stored(self.store, ids).numpy())

    def decompress(self) -> FloatArray:
        """The whole table, float32 ``[n, d]``."""
        return self.decode(np.arange(self.n))

    # Bytes

    def _inference(self) -> dict[str, Tensor]:
        if self.store is not None:
            return self.store
        with torch.no_grad():
            return copy.deepcopy(self)._pack()  # on a copy, for packing may settle what training still needs

    def n_params(self) -> int:
        """Numbers in the inference form, whatever their type."""
        return sum(value.numel() for value in self._inference().values())

    def n_bytes(self) -> int:
        """Bytes of the inference form: all that `save` writes besides the header."""
        return sum(value.numel() * value.element_size() for value in self._inference().values())

    def ratio(self) -> float:
        """``n_bytes`` over the ``4 n d`` bytes of the full table."""
        return self.n_bytes() / (4 * self.n * self.d)

    def training_bytes(self) -> int:
        """Bytes training holds now: each parameter with gradient and two moments of Adam, and the buffers."""
        parameters = sum(p.numel() * p.element_size() * (4 if p.requires_grad else 1) for p in self.parameters())
        return parameters + sum(b.numel() * b.element_size() for b in self.buffers())

    def about(self) -> dict[str, Any]:
        """What is needed, besides the arrays, to read the inference form: method, sizes, configuration, seed."""
        return {
            "method": type(self).__name__,
            "n": self.n,
            "d": self.d,
            "fields": self.fields,
            "seed": self.seed,
            "budget": self.budget,
            "config": self.config,
        }

    @staticmethod
    def restore(about: Mapping[str, Any], store: Store) -> CompressedEmbedding:
        """Return the table of an inference form and what `about` said of it."""
        from isometry.modules import embedding_tables

        kind = getattr(embedding_tables, about["method"])
        table = cast(CompressedEmbedding, kind.__new__(kind))
        nn.Module.__init__(table)
        table.n, table.d, table.fields, table.seed = about["n"], about["d"], about["fields"], about["seed"]
        table.budget, table.config, table.store = about["budget"], about["config"], dict(store)
        return table

    def save(self, path: str | Path) -> None:
        """Write the inference form as safetensors; the header says what is needed to read it."""
        from safetensors.torch import save

        if self.store is None:
            copy.deepcopy(self).finalize().save(path)
            return
        write_whole(path, save(self.store, {"isometry.table": json.dumps(self.about())}))

    @classmethod
    def load(cls, path: str | Path) -> CompressedEmbedding:
        """Read what `save` wrote, in the inference form.

        Raises
        ------
        DataFormatError
            If the file is not such a table.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), "pt") as file:
                about = json.loads((file.metadata() or {})["isometry.table"])
                return cls.restore(about, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        except (SafetensorError, KeyError, AttributeError, json.JSONDecodeError) as error:
            raise DataFormatError(
                path, None, "is no embedding table; write one with CompressedEmbedding.save."
            ) from error

    # For methods

    def _need(self, knob: Any, least_bytes: float) -> Any:
        """Return the knob a solver found, or refuse the budget, naming the feasible range."""
        if knob is None:
            raise infeasible(type(self).__name__, self.budget, least_bytes / (4 * self.n * self.d))
        return knob

    def _normal(self, *shape: int, mean: float = 0.0, std: float = INIT_STD) -> nn.Parameter:
        return nn.Parameter(mean + std * torch.randn(*shape, generator=self.generator))

    def rows_of_all(self) -> Tensor:
        """All rows, int64 ``[n]``."""
        return torch.arange(self.n)

    def hottest(self, count: int) -> IntArray:
        """Rows of the ``count`` largest frequencies, sorted by row."""
        return cast(IntArray, np.sort(np.argsort(-self.freq, kind="stable")[:count]))


def positions(chosen: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return (place of each id among the sorted ``chosen``, whether it is one of them)."""
    place = torch.searchsorted(chosen, ids.to(chosen.dtype))
    inside = place < len(chosen)
    hit = inside & (chosen[place.clamp(max=max(0, len(chosen) - 1))] == ids) if len(chosen) else inside
    return place, hit


def bucket_means(values: Tensor, buckets: Tensor, count: int) -> Tensor:
    """Mean of the values ``[m, ...]`` in each bucket, ``[count, ...]``; 0 for an empty one (least squares)."""
    total = torch.zeros(count, *values.shape[1:]).index_add_(0, buckets, values)
    return total / torch.bincount(buckets, minlength=count).clamp(min=1).reshape(-1, *[1] * (values.ndim - 1))


NumpyStore = dict[str, NDArray[np.generic]]


def as_numpy(store: Store) -> NumpyStore:
    """The tensors of a store as numpy arrays, without copying."""
    return {name: value.numpy() for name, value in store.items()}
