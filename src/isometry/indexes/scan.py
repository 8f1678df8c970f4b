"""Blocked top-k over a matrix: single-precision products to find candidates, double precision to rank them.

A block product is fast but its last bits depend on the block's shape. So the scan keeps every row within the rounding
error of the k-th best (`rounding`), and the few that remain are scored again one by one: what comes out is the order a
double-precision brute force gives, whatever the blocks, the batch and the machine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from isometry.indexes.rows import Floats, blocks
from isometry.types import IntArray

BlockScores = Callable[[slice], Floats]
Settle = Callable[[IntArray, IntArray], tuple[IntArray, IntArray, Floats]]

CELLS: Final = 1 << 22  # scores held at once: 16 MiB
GROUP: Final = 16
CROWD: Final = 1 << 20  # candidates beyond which near-ties are settled at once instead of at the end


def rounding(dim: int, reach: float, queries: Floats) -> NDArray[np.float64]:
    """Twice the largest error of a float32 score ``q . v`` or ``q . v - |v|^2 / 2`` with ``|v| <= reach``, ``[q]``.

    The bound is the textbook one of a dot product, ``d u |q| |v|`` with ``u = 2^-24`` (Higham, Accuracy and Stability
    of Numerical Algorithms, 2002, section 3.1).
    """
    norms = np.linalg.norm(queries.astype(np.float64), axis=1)
    return np.asarray(4 * (dim + 8) * 2.0**-24 * reach * (norms + reach), np.float64)


def kth_largest_bound(scores: Floats, k: int) -> Floats:
    """A lower bound of the k-th largest of each column of ``[r, q]``, ``[q]``; -inf where ``r < k``.

    The k-th largest of the maxima of disjoint groups cannot exceed the k-th largest of all, and costs one pass.
    """
    rows, width = scores.shape
    if rows < k:
        return np.full(width, -np.inf)
    groups = rows // GROUP
    if groups >= max(k, 2 * GROUP):
        scores = scores[: groups * GROUP].reshape(GROUP, groups, width).max(axis=0)
    columns = np.ascontiguousarray(scores.T)
    return np.partition(columns, columns.shape[1] - k, axis=1)[:, columns.shape[1] - k]


def above(scores: Floats, bar: Floats) -> tuple[IntArray, IntArray]:
    """Positions ``(row, column)`` of scores ``[r, q]`` that reach the bar of their column."""
    row, column = np.divmod(rare(scores >= bar), scores.shape[1])
    return row, column


def ranks(query: IntArray) -> IntArray:
    """Position of each entry within its query, for entries sorted by query."""
    first = np.flatnonzero(np.r_[True, query[1:] != query[:-1]]) if len(query) else np.empty(0, np.int64)
    counts = np.diff(np.r_[first, len(query)])
    return np.arange(len(query)) - np.repeat(first, counts)


def rare(mask: NDArray[np.bool_]) -> IntArray:
    """``np.flatnonzero`` for masks that are nearly all false: eight of them at a time."""
    flat = np.ascontiguousarray(mask).reshape(-1)
    whole = len(flat) // 8 * 8
    words = np.flatnonzero(flat[:whole].view(np.uint64))
    places = np.r_[(8 * words[:, None] + np.arange(8)).reshape(-1), np.arange(whole, len(flat))]
    found: IntArray = places[flat[places]]
    return found


def _near_top(query: IntArray, row: IntArray, score: Floats, k: int, margin: Floats) -> tuple[Any, ...]:
    """Keep what is within ``margin`` of the k-th best of its query; also return those k-th best, ``[q]``."""
    order = np.lexsort((-score, query))
    query, row, score = query[order], row[order], score[order]
    floor = np.full(len(margin), -np.inf)
    last = ranks(query) == k - 1
    floor[query[last]] = score[last]
    keep = score >= (floor - margin)[query]
    return query[keep], row[keep], score[keep], floor


def top(
    score: BlockScores,
    n: int,
    k: int,
    margin: NDArray[np.float64],
    settle: Settle,
    block: int,
    find: Callable[[Floats, Floats], tuple[IntArray, IntArray]],
) -> tuple[IntArray, IntArray, Floats]:
    """Return the k best rows of each query as (query, row, score), sorted as ``settle`` sorts.

    Parameters
    ----------
    score
        ``slice of rows -> [r, q]``, each score off by at most ``margin / 2``.
    n, block
        How many rows, and how many of them at once.
    margin
        float64 ``[q]``.
    find
        Positions ``(row, query)`` of scores that reach a bar; the compiled one where it pays.
    settle
        ``(query, row) -> (query, row, score)``: the k best of each query among these, scored without error.
    """
    query, row = np.empty(0, np.int64), np.empty(0, np.int64)
    found: Floats = np.empty(0, np.float64)
    floor = np.full(len(margin), -np.inf)
    for rows in blocks(n, block):
        scores = score(rows)
        if rows.start == 0:
            floor = kth_largest_bound(scores, k)
        # Rounded to the scores' precision and one step down: rounded up, the bar would lose the row that defines it.
        bar = np.nextafter((floor - margin).astype(scores.dtype), scores.dtype.type(-np.inf))
        new_row, new_query = find(scores, bar)
        if not len(new_row):
            continue
        query, row = np.r_[query, new_query], np.r_[row, new_row + rows.start]
        found = np.r_[found, scores[new_row, new_query]]
        query, row, found, kth = _near_top(query, row, found, k, margin)
        floor = np.maximum(floor, kth)
        if len(query) > max(CROWD, 4 * k * len(margin)):
            query, row, found = settle(query, row)
    return settle(query, row)
