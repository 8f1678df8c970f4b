"""Which documents answer which queries: relevance as pairs, and the patterns of LIMIT."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from isometry.errors import EmptyInput, InputError, UnknownName
from isometry.types import IntArray

Pattern = Literal["dense", "random", "cycle", "disjoint"]


@dataclass(frozen=True, eq=False)
class Relevance:
    """A binary relevance matrix as its pairs.

    Parameters
    ----------
    queries, documents
        int64 ``[p]``: row and column of each relevant pair, by rising query, then document.
    shape
        Number of queries and of documents.
    """

    queries: IntArray
    documents: IntArray
    shape: tuple[int, int]

    @classmethod
    def of_sets(cls, answers: Iterable[Iterable[int]], documents: int) -> Relevance:
        """Build from the set of relevant document rows of each query.

        Raises
        ------
        EmptyInput
            If a query has no relevant document.
        InputError
            If a row is outside ``0 .. documents - 1``.
        """
        rows = [sorted({int(j) for j in answer}) for answer in answers]
        if not rows or not all(rows):
            raise EmptyInput("every query needs at least one relevant document; leave the others out.")
        columns = np.asarray([j for row in rows for j in row], np.int64)
        if columns.min() < 0 or columns.max() >= documents:
            raise InputError(f"document rows must lie in 0..{documents - 1}, got {columns.min()}..{columns.max()}.")
        return cls(np.repeat(np.arange(len(rows)), [len(row) for row in rows]), columns, (len(rows), documents))

    @classmethod
    def of_qrels(cls, qrels: Mapping[str, Mapping[str, int]], documents: Sequence[str] | None = None) -> Relevance:
        """Build from judgments: a grade above 0 is relevant.

        Parameters
        ----------
        qrels
            Grade by query and document id; queries without a relevant document are left out.
        documents
            Ids of the columns; those with a relevant judgment, sorted, where not given.
        """
        relevant = [[d for d, grade in grades.items() if grade > 0] for grades in qrels.values()]
        relevant = [row for row in relevant if row]
        names = sorted({d for row in relevant for d in row}) if documents is None else list(documents)
        column = {name: j for j, name in enumerate(names)}
        if unknown := next((d for row in relevant for d in row if d not in column), None):
            raise InputError(f"the judgments name the document {unknown!r}, which is not among the {len(names)} given.")
        return cls.of_sets([[column[d] for d in row] for row in relevant], len(names))

    @property
    def counts(self) -> IntArray:
        """Relevant documents of each query, int64 ``[m]``."""
        return np.bincount(self.queries, minlength=self.shape[0]).astype(np.int64)

    def dense(self) -> NDArray[np.bool_]:
        """Return the matrix, bool ``[m, n]``."""
        matrix = np.zeros(self.shape, bool)
        matrix[self.queries, self.documents] = True
        return matrix

    def take(self, queries: NDArray[np.int64]) -> Relevance:
        """Return the part of these queries, on the documents relevant to any of them."""
        matrix = self.dense()[queries]
        used = np.flatnonzero(matrix.any(axis=0))
        return Relevance.of_sets([np.flatnonzero(row) for row in matrix[:, used]], len(used))


def all_subsets(n: int, k: int, limit: int | None = None) -> Relevance:
    """Every k-subset of n documents as one query, in lexicographic order, or the first ``limit`` of them."""
    if not 1 <= k < n:
        raise InputError(f"k must lie between 1 and n - 1 = {n - 1}, got {k}.")
    chosen = np.asarray(list(islice(combinations(range(n), k), limit)), np.int64)
    return Relevance(np.repeat(np.arange(len(chosen)), k), chosen.ravel(), (len(chosen), n))


def relevance_pattern(
    pattern: Pattern, queries: int, k: int = 2, *, documents: int | None = None, seed: int = 0
) -> Relevance:
    """Judgments of one of the patterns of LIMIT (arXiv:2508.21038): k relevant documents for each query.

    Parameters
    ----------
    pattern
        ``"dense"``: the k-subsets, in order, of as few documents as have enough of them; ``"random"``: distinct
        random k-subsets; ``"cycle"``: documents i .. i + k - 1, going around; ``"disjoint"``: no document is shared.
    documents
        Columns of the matrix; the least the pattern needs where not given (``random``: as ``dense``, ``cycle``: one
        for each query). With more, ``dense`` and ``disjoint`` leave the last ones without a query.
    seed
        Of the random pattern.

    Examples
    --------
    >>> relevance_pattern("dense", 1000).shape, relevance_pattern("disjoint", 1000).shape
    ((1000, 46), (1000, 2000))
    """
    if pattern not in get_args(Pattern):
        raise UnknownName("relevance pattern", str(pattern), get_args(Pattern))
    if queries < 1 or k < 1:
        raise InputError(f"queries and k must be at least 1, got {queries} and {k}.")
    fewest = next(n for n in range(k + 1, queries + k + 2) if math.comb(n, k) >= queries)
    needed = {"dense": fewest, "random": fewest, "cycle": max(queries, k + 1), "disjoint": queries * k}[pattern]
    least = max(fewest if pattern == "cycle" else needed, k + 1)
    n = max(needed, k + 1) if documents is None else documents
    if n < least:
        raise InputError(f"{queries} queries of pattern {pattern!r} need at least {least} documents, got {n}.")
    if pattern == "dense":
        found = all_subsets(fewest, k, queries)
        return Relevance(found.queries, found.documents, (queries, n))
    if pattern == "random":
        rng = np.random.default_rng(seed)
        drawn: dict[tuple[int, ...], None] = {}
        while len(drawn) < queries:
            drawn[tuple(sorted(rng.choice(n, k, replace=False).tolist()))] = None
        return Relevance.of_sets(drawn, n)
    start = np.arange(queries)[:, None] * (k if pattern == "disjoint" else 1)
    return Relevance.of_sets(((start + np.arange(k)) % n).tolist(), n)
