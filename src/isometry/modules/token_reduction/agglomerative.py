"""Hierarchical pooling of token vectors after training: the baseline that needs no training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from isometry.errors import InputError
from isometry.modules.token_reduction.reducer import at_least_one, check_tokens
from isometry.modules.token_reduction.segments import scaled, segment_mean
from isometry.types import unit


@dataclass(frozen=True)
class Agglomerative:
    """Token pooling: Ward's agglomerative clustering on cosine distances, means in place of tokens.

    After Clavié et al. 2024 (arXiv:2409.14683): a text of L tokens is cut at ``floor(L / factor) + 1`` clusters.

    Parameters
    ----------
    factor
        By how much to shrink.
    k
        In place of ``factor``: a fixed number of clusters.
    renormalise
        Scale means to norm 1.
    """

    factor: int | None = None
    k: int | None = None
    renormalise: bool = False

    def __post_init__(self) -> None:
        if (self.k is None) == (self.factor is None):
            raise InputError("Give Agglomerative either a factor to shrink by or a number k.")
        at_least_one("factor", 1 if self.factor is None else self.factor)
        at_least_one("k", 1 if self.k is None else self.k)

    @property
    def keeps_norm(self) -> bool:
        """Whether vectors of norm 1 stay so."""
        return self.renormalise

    def _count(self, tokens: int) -> int:
        return self.k if self.k is not None else tokens // (self.factor or 1) + 1

    def assign(self, x: NDArray[np.floating]) -> NDArray[np.int64]:
        """Return the cluster of each token of a text ``[t, d]``, numbered by first appearance, int64 ``[t]``."""
        from scipy.cluster.hierarchy import fcluster, linkage
        from scipy.spatial.distance import squareform

        tokens = len(x)
        if tokens <= self._count(tokens):
            return np.arange(tokens)
        rows = unit(x)
        distances = np.clip(1 - rows @ rows.T, 0, None)
        np.fill_diagonal(distances, 0)
        tree = linkage(squareform(distances, checks=False), method="ward")
        labels = fcluster(tree, self._count(tokens), criterion="maxclust")
        _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
        return np.argsort(np.argsort(first))[inverse].astype(np.int64)

    def reduce(self, x: Tensor, mask: Tensor, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Return the means of the clusters, text by text on the processor."""
        check_tokens(x, mask)
        assignment = torch.zeros(mask.shape, dtype=torch.long)
        tokens, kept = x.detach().double().cpu().numpy(), mask.cpu().numpy()
        for i, row in enumerate(kept):
            assignment[i, torch.from_numpy(row)] = torch.from_numpy(self.assign(tokens[i][row]))
        k = int(assignment.max()) + 1 if assignment.numel() else 0
        means, some = segment_mean(x, assignment.to(x.device), k, mask)
        return scaled(means, some) if self.renormalise else means, some
