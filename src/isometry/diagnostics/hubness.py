"""Hubs: rows that are near neighbours of too many others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from isometry.diagnostics.neighbours import knn
from isometry.diagnostics.sphere import unit_rows
from isometry.types import IntArray


@dataclass(frozen=True, eq=False)
class Hubness:
    """How often each row is among the k nearest of another.

    ``counts`` int64 ``[n]`` sum to n k; ``skewness`` is 0 for an even share and grows with hubs; ``hubs`` are the rows
    more than two standard deviations above the mean, most frequent first; ``anti_hubs`` the rows no other row finds.
    """

    k: int
    counts: IntArray
    skewness: float
    hubs: IntArray
    anti_hubs: IntArray


def k_occurrence(vectors: Any, k: int = 10) -> Hubness:
    """Hubness by skewness of the k-occurrence (Radovanovic et al., 2010), under cosine similarity."""
    return k_occurrence_of(knn(unit_rows(vectors), k)[1])


def k_occurrence_of(neighbours: IntArray) -> Hubness:
    """`k_occurrence` from neighbour rows int64 ``[n, k]`` found among the same n rows.

    >>> import numpy as np
    >>> k_occurrence_of(np.array([[1], [0], [0], [0]])).counts.tolist()
    [3, 1, 0, 0]
    """
    counts = np.bincount(neighbours.ravel(), minlength=len(neighbours)).astype(np.int64)
    centred = counts - counts.mean()
    spread = float(np.sqrt((centred**2).mean()))
    skewness = float((centred**3).mean() / spread**3) if spread > 0 else 0.0
    order = np.argsort(-counts, kind="stable")
    hubs = order[centred[order] > 2.0 * spread] if spread > 0 else order[:0]
    return Hubness(neighbours.shape[1], counts, skewness, hubs, np.flatnonzero(counts == 0))
