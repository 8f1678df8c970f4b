"""Late interaction: a text is a set of token vectors, and two texts meet token by token (ColBERT, arXiv:2004.12832)."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize as unit

from isometry.encoders.batching import by_length
from isometry.encoders.engines import TOKENS_PER_TEXT
from isometry.encoders.text import TextEncoder, check_texts, load
from isometry.encoders.token_batches import TokenBatch, TokenChoice, TokenReader
from isometry.errors import DataFormatError, EmptyInput, InputError, TextTooLong, Truncated, UnknownName
from isometry.files import write_whole
from isometry.modules.token_projection import TokenProjection
from isometry.modules.token_reduction import Identity, Reducer, from_record, reducers, to_record
from isometry.types import Embeddings, FloatArray, IntArray, Role, Space, id_array
from isometry.types.progress import Progress

FORMAT = 1
Reducers = Reducer | Mapping[Role, Reducer] | str
ROLES: tuple[Role, ...] = get_args(Role)


class LateInteraction:
    """Multi-vector encoder over any text encoder: last hidden states, a linear head, masks, reducers by role.

    The modules of the model behind its transformer (pooling, dense layers) are not used.

    Parameters
    ----------
    encoder
        From ``isometry.encoders.load(name, engine="torch")``; its window and prompts are kept.
    head
        Linear map of token states; None: the states themselves.
    drop_special, drop_prompt, drop_punctuation, query_expansion
        Which tokens keep a vector: see `isometry.encoders.token_batches.TokenChoice`.
    normalize
        Scale token vectors to norm 1 (before any reducer).
    reducer
        What shrinks the set of vectors of a text: one reducer, one by role, or a name such as ``"C4x8"`` (see
        `isometry.modules.token_reduction.reducers`).
    backbone
        The transformer, where its weights are no longer those of ``encoder``.

    Examples
    --------
    Train on your own pairs with `isometry.training.late_interaction.train_late_interaction`, then:

    >>> model = LateInteraction.of("minilm", dim=96)
    >>> [v.shape for v in model.encode_query(["late interaction", "a"])]
    [(2, 96), (1, 96)]
    """

    similarity_fn_name = "maxsim"

    def __init__(
        self,
        encoder: TextEncoder,
        *,
        head: TokenProjection | None = None,
        drop_special: bool = True,
        drop_prompt: bool = False,
        drop_punctuation: bool = False,
        query_expansion: int = 0,
        normalize: bool = True,
        reducer: Reducers | None = None,
        backbone: nn.Module | None = None,
    ) -> None:
        self.encoder, self.head, self.normalize = encoder, head, normalize
        self.choice = TokenChoice(drop_special, drop_prompt, drop_punctuation, query_expansion)
        self.reducers = _by_role(reducer)
        self.tuned = backbone is not None
        original = getattr(encoder.model[0], "auto_model", None)
        if not isinstance(original, nn.Module):
            raise InputError(f"{encoder.space.model} has no transformer, so it has no token states to compare.")
        self.backbone: nn.Module = (backbone or original).eval()
        width = int(self.backbone.config.hidden_size)  # type: ignore[union-attr, arg-type]
        if head is not None and head.in_dim != width:
            raise InputError(f"The head takes states of width {head.in_dim}, but {encoder.space.model} gives {width}.")
        self.dim = width if head is None else head.out_dim
        if head is not None:
            head.to(self.device)
        self.reader = TokenReader(encoder, self.choice)

    @classmethod
    def of(
        cls,
        name: str | Path = "minilm",
        dim: int | None = None,
        *,
        max_tokens: int | None = None,
        prompts: Mapping[str, str] | None = None,
        device: str = "cpu",
        seed: int = 0,
        **options: Any,
    ) -> LateInteraction:
        """Load a model and give it a head.

        Parameters
        ----------
        name, max_tokens, prompts, device
            As in `isometry.encoders.load`.
        dim
            Width of a token vector: a head with random orthonormal rows drawn by ``seed``, to train or to use as it
            is. None: no head.
        **options
            As in the constructor.
        """
        encoder = load(name, engine="torch", max_tokens=max_tokens, prompts=prompts, device=device)
        bare = cls(encoder)
        return bare.replace(head=None if dim is None else TokenProjection(bare.dim, dim, seed=seed), **options)

    def replace(self, **changes: Any) -> LateInteraction:
        """Return the same encoder with other options of the constructor."""
        backbone = self.backbone if self.tuned else None
        options = {"head": self.head, "normalize": self.normalize, "reducer": self.reducers, "backbone": backbone}
        return LateInteraction(self.encoder, **{**asdict(self.choice), **options, **changes})

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return next(self.backbone.parameters()).device

    @property
    def max_tokens(self) -> int:
        """Longest input in tokens, special ones and prompt included."""
        return self.encoder.max_tokens

    @cached_property
    def _revision(self) -> str:
        return digest(self.backbone) if self.tuned else self.encoder.space.revision

    @property
    def space(self) -> Space:
        """What the vectors mean; another head, mask, prompt, reducer or transformer is another space."""
        head = "" if self.head is None else f"head {self.head.in_dim}>{self.dim}:{digest(self.head)[:8]}, "
        reduced = "".join(f"; {role}: {r!r}" for role, r in self.reducers.items() if r != Identity())
        unchanged = all(getattr(r, "keeps_norm", False) for r in self.reducers.values())
        return replace(
            self.encoder.space,
            dim=self.dim,
            revision=self._revision,
            similarity="maxsim",
            normalized=self._unit and unchanged,
            chain=(f"tokens({head}{'unit, ' if self._unit else ''}{self.choice}{reduced})",),
        )

    @property
    def _unit(self) -> bool:
        return self.normalize or (self.head is not None and self.head.normalize)

    def states(self, batch: TokenBatch) -> Tensor:
        """Return the transformer's last hidden states, ``[b, t, h]``."""
        out: Tensor = self.backbone(input_ids=batch.ids, attention_mask=batch.attend.long()).last_hidden_state
        return out

    def project(self, states: Tensor) -> Tensor:
        """Return token vectors ``[b, t, d]`` of states: head, then norm 1."""
        vectors = states if self.head is None else self.head(states)
        return unit(vectors, dim=-1) if self.normalize else vectors

    def encode_query(self, inputs: Sequence[str], *, prompt: str | None = None, batch_size: int = 32,
                     allow_empty: bool = False) -> list[FloatArray]:  # fmt: skip
        """Encode questions: one float32 ``[t_i, d]`` each; ``prompt`` overrides the model's own."""
        return self._encode(inputs, "query", prompt, batch_size, allow_empty)[0]

    def encode_document(self, inputs: Sequence[str], *, prompt: str | None = None, batch_size: int = 32,
                        allow_empty: bool = False) -> list[FloatArray]:  # fmt: skip
        """Encode documents: one float32 ``[t_i, d]`` each; ``prompt`` overrides the model's own."""
        return self._encode(inputs, "document", prompt, batch_size, allow_empty)[0]

    def embed(
        self,
        texts: Sequence[str],
        ids: Sequence[str] | None = None,
        *,
        role: Role = "document",
        on_truncate: Literal["warn", "error", "ignore"] = "warn",
        batch_size: int = 32,
        allow_empty: bool = False,
        progress: Progress | None = None,
    ) -> Embeddings:
        """Embed texts in one role, as multi-vector `Embeddings` whose ``cut_tokens`` count what did not fit.

        Parameters
        ----------
        ids
            One each; default ``"0"``, ``"1"`` ...
        on_truncate
            ``"warn"`` once with the counts, raise an ``"error"``, or ``"ignore"`` what is left out.
        batch_size
            A batch holds ``64 * batch_size`` tokens.
        allow_empty
            Give a text without any kept token no row, instead of raising.
        progress
            Called with (texts done, texts).

        Raises
        ------
        EmptyInput
            If a text keeps no token; names it.
        TextTooLong
            Under ``on_truncate="error"``.
        """
        names = id_array(map(str, range(len(texts))) if ids is None else ids)
        if len(names) != len(texts):
            raise InputError(f"{len(texts)} texts need {len(texts)} ids, got {len(names)}.")
        vectors, cut = self._encode(texts, role, None, batch_size, allow_empty, names.tolist(), progress)
        _report(cut, names.tolist(), self.max_tokens, on_truncate)
        offsets = np.concatenate([[0], np.cumsum([len(v) for v in vectors])]).astype(np.int64)
        rows = np.concatenate([np.empty((0, self.dim), np.float32), *vectors])
        return Embeddings(rows, names, self.space, role=role, offsets=offsets, cut_tokens=cut)

    def _encode(
        self,
        inputs: Sequence[str],
        role: Role,
        prompt: str | None,
        batch_size: int,
        allow_empty: bool,
        names: Sequence[str] | None = None,
        progress: Progress | None = None,
    ) -> tuple[list[FloatArray], IntArray]:
        texts = check_texts(inputs, empty=True)
        if role not in ROLES:
            raise UnknownName("role", str(role), ROLES)
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}.")
        found: dict[int, FloatArray] = {}
        rows = self.reader.read(texts, role, prompt)
        if not allow_empty and (bare := [i for i, row in enumerate(rows) if not row.keep.any()]):
            shown = f"Row {bare[0]}" if names is None else f"{names[bare[0]]!r} (row {bare[0]})"
            raise EmptyInput(f"{shown} keeps no token, so it has no vector; remove it, or pass allow_empty=True.")
        lengths = np.array([len(row) for row in rows], np.int64)
        self.backbone.eval()
        for chosen in by_length(lengths, batch_size * TOKENS_PER_TEXT, padded=True):
            batch = TokenBatch.of([rows[i] for i in chosen], device=self.device)
            with torch.inference_mode():
                vectors, mask = self.reducers[role].reduce(self.project(self.states(batch)), batch.keep)
            pairs = zip(vectors.float().cpu().numpy(), mask.cpu().numpy(), strict=True)
            found.update(zip(chosen.tolist(), (v[m] for v, m in pairs), strict=True))
            if progress is not None:
                progress(len(found), len(texts))
        return [found[i] for i in range(len(texts))], np.array([row.cut for row in rows], np.int64)

    def save(self, path: str | Path) -> None:
        """Write a folder: ``late_interaction.json`` and ``late_interaction.safetensors``.

        The transformer's weights are written only where they are no longer those of the model it was loaded from,
        which must be there again at `load`.
        """
        from safetensors.torch import save

        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        parts = {"head": self.head, "backbone": self.backbone if self.tuned else None}
        tensors = {f"{name}.{k}": v.detach().cpu().contiguous().clone()
                   for name, part in parts.items() if part is not None
                   for k, v in part.state_dict().items()}  # fmt: skip
        weights, space = save(tensors), self.encoder.space
        record = {
            "format": FORMAT,
            "source": self.encoder.source,
            "encoder": json.loads(space.to_json()),
            "max_tokens": self.max_tokens,
            "tuned": self.tuned,
            "normalize": self.normalize,
            "choice": asdict(self.choice),
            "head": None if self.head is None else [self.head.in_dim, self.head.out_dim, self.head.normalize],
            "reducers": {role: to_record(reducer) for role, reducer in self.reducers.items()},
            "sha256": hashlib.sha256(weights).hexdigest(),
        }
        write_whole(folder / "late_interaction.safetensors", weights)
        write_whole(folder / "late_interaction.json", json.dumps(record, indent=1).encode())

    @classmethod
    def load(cls, path: str | Path, *, device: str = "cpu") -> LateInteraction:
        """Read what `save` wrote.

        Raises
        ------
        DataFormatError
            If a file is missing or broken, was written by a newer release, or the model it builds on has changed.
        """
        config, weights = Path(path) / "late_interaction.json", Path(path) / "late_interaction.safetensors"
        try:
            record = json.loads(config.read_text(encoding="utf-8"))
            if record["format"] != FORMAT:
                problem = f"its format is {record['format']}, this release reads {FORMAT}; update isometry."
                raise DataFormatError(config, None, problem)
            content = weights.read_bytes()
            if hashlib.sha256(content).hexdigest() != record["sha256"]:
                raise DataFormatError(weights, None, "its bytes are not those that were written; save it again.")
            return _restored(config, record, content, device)
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, InputError):
                raise
            raise DataFormatError(config, None, f"this is no readable late-interaction model ({error}).") from error


