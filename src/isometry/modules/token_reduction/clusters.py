"""Reducers that put the mean of a cluster in place of its tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from isometry.errors import InputError
from isometry.modules.token_reduction.lloyd import lloyd
from isometry.modules.token_reduction.reducer import at_least_one, check_tokens
from isometry.modules.token_reduction.segments import scaled, segment_mean


@dataclass(frozen=True)
class Mean:
    """One vector, the mean of all tokens (SV)."""

    renormalise: bool = False

    @property
    def keeps_norm(self) -> bool:
        """Whether vectors of norm 1 stay so."""
        return self.renormalise

    def reduce(self, x: Tensor, mask: Tensor, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Return ``[b, 1, d]``."""
        check_tokens(x, mask)
        means, some = segment_mean(x, torch.zeros_like(mask, dtype=torch.long), 1, mask)
        return scaled(means, some) if self.renormalise else means, some


@dataclass(frozen=True)
class Clusters:
    """k-means inside each text; centroids in place of tokens (CRISP, arXiv:2505.11471).

    Assignments are found on tokens without gradient; the means are of the tokens with it. A text with at most k tokens
    is kept as it is; empty clusters are dropped.

    Parameters
    ----------
    k
        Number of clusters (C4x8 is 4 on the query's side, 8 on the document's).
    share
        In place of ``k``: ``max(1, floor(share * tokens))`` clusters (C25 is .25).
    steps
        Lloyd's steps; the paper does not say how many.
    renormalise
        Scale centroids to norm 1. Left as they are, a centroid is the shorter the more its tokens disagree.
    """

    k: int | None = None
    share: float | None = None
    steps: int = 10
    renormalise: bool = False

    def __post_init__(self) -> None:
        if (self.k is None) == (self.share is None):
            raise InputError("Give Clusters either a number k or a share of the tokens.")
        at_least_one("k", 1 if self.k is None else self.k)
        if self.share is not None and not 0 < self.share <= 1:
            raise InputError(f"share must lie in (0, 1], got {self.share}.")
        if self.steps < 0:
            raise InputError(f"steps must be at least 0, got {self.steps}.")

    @property
    def keeps_norm(self) -> bool:
        """Whether vectors of norm 1 stay so."""
        return self.renormalise

    def counts(self, mask: Tensor) -> Tensor:
        """Clusters of each text, no more than it has tokens, int64 ``[b]``."""
        tokens = mask.sum(1)
        if self.share is None:
            return tokens.clamp(1, self.k)
        # In float64, rounded first: .29 * 100 is 28.999..., and its floor must be 29.
        return (tokens.double() * self.share).round(decimals=9).floor().long().clamp_min(1)

    def assign(self, x: Tensor, mask: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Return the cluster of each token, int64 ``[b, t]``."""
        return lloyd(x, mask, self.counts(mask), steps=self.steps, generator=generator)[0]

    def reduce(self, x: Tensor, mask: Tensor, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Return centroids; without a generator they are the same every time."""
        check_tokens(x, mask)
        if not len(x):
            return x[:, :0], mask[:, :0]
        counts = self.counts(mask)
        means, some = segment_mean(x, self.assign(x, mask, generator=generator), int(counts.max()), mask)
        return scaled(means, some) if self.renormalise else means, some
