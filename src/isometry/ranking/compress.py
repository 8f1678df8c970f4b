"""Semantic compression: a small set that is relevant, covers the candidates and does not repeat itself."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from isometry.errors import DataWarning, InputError, UnknownName
from isometry.ranking.affinity import Affinity, affinity
from isometry.ranking.determinantal import LogDeterminant
from isometry.ranking.lookup import Lookup, vectors_of
from isometry.ranking.stage import Stage, check_count
from isometry.ranking.submodular import (
    ClusterReward,
    Dispersion,
    FacilityLocation,
    Mixture,
    Modular,
    SaturatedCoverage,
    SetFunction,
    Solver,
    farthest_first,
    greedy,
)
from isometry.types import Hits, Queries

Array = NDArray[np.float64]
Cover = Literal["facility", "saturated"]
Spread = Literal["logdet", "clusters", "dispersion"]
Weigh = Literal["linear", "softmax", "uniform"]
POOL: Final = 1000  # candidates compared with each other: 1000 x 1000 similarities are 8 MB and take milliseconds


@dataclass(frozen=True)
class Objective:
    """F(S) = relevance * Rel(S) + coverage * Cov(S) + diversity * Div(S), every term scaled to at most about 1.

    A term is divided by what greedy reaches for it alone, since a sum over k items and one over the whole pool are on
    other scales. With ``coverage`` and ``diversity`` 0 the result is the top k.

    Parameters
    ----------
    relevance, coverage, diversity
        Weights, at least 0. Relevance is half of the others by default: the first items taken cover most of a pool, so
        that at equal weights the later ones are chosen by relevance alone.
    cover
        ``"facility"``: each candidate counts by the most similar one taken; ``"saturated"``: by the sum, up to a tenth
        of its sum over all.
    spread
        ``"logdet"``: volume spanned (a determinantal point process); ``"clusters"``: square root of the relevance
        taken from each of about sqrt(n) clusters; ``"dispersion"``: sum of dissimilarities, which is not submodular.
    weigh
        What a candidate counts in facility location: its relevance (``"linear"``), the softmax of that at temperature
        0.1, or 1.
    noise
        Of the log-determinant.
    """

    relevance: float = 0.5
    coverage: float = 1.0
    diversity: float = 1.0
    cover: Cover = "facility"
    spread: Spread = "logdet"
    weigh: Weigh = "linear"
    noise: float = 0.1

    def __post_init__(self) -> None:
        weights = (self.relevance, self.coverage, self.diversity)
        if not all(np.isfinite(w) and w >= 0 for w in weights) or not any(weights):
            raise InputError(f"The weights of an objective must be at least 0 and not all 0, got {weights}.")
        for what, name, known in (
            ("coverage", self.cover, Cover), ("diversity", self.spread, Spread), ("weighting", self.weigh, Weigh)
        ):  # fmt: skip
            if name not in get_args(known):
                raise UnknownName(what, str(name), get_args(known))

    @property
    def top_k(self) -> bool:
        """Whether relevance alone counts."""
        return not self.coverage and not self.diversity

    @property
    def submodular(self) -> bool:
        """Whether marginal gains never rise."""
        return not (self.diversity and self.spread == "dispersion")

    def function(self, relevance: Array, similarity: Array, k: int) -> Mixture:
        """F over a pool, from its relevance ``[n]`` in [0, 1] and similarity ``[n, n]`` in [0, 1]."""
        parts: list[tuple[float, SetFunction]] = [(self.relevance, Modular(relevance))]
        if self.coverage:
            parts.append((self.coverage, self._cover(relevance, similarity)))
        if self.diversity:
            parts.append((self.diversity, self._spread(relevance, similarity)))
        return Mixture.normalised(parts, k)

    def _cover(self, relevance: Array, similarity: Array) -> SetFunction:
        if self.cover == "saturated":
            return SaturatedCoverage(similarity)
        if self.weigh == "softmax":
            return FacilityLocation(similarity, np.exp((relevance - relevance.max(initial=0)) / 0.1))
        return FacilityLocation(similarity, relevance if self.weigh == "linear" else None)

    def _spread(self, relevance: Array, similarity: Array) -> SetFunction:
        if self.spread == "logdet":
            return LogDeterminant(similarity, self.noise)
        if self.spread == "clusters":
            return ClusterReward(farthest_first(similarity, round(len(relevance) ** 0.5)), relevance)
        return Dispersion(similarity)


class Compress(Stage):
    """Semantic compression of hits: the k of each query that maximise an `Objective`, found greedily.

    The score of a hit is its marginal gain, what it added to F when it was taken; gains never rise, so the order is
    that of selection. With ``spread="dispersion"`` gains do rise; the score is then what F still lacked before.
    A hit's relevance is its score, min-max scaled within the query. Fewer than k hits are all returned.

    *Differs from the paper:* it names no constants; terms are scaled here, see `Objective`.

    Parameters
    ----------
    objective
        What is maximised.
    k
        How many hits of each query to take.
    vectors
        ``ids -> [n, d]``, e.g. ``index.vectors``; or a mapping from id to vector.
    similarity
        See `isometry.ranking.affinity`.
    solver
        See `isometry.ranking.greedy`.
    pool
        At most so many hits of a query are compared, the best ones; a `DataWarning` says when there are more.
    seed
        Of the stochastic solver.

    References
    ----------
    Raja and Vats, Beyond Nearest Neighbors: Semantic Compression and Graph-Augmented Retrieval for Enhanced Vector
    Search, arXiv:2507.19715.
    """

    name = "compress"

    def __init__(
        self,
        objective: Objective | None = None,
        *,
        k: int = 10,
        vectors: Lookup,
        similarity: Affinity = "clipped",
        solver: Solver = "lazy",
        pool: int = POOL,
        seed: int = 0,
    ) -> None:
        if solver not in get_args(Solver):
            raise UnknownName("solver", str(solver), get_args(Solver))
        self.objective = objective or Objective()
        self.k, self.vectors, self.pool = check_count(k, "k"), vectors, check_count(pool, "pool")
        self.similarity, self.solver, self.seed = similarity, solver, seed

    def config(self) -> Mapping[str, Any]:
        """The objective, k and how it is solved."""
        return {
            "objective": asdict(self.objective), "k": self.k, "similarity": self.similarity,
            "solver": self.solver, "pool": self.pool, "seed": self.seed,
        }  # fmt: skip

    def rank(self, queries: Queries, hits: Hits | None) -> Hits:
        """Take k hits of each query; `InputError` if there are no hits to choose from."""
        if hits is None:
            raise InputError(f"{type(self).__name__} needs the hits of a stage before it: Retrieve(...) >> ... .")
        if self.objective.top_k:
            return Hits.build(queries.ids, [hits.row(i) for i in range(len(hits))], k=self.k)
        pool = capped(hits, self.pool)
        x = vectors_of(self.vectors, pool)
        return Hits.build(queries.ids, [self._take(pool, pool.span(i), x) for i in range(len(pool))])

    def _take(self, pool: Hits, span: slice, x: Any) -> list[tuple[str, float]]:
        ids, order = pool.ids[span], np.argsort(pool.ids[span], kind="stable")  # by id, so that ties go to the lowest
        if not len(ids):
            return []
        relevance = min_max(pool.scores[span].astype(np.float64))[order]
        function = self.objective.function(relevance, affinity(x[span][order], self.similarity), self.k)
        taken = greedy(function, self.k, solver=self.solver, seed=self.seed)
        gains = np.asarray(taken.gains)
        if not self.objective.submodular:
            gains = np.cumsum(gains[::-1])[::-1]
        scores = np.minimum.accumulate(gains.astype(np.float32)).tolist()  # rounding may lift a gain by one bit
        return list(zip(ids[order][taken.rows].tolist(), scores, strict=True))


def min_max(scores: Array) -> Array:
    """Scores scaled to [0, 1]; 1 where all are equal.

    >>> min_max(np.array([3.0, 2.0, 1.0])).tolist()
    [1.0, 0.5, 0.0]
    """
    width = scores.max(initial=-np.inf) - scores.min(initial=np.inf)
    return (scores - scores.min()) / width if width > 0 else np.ones(len(scores))


def capped(hits: Hits, pool: int) -> Hits:
    """The ``pool`` best hits of each query, with a `DataWarning` where there are more."""
    largest = int(np.diff(hits.offsets).max(initial=0))
    if largest <= pool:
        return hits
    message = f"Only the best {pool:,} of {largest:,} candidates are compared with each other; raise pool to see more."
    warnings.warn(message, DataWarning, stacklevel=3)
    return Hits.build(hits.query_ids, [hits.row(i) for i in range(len(hits))], k=pool)
