"""Does an approximate index change which encoder looks best? Benchmarks with exact and with HNSW search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from isometry.diagnostics.index_study import BACKENDS, Parameters, exact_neighbours, installed_backends
from isometry.errors import InputError, MissingExtra, UnknownName
from isometry.types import FloatArray, Hits, Json


@dataclass(frozen=True)
class RankingShift:
    """Two rankings of the same systems, best first: under exact and under approximate search.

    Parameters
    ----------
    exact, approximate
        Mean by system, in the order of the exact ranking.
    ranks
        By system, its place (1 is best) under exact and under approximate search; equal means share the better place.
    tau
        Kendall's tau-b of the two columns of means; 1 where nothing moves, None where a column does not vary.
    """

    exact: Mapping[str, float]
    approximate: Mapping[str, float]
    ranks: Mapping[str, tuple[int, int]]
    tau: float | None

    @property
    def moved(self) -> dict[str, int]:
        """Places lost (negative: won) by each system that moved."""
        return {name: after - before for name, (before, after) in self.ranks.items() if after != before}

    @property
    def largest_move(self) -> int:
        """Most places any system moved."""
        return max(map(abs, self.moved.values()), default=0)

    def to_dict(self) -> dict[str, Json]:
        """Return the JSON form."""
        means = {name: [self.exact[name], self.approximate[name], *self.ranks[name]] for name in self.exact}
        return {"exact, approximate, rank, rank": means, "tau": self.tau, "largest_move": self.largest_move}


def ranking_shift(exact: Mapping[str, float], approximate: Mapping[str, float]) -> RankingShift:
    """Compare how systems rank by a mean metric under exact and under approximate search (arXiv:2405.17813).

    Parameters
    ----------
    exact, approximate
        Mean by system, higher is better; the same systems in both.

    Raises
    ------
    InputError
        If the systems differ, or there are fewer than two.

    Examples
    --------
    >>> found = ranking_shift({"a": 0.5, "b": 0.4, "c": 0.3}, {"a": 0.35, "b": 0.38, "c": 0.3})
    >>> found.moved, found.largest_move, round(found.tau, 3)
    ({'a': 1, 'b': -1}, 1, 0.333)
    """
    from scipy.stats import kendalltau

    if exact.keys() != approximate.keys() or len(exact) < 2:
        raise InputError(f"two rankings of the same systems are needed, got {sorted(exact)} and {sorted(approximate)}.")
    names = sorted(exact, key=lambda name: (-exact[name], name))
    before, after = ([float(column[name]) for name in names] for column in (exact, approximate))
    places = [{n: 1 + sum(other > v for other in column) for n, v in zip(names, column, strict=True)}
              for column in (before, after)]  # fmt: skip
    constant = min(len(set(before)), len(set(after))) == 1
    return RankingShift(
        exact=dict(zip(names, before, strict=True)),
        approximate=dict(zip(names, after, strict=True)),
        ranks={name: (places[0][name], places[1][name]) for name in names},
        tau=None if constant else float(kendalltau(before, after)[0]),
    )


def search_both(
    vectors: FloatArray,
    queries: FloatArray,
    ids: Sequence[str],
    query_ids: Sequence[str],
    *,
    k: int = 10,
    parameters: Sequence[Parameters] = (Parameters(),),
    backend: str = "usearch",
    seed: int = 0,
) -> tuple[Hits, dict[int, Hits]]:
    """Return exact hits, and those of an HNSW graph by the width ``ef`` of its search.

    Parameters
    ----------
    vectors, queries
        Unit rows, float32 ``[n, d]`` and ``[q, d]``; inserted in the order given, by one thread.
    parameters
        Differ in ``ef`` alone: one graph is built.
    backend
        One of `isometry.diagnostics.index_study.BACKENDS`.

    Raises
    ------
    UnknownName, MissingExtra
        If the backend does not exist, or is not installed.
    """
    if backend not in BACKENDS:
        raise UnknownName("HNSW backend", backend, BACKENDS)
    if backend not in installed_backends():
        raise MissingExtra(backend, "peers", "study it")
    if len({(p.m, p.ef_construction) for p in parameters}) != 1:
        raise InputError("the parameters may differ in ef alone, since one graph is built.")
    k = min(k, len(vectors))
    rows, scores = exact_neighbours(vectors, queries, k)
    exact = _hits(rows, scores, ids, query_ids)
    built = BACKENDS[backend](np.ascontiguousarray(vectors), parameters[0], seed)
    found = {}
    for p in parameters:
        near, _ = built.search(queries, k, ef=p.ef)
        cosine = np.einsum("qkd,qd->qk", vectors[near], queries)
        found[p.ef] = _hits(near, np.where(near >= 0, cosine, -np.inf), ids, query_ids)
    return exact, found


def _hits(rows: np.ndarray, scores: np.ndarray, ids: Sequence[str], query_ids: Sequence[str]) -> Hits:
    pairs = (
        [(ids[r], float(s)) for r, s in zip(*row, strict=True) if r >= 0] for row in zip(rows, scores, strict=True)
    )
    return Hits.build(query_ids, pairs)
