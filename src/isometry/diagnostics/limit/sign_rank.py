"""How many dimensions given judgments need at least, and suffice with: bounds of the row-wise order-preserving rank.

For relevance A in {0, 1}, ``rank_rop`` is the least d for which vectors rank every query's relevant documents above
all others; it lies between ``sign rank of 2A - 1`` minus 1 and that sign rank (arXiv:2508.21038, section 3). Every
lower bound of a part of the matrix is one of the whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isometry.diagnostics.limit.free_embeddings import Training, train_free_embeddings
from isometry.diagnostics.limit.patterns import Relevance
from isometry.errors import DimensionMismatch, InputError

_STRICT = 1e-9  # margin of a linear program, in units of queries of largest entry 1, that counts as a separation
_RANK_CELLS = 4_000_000  # a larger matrix takes long to decompose and seldom has a small rank
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class RankBounds:
    """``lower <= rank_rop <= upper``, each with the argument behind it, and all bounds that were tried by name."""

    lower: int
    upper: int
    because_lower: str
    because_upper: str
    all_lower: dict[str, int]
    all_upper: dict[str, int]

    def __str__(self) -> str:
        return f"[{self.lower}, {self.upper}] ({self.because_lower}; {self.because_upper})"


def linear_separation(documents: Any, relevant: Any) -> tuple[float, NDArray[np.float64]]:
    """Largest margin with which one query separates its documents from all others, by linear programming (HiGHS).

    Maximises eps subject to ``<q, d> - tau >= eps`` for relevant, ``tau - <q, d> >= eps`` for other documents and
    ``|q| <= 1`` in every entry. The judgments of the query are realisable on these documents if and only if eps > 0.

    Parameters
    ----------
    documents
        ``[n, d]``.
    relevant
        bool ``[n]``.

    Returns
    -------
    tuple
        eps, and the query float64 ``[d]`` that reaches it.

    Examples
    --------
    >>> line = [[0.0], [1.0], [2.0]]
    >>> linear_separation(line, [True, False, False])[0] > 0, linear_separation(line, [False, True, False])[0] > 0
    (True, False)
    """
    from scipy.optimize import linprog

    d, mask = np.asarray(documents, np.float64), np.asarray(relevant, bool)
    if d.ndim != 2 or mask.shape != (len(d),):
        raise DimensionMismatch(f"relevant must hold one truth value per document, got {mask.shape} for {d.shape}.")
    sign = np.where(mask, -1.0, 1.0)[:, None]
    constraints = np.hstack([sign * d, -sign, np.ones((len(d), 1))])
    width = d.shape[1]
    reach = float(np.abs(d).sum(axis=1).max(initial=0.0)) + 1  # beyond any score of a query of entries up to 1
    bounds = [(-1, 1)] * width + [(-reach, reach), (None, reach)]
    found = linprog(np.r_[np.zeros(width + 1), -1.0], constraints, np.zeros(len(d)), bounds=bounds, method="highs")
    if found.x is None:
        raise InputError(f"the linear program of {d.shape} documents was not solved ({found.message}).")
    return float(found.x[-1]), np.asarray(found.x[:width], np.float64)


def forster_bound(matrix: Bools) -> float:
    """Forster's spectral lower bound of the sign rank of 2A - 1: ``sqrt(m n) / ||2A - 1||_2`` (Forster 2002)."""
    signs = np.where(matrix, 1.0, -1.0)
    return float(np.sqrt(signs.size) / np.linalg.norm(signs, 2))


def shattering_bound(matrix: Bools, *, seed: int = 0, restarts: int = 20) -> int:
    """Lower bound from queries that cut the documents in all ways.

    If the documents show all ``2 ** s`` patterns on s queries, the s hyperplanes of these queries cut space into as
    many cells, which takes s dimensions. The queries are looked for greedily, so that the bound may not be the best.
    """

    def all_cells(codes: NDArray[np.int64], size: int) -> bool:
        return len(np.unique(codes)) == 1 << size

    return _largest(np.ascontiguousarray(matrix.T), all_cells, seed, restarts)


