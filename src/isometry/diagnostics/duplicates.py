"""Exact and near duplicates, as groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from isometry.diagnostics.sphere import blocks, unit_rows
from isometry.errors import InputError
from isometry.types import IntArray, check_vectors

# Rounding of a float32 dot product of unit rows: without it a copy can miss a threshold of 1.
_SLACK = 2e-6


@dataclass(frozen=True, eq=False)
class Duplicates:
    """Groups of rows that stand for the same thing.

    Parameters
    ----------
    n
        Rows looked at.
    labels
        int64 ``[n]``: the group of each row, numbered by first appearance.
    pairs
        Pairs of rows that are duplicates by themselves, not through a third row.
    """

    n: int
    labels: IntArray
    pairs: int

    @property
    def effective_n(self) -> int:
        """Rows left when each group counts once."""
        return int(self.labels.max()) + 1 if self.n else 0

    @property
    def extra(self) -> int:
        """Rows that could go: n - effective_n."""
        return self.n - self.effective_n

    @property
    def representatives(self) -> IntArray:
        """First row of every group, ascending."""
        return np.asarray(np.unique(self.labels, return_index=True)[1], np.int64)

    @property
    def groups(self) -> list[list[int]]:
        """Rows of every group of two or more; largest group first, ties by first row."""
        order = np.argsort(self.labels, kind="stable")
        cuts = np.flatnonzero(np.diff(self.labels[order])) + 1
        groups = [group.tolist() for group in np.split(order, cuts) if len(group) > 1]
        return sorted(groups, key=lambda group: (-len(group), group[0]))


def exact_duplicates(vectors: Any) -> Duplicates:
    """Group rows with the same float32 values (0.0 and -0.0 are the same).

    >>> exact_duplicates([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]]).groups
    [[0, 2]]
    """
    values = np.ascontiguousarray(check_vectors(vectors) + np.float32(0.0))
    seen: dict[bytes, int] = {}
    labels = np.fromiter((seen.setdefault(row.tobytes(), len(seen)) for row in values), np.int64, len(values))
    counts = np.bincount(labels) if len(labels) else np.zeros(0, np.int64)
    return Duplicates(len(values), labels, int((counts * (counts - 1) // 2).sum()))


def near_duplicates(vectors: Any, threshold: float = 0.95) -> Duplicates:
    """Group rows linked by a cosine of at least ``threshold`` (connected components, single linkage).

    Blocked float32 products of the upper triangle, O(n^2 d); cosines within 2e-6 below the threshold count. A group is
    a chain: its ends may be further apart than the threshold.

    Raises
    ------
    InputError
        If the threshold is not in (-1, 1], or a row is zero.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not -1.0 < threshold <= 1.0:
        raise InputError(f"threshold must be a cosine in (-1, 1], got {threshold}.")
    unit = unit_rows(vectors).astype(np.float32)
    n = len(unit)
    labels, pairs = np.arange(n), 0
    for start, stop in blocks(n, n):
        above = unit[start:stop] @ unit[start:].T >= threshold - _SLACK
        left, right = np.nonzero(np.triu(above, k=1))
        if len(left):
            pairs += len(left)
            left, right = labels[left + start], labels[right + start]
            links = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(n, n))
            labels = connected_components(links, directed=False)[1][labels]
    first, inverse = np.unique(labels, return_index=True, return_inverse=True)[1:]
    by_appearance = np.argsort(np.argsort(first))
    return Duplicates(n, np.asarray(by_appearance[inverse], np.int64), pairs)
