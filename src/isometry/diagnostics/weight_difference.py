"""Weight-difference analysis: which tensors a training moved, how far, and in how many directions (T-VEC, 2504.16460).

A row is one tensor, not one layer: a transformer layer has about a dozen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.errors import DimensionMismatch, EmptyInput, InputError

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor


@dataclass(frozen=True)
class TensorChange:
    """What happened to one tensor W, now W'.

    Parameters
    ----------
    relative
        ``|W' - W| / |W|``, Frobenius norms; infinity where W was zero and W' is not.
    largest
        Largest absolute change of an element.
    cosine
        Of W and W' as vectors; 1 where nothing changed.
    rank
        Numerical rank of ``W' - W``: singular values beyond what rounding of W' explains. None unless W is a matrix.
    added_rows
        Rows that only W' has, such as new tokens; the other figures leave them out.
    """

    name: str
    shape: tuple[int, ...]
    relative: float
    largest: float
    cosine: float
    rank: int | None = None
    added_rows: int = 0


@dataclass(frozen=True)
class WeightDifference:
    """Changes by tensor, in the model's order."""

    tensors: tuple[TensorChange, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.tensors)

    def __getitem__(self, name: str) -> TensorChange:
        found = next((tensor for tensor in self.tensors if tensor.name == name), None)
        if found is None:
            raise InputError(f"No tensor {name!r} was compared; there are {len(self)}.")
        return found

    def share(self, above: float = 0.0) -> float:
        """Share of the tensors whose relative change exceeds ``above``."""
        return float(np.mean([tensor.relative > above for tensor in self.tensors]))

    def histogram(self, bins: int = 10) -> list[tuple[float, int]]:
        """Relative changes above 0 on a logarithmic scale: ``(lower edge, how many tensors)``, rising."""
        moved = np.array([t.relative for t in self.tensors if 0 < t.relative < np.inf])
        if not len(moved):
            return []
        counts, edges = np.histogram(np.log10(moved), bins=bins)
        return [(float(10**edge), int(count)) for edge, count in zip(edges, counts, strict=False)]

    def to_arrow(self) -> pa.Table:
        """Return a table with one row per tensor."""
        import pyarrow as pa

        return pa.Table.from_pylist([asdict(tensor) | {"shape": list(tensor.shape)} for tensor in self.tensors])


def compare_weights(before: Any, after: Any, *, ranks: bool = True) -> WeightDifference:
    """Compare the weights of a model before and after training, tensor by tensor.

    Parameters
    ----------
    before, after
        Modules, or state dicts. Only floating-point tensors count; computed in float64.
    ranks
        Whether to compute ranks, which costs a decomposition of each matrix's smaller side.

    Raises
    ------
    InputError
        If a tensor is on one side only.
    DimensionMismatch
        If a tensor's shapes differ in more than additional rows.
    EmptyInput
        If there is no floating-point tensor.

    Examples
    --------
    >>> import torch
    >>> old = {"w": torch.eye(3)}
    >>> compare_weights(old, {"w": torch.eye(3) + torch.ones(3, 3)})["w"].rank
    1
    """
    old, new = _state(before), _state(after)
    if odd := sorted(old.keys() ^ new.keys()):
        raise InputError(f"The models differ in {len(odd)} tensors, the first is {odd[0]!r}; compare like with like.")
    if not old:
        raise EmptyInput("There is no floating-point tensor to compare.")
    return WeightDifference(tuple(_change(name, old[name], new[name], ranks) for name in old))


def _state(model: Any) -> dict[str, Tensor]:
    state: Mapping[str, Tensor] = model if isinstance(model, Mapping) else model.state_dict()
    return {name: tensor.detach() for name, tensor in state.items() if tensor.is_floating_point()}


def _change(name: str, old: Tensor, new: Tensor, ranks: bool) -> TensorChange:
    import torch

    added = new.shape[0] - old.shape[0] if old.ndim and new.ndim == old.ndim else 0
    if old.shape[1:] != new.shape[1:] or old.ndim != new.ndim or added < 0:
        raise DimensionMismatch(f"Tensor {name!r} has shape {list(old.shape)} before and {list(new.shape)} after.")
    epsilon = max(torch.finfo(t.dtype).eps for t in (old, new))
    w, v = old.double().cpu(), (new[: len(old)] if added else new).double().cpu()
    delta = v - w
    norm, moved = float(w.norm()), float(delta.norm())
    if not np.isfinite(norm + moved):
        raise InputError(f"Tensor {name!r} holds NaN or infinity; the training went wrong there.")
    product = norm * float(v.norm())
    cosine = 1.0 if moved == 0 else float((w * v).sum()) / product if product else 0.0
    rank = _rank(delta, epsilon * (float(v.norm()) + moved)) if ranks and w.ndim == 2 else None
    relative = moved / norm if norm else float("inf") if moved else 0.0
    largest = float(delta.abs().max()) if delta.numel() else 0.0
    return TensorChange(name, tuple(new.shape), relative, largest, min(cosine, 1.0), rank, added)


def _rank(delta: Tensor, noise: float) -> int:
    """Count singular values above ``noise``: rounding each element moves none by more (Weyl's inequality)."""
    import torch

    if not delta.any():
        return 0
    # The smaller side's triangular factor has the same singular values as the whole.
    tall = delta if delta.shape[0] >= delta.shape[1] else delta.T
    return int((torch.linalg.svdvals(torch.linalg.qr(tall, mode="r").R) > noise).sum())