def digest(module: nn.Module) -> str:
    """Return sixteen hexadecimal digits of a module's weights and their names."""
    content = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        content.update(f"{name}{list(tensor.shape)}{tensor.dtype}".encode())
        content.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return content.hexdigest()[:16]


def _restored(config: Path, record: dict[str, Any], content: bytes, device: str) -> LateInteraction:
    import copy

    from safetensors.torch import load as read

    known = record["encoder"]
    way = next((step.removeprefix("pooling=") for step in known["chain"] if step.startswith("pooling=")), None)
    options = {"pooling": way, "prompts": known["prompts"], "max_tokens": record["max_tokens"], "device": device}
    encoder = load(record["source"], engine="torch", **options)
    if encoder.space.revision != known["revision"]:
        raise DataFormatError(config, None, f"the files of {record['source']!r} have changed since; train it again.")
    tensors = {part: {k.removeprefix(f"{part}."): v for k, v in read(content).items() if k.startswith(f"{part}.")}
               for part in ("head", "backbone")}  # fmt: skip
    head = backbone = None
    if record["head"] is not None:
        head = TokenProjection(*record["head"][:2], normalize=record["head"][2])
        head.load_state_dict(tensors["head"])
    if record["tuned"]:
        backbone = copy.deepcopy(encoder.model[0].auto_model)
        backbone.load_state_dict(tensors["backbone"])
    reducer: dict[Role, Reducer] = {role: from_record(record["reducers"][role]) for role in ROLES}
    return LateInteraction(encoder, head=head, normalize=record["normalize"], reducer=reducer, backbone=backbone,
                           **record["choice"])  # fmt: skip