def radon_bound(matrix: Bools, *, seed: int = 0, restarts: int = 20) -> int:
    """Lower bound by Radon's theorem: any d + 2 points fall into two parts that no hyperplane separates.

    If for a set of s documents every split into two parts has a query that takes exactly one of them, s - 2 dimensions
    are too few. A set of s documents shattered in the sense of Vapnik and Chervonenkis is one, so that the bound is at
    least theirs; for all k-subsets of n >= 3k documents it is 2k, which `witness` attains.

    Examples
    --------
    >>> from isometry.diagnostics.limit.patterns import all_subsets
    >>> radon_bound(all_subsets(10, 2).dense())
    4
    """

    def all_splits(codes: NDArray[np.int64], size: int) -> bool:
        full = (1 << size) - 1
        halves = np.unique(np.minimum(codes, full - codes))
        return len(halves) - int(halves[0] == 0) == (1 << (size - 1)) - 1

    return max(_largest(matrix, all_splits, seed, restarts) - 1, 1)


def _largest(matrix: Bools, complete: Callable[[NDArray[np.int64], int], bool], seed: int, restarts: int) -> int:
    """Greatest size of a set of columns, found greedily, whose row patterns are complete."""
    rng = np.random.default_rng(seed)
    columns = np.unique(matrix, axis=1)
    best = 0
    for _ in range(restarts):
        codes, size = np.zeros(len(columns), np.int64), 0
        for column in rng.permutation(columns.shape[1]):
            grown = 2 * codes + columns[:, column]
            if complete(grown, size + 1):
                codes, size = grown, size + 1
        best = max(best, size)
    return best


def rank_bounds(
    relevance: Relevance,
    *,
    seed: int = 0,
    search: bool = True,
    training: Training = Training(iterations=5000),  # noqa: B008  a tuple cannot change
) -> RankBounds:
    """Bounds of the dimension in which some vectors rank every query of these judgments without error.

    Lower: `forster_bound`, `radon_bound`, `shattering_bound`. Upper: n - 1 (a simplex), m, the rank of the matrix, 2k
    for k relevant documents a query at most (`witness`), 2k + 1 for k queries a document at most (the same curve,
    exchanged) and, where ``search`` is set and there is room between the two, the least dimension in which trained
    document vectors are separated by linear programs, looked for by bisection.

    Parameters
    ----------
    training
        Of the search; it is tried at falling temperatures.
    """
    lower, upper = lower_bounds(relevance, seed=seed), upper_bounds(relevance)
    low, high = max(lower.values()), min(upper.values())
    while search and low < high:
        middle = (low + high) // 2
        if not _realised(relevance, middle, seed, training):
            low = middle + 1
            continue
        upper["trained vectors and linear programs"] = high = middle
    return bounds_of(lower, upper)


def bounds_of(lower: dict[str, int], upper: dict[str, int]) -> RankBounds:
    """The best of named bounds."""
    below, above = max(lower, key=lower.__getitem__), min(upper, key=upper.__getitem__)
    return RankBounds(lower[below], upper[above], below, above, lower, upper)


def lower_bounds(relevance: Relevance, *, seed: int = 0) -> dict[str, int]:
    """Every lower bound of `rank_bounds`, by name; 1 where an argument says nothing."""
    matrix = relevance.dense()
    return {
        "Forster": max(int(np.ceil(forster_bound(matrix) - 1e-9)) - 1, 1),
        "Radon": radon_bound(matrix, seed=seed),
        "shattering": max(shattering_bound(matrix, seed=seed), 1),
    }


def upper_bounds(relevance: Relevance) -> dict[str, int]:
    """Every upper bound of `rank_bounds` that needs no search, by name."""
    m, n = relevance.shape
    counts = relevance.counts[relevance.counts < n]  # where everything is relevant there is nothing to separate
    bounds = {
        "simplex": max(n - 1, 1),
        "one dimension a query": m,
        "moment curve of documents": max(2 * int(counts.max(initial=0)), 1),
        "moment curve of queries": 2 * int(np.bincount(relevance.documents).max()) + 1,
    }
    if m * n <= _RANK_CELLS:
        bounds["matrix rank"] = max(int(np.linalg.matrix_rank(relevance.dense().astype(np.float64))), 1)
    return bounds


def _realised(relevance: Relevance, dim: int, seed: int, training: Training) -> bool:
    """Whether documents trained at one of three temperatures let a query of its own separate every row."""
    matrix = relevance.dense()
    for temperature in (training.temperature, training.temperature / 4, training.temperature / 16):
        found = train_free_embeddings(relevance, dim, seed=seed, training=training._replace(temperature=temperature))
        if found.solved or all(linear_separation(found.documents, row)[0] > _STRICT for row in matrix):
            return True
    return False
