"""By how much a ranking holds, and how many dimensions a margin costs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isometry.diagnostics.limit.patterns import Relevance
from isometry.errors import DimensionMismatch, InputError


def ranking_margins(queries: Any, documents: Any, relevance: Relevance, *, block: int = 4096) -> NDArray[np.float64]:
    """Lowest score of a relevant document minus the highest of any other, per query, float64 ``[m]``.

    A query is ranked without error if and only if its margin is above 0: a tie is an error. Infinite where every
    document is relevant.

    Parameters
    ----------
    queries, documents
        ``[m, d]`` and ``[n, d]``; scores are their dot products in float64.
    block
        Queries scored at a time.

    Raises
    ------
    DimensionMismatch
        If the shapes do not fit the relevance or each other.
    """
    q, d = np.asarray(queries, np.float64), np.asarray(documents, np.float64)
    if q.ndim != 2 or d.ndim != 2 or q.shape[1] != d.shape[1] or (len(q), len(d)) != relevance.shape:
        raise DimensionMismatch(f"relevance of shape {relevance.shape} does not fit {q.shape} queries, {d.shape} rows.")
    found = np.empty(len(q))
    starts = np.searchsorted(relevance.queries, np.arange(0, len(q) + block, block))
    for i, start in enumerate(range(0, len(q), block)):
        pairs = slice(starts[i], starts[i + 1])
        rows, columns = relevance.queries[pairs] - start, relevance.documents[pairs]
        scores = q[start : start + block] @ d.T
        lowest = np.full(len(scores), np.inf)
        np.minimum.at(lowest, rows, scores[rows, columns])
        scores[rows, columns] = -np.inf
        found[start : start + block] = lowest - scores.max(axis=1)
    return found


def strict_accuracy(scores: NDArray[Any], relevance: Relevance) -> float:
    """Share of relevant pairs among the best ``counts`` of their query, ties counted as misses.

    A document is a hit if it scores strictly above the first one that no longer fits.
    """
    ranked = -np.sort(-np.asarray(scores), axis=1)
    beyond = np.column_stack([ranked, np.full(len(ranked), -np.inf)])[np.arange(len(ranked)), relevance.counts]
    return float((scores[relevance.queries, relevance.documents] > beyond[relevance.queries]).mean())


def packing_bound(relevance: Relevance, margin: float) -> float:
    """Least number of dimensions in which unit vectors can realise the judgments with this margin.

    Two queries whose answers are different and equally many each rank a document of their own above one of the other's
    by ``margin``, so that the queries lie at least ``margin`` apart; the unit ball holds at most
    ``(1 + 2 / margin) ** d`` such points. For all k-subsets of n documents this grows like ``k log(n / k)``.

    Parameters
    ----------
    margin
        Smallest difference of cosines between a relevant and another document, in (0, 2].

    Examples
    --------
    >>> from isometry.diagnostics.limit.patterns import all_subsets
    >>> round(packing_bound(all_subsets(46, 2), 0.1), 2)
    2.28
    """
    if not 0 < margin <= 2:
        raise InputError(f"margin must lie in (0, 2], got {margin}.")
    answers = np.split(relevance.documents, np.cumsum(relevance.counts)[:-1])
    by_size: dict[int, set[bytes]] = {}
    for answer in answers:
        by_size.setdefault(len(answer), set()).add(answer.tobytes())
    return math.log(max(map(len, by_size.values()))) / math.log(1 + 2 / margin)