def _by_role(reducer: Reducers | None) -> dict[Role, Reducer]:
    if isinstance(reducer, str):
        return reducers(reducer)
    if reducer is None or not isinstance(reducer, Mapping):
        return dict.fromkeys(ROLES, reducer or Identity())
    if unknown := set(reducer) - set(ROLES):
        raise UnknownName("role", str(sorted(unknown)[0]), ROLES, hint="Reducers are given by role.")
    return {role: reducer.get(role, Identity()) for role in ROLES}


def _report(cut: IntArray, names: Sequence[str], window: int, on_truncate: str) -> None:
    if on_truncate not in ("warn", "error", "ignore"):
        raise UnknownName("on_truncate", on_truncate, ("warn", "error", "ignore"))
    rows = np.flatnonzero(cut)
    if len(rows) and on_truncate == "error":
        first = int(rows[0])
        raise TextTooLong(f"{names[first]!r} is {cut[first]:,} tokens too long for the window of {window}; shorten it "
                          "or give max_tokens.")  # fmt: skip
    if len(rows) and on_truncate == "warn":
        message = (
            f"{len(rows):,} of {len(cut):,} texts are longer than the window of {window} tokens; "
            f"{int(cut.sum()):,} tokens were left out."
        )
        warnings.warn(message, Truncated, stacklevel=3)
