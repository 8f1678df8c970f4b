"""Reducers that keep some tokens and drop the others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from isometry.modules.token_reduction.reducer import at_least_one, check_tokens


@dataclass(frozen=True)
class Identity:
    """Every token: the unpruned multi-vector representation (MV)."""

    keeps_norm = True

    def reduce(self, x: Tensor, mask: Tensor, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Return the tokens as they are."""
        check_tokens(x, mask)
        return x, mask


@dataclass(frozen=True)
class Tail:
    """The last ``k`` tokens (CRISP, arXiv:2505.11471, Tail pruning)."""

    k: int
    keeps_norm = True

    def __post_init__(self) -> None:
        at_least_one("k", self.k)

    def reduce(self, x: Tensor, mask: Tensor, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Return the last tokens that count, in their order."""
        check_tokens(x, mask)
        from_end = mask.long().flip(1).cumsum(1).flip(1)
        return compacted(x, mask & (from_end <= self.k))


@dataclass(frozen=True)
class Stride:
    """Every ``k``-th token, beginning with the first (CRISP, arXiv:2505.11471, K-spacing)."""

    k: int
    keeps_norm = True

    def __post_init__(self) -> None:
        at_least_one("k", self.k)

    def reduce(self, x: Tensor, mask: Tensor, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Return tokens 0, k, 2k ... of those that count."""
        check_tokens(x, mask)
        return compacted(x, mask & ((mask.long().cumsum(1) - 1) % self.k == 0))


def compacted(x: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Move kept tokens to the front of each text, in their order: ``[b, k, d]`` with k the most kept in one text."""
    counts = keep.sum(1)
    order = (~keep).long().argsort(dim=1, stable=True)[:, : int(counts.max()) if len(x) else 0]
    mask = torch.arange(order.shape[1], device=x.device) < counts[:, None]
    picked = x.gather(1, order[..., None].expand(-1, -1, x.shape[2]))
    return picked.masked_fill(~mask[..., None], 0.0), mask
