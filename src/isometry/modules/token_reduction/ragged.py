"""Reducers on embeddings that are already computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isometry.errors import InputError
from isometry.modules.token_reduction.reducer import Reducer
from isometry.types import Embeddings, FloatArray, IntArray, Role

_BATCH = 1 << 16  # padded tokens of one batch


@dataclass(frozen=True)
class Reduction:
    """How much smaller a set of embeddings became: vectors and bytes before and after."""

    vectors_before: int
    vectors: int
    bytes_before: int
    bytes: int

    @property
    def share(self) -> float:
        """Vectors kept, as a share; 1 where there were none."""
        return self.vectors / self.vectors_before if self.vectors_before else 1.0


def padded(embeddings: Embeddings, rows: Sequence[int] | NDArray[Any]) -> tuple[Tensor, Tensor]:
    """Return items of multi-vector embeddings side by side: float32 ``[b, t, d]``, 0 where padded, and bool ``[b, t]``.

    Raises
    ------
    InputError
        If the embeddings have one vector per item.
    """
    offsets_of(embeddings)
    items = [embeddings.item(int(row)) for row in rows]
    lengths = np.array([len(item) for item in items], np.int64)
    mask = np.arange(int(lengths.max(initial=0))) < lengths[:, None]
    x = np.zeros((*mask.shape, embeddings.space.dim), np.float32)
    if items:
        x[mask] = np.concatenate(items)
    return torch.from_numpy(x), torch.from_numpy(mask)


def reduce_embeddings(
    embeddings: Embeddings, reducer: Reducer | Mapping[Role, Reducer]
) -> tuple[Embeddings, Reduction]:
    """Apply a reducer to each item of multi-vector embeddings; nothing is random.

    Parameters
    ----------
    reducer
        One for all, or by role (as `isometry.modules.token_reduction.reducers` names them): then the embeddings' role
        chooses, and queries and documents reduced by the same pair share a space.

    Raises
    ------
    InputError
        If the embeddings have one vector per item, or no role to choose a reducer by.
    """
    if isinstance(reducer, Mapping):
        if embeddings.role is None or embeddings.role not in reducer:
            raise InputError(f"Reducers are given by role, but these embeddings have the role {embeddings.role!r}.")
        pair, chosen = reducer, reducer[embeddings.role]
    else:
        pair, chosen = {}, reducer
    name = "; ".join(f"{role}: {pair[role]!r}" for role in sorted(pair)) or repr(chosen)
    keeps_norm = all(one.keeps_norm for one in (*pair.values(), chosen))
    ordered = _reduced(embeddings, chosen)
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in ordered])]).astype(np.int64)
    vectors = np.concatenate([embeddings.vectors[:0], *ordered])
    space = embeddings.space.then(f"reduce({name})", normalized=embeddings.space.normalized and keeps_norm)
    reduced = replace(embeddings, vectors=vectors, offsets=offsets, space=space)
    before = len(embeddings.vectors), embeddings.vectors.nbytes
    return reduced, Reduction(before[0], len(vectors), before[1], reduced.vectors.nbytes)


def _reduced(embeddings: Embeddings, reducer: Reducer) -> list[FloatArray]:
    lengths = np.diff(offsets_of(embeddings))
    order = np.argsort(lengths, kind="stable")
    size = max(1, _BATCH // max(1, int(lengths.max(initial=1))))
    parts: dict[int, FloatArray] = {}
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        with torch.no_grad():
            vectors, kept = reducer.reduce(*padded(embeddings, rows))
        parts.update({int(row): v[m].numpy() for row, v, m in zip(rows, vectors, kept, strict=True)})
    return [parts[i] for i in range(len(embeddings))]


def offsets_of(embeddings: Embeddings) -> IntArray:
    """Return the offsets of multi-vector embeddings; raise `InputError` if an item has but one vector."""
    if embeddings.offsets is None:
        raise InputError("Only multi-vector embeddings (with offsets) have tokens; these have one vector per item.")
    return embeddings.offsets
