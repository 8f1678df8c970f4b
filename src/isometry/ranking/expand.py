"""Graph-augmented retrieval: rank by a blend of similarity and of how near the best hits are in a graph."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from isometry.errors import InputError, UnknownName
from isometry.ranking.compress import min_max
from isometry.ranking.neighbour_graph import NeighbourGraph, Normalise
from isometry.ranking.pagerank import Paths, best_paths, exact_pagerank, personalised_pagerank, push_pagerank
from isometry.ranking.stage import Stage, check_count
from isometry.types import FloatArray, Hits, Queries

Array = NDArray[np.float64]
Method = Literal["power", "push", "exact", "paths"]
Blend = Literal["minmax", "rank"]
WALKS: Final[Mapping[str, Callable[..., Array]]] = {
    "power": personalised_pagerank, "push": push_pagerank, "exact": exact_pagerank
}  # fmt: skip
Graph = NeighbourGraph | Callable[[Sequence[str]], NeighbourGraph]


@dataclass(frozen=True)
class Walk:
    """How the graph is walked.

    Parameters
    ----------
    method
        Personalised PageRank by ``"power"`` iteration, local ``"push"`` or ``"exact"`` solution, or hop decay along the
        best ``"paths"``.
    alpha
        Probability to return to the seeds at each step of PageRank, in (0, 1].
    seeds
        How many of the best hits a walk starts from, by their scores (equally, if none is above 0).
    hops
        Items further than this from every seed are no candidates.
    normalise
        See `NeighbourGraph.transition`.
    discount_hubs
        Take away the PageRank that an item has whatever the query, and keep what is above 0.
    gamma
        What a hop costs under ``"paths"``, in (0, 1].
    """

    method: Method = "power"
    alpha: float = 0.3
    seeds: int = 5
    hops: int = 2
    normalise: Normalise = "row"
    discount_hubs: bool = False
    gamma: float = 0.7

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise UnknownName("way to walk a graph", str(self.method), get_args(Method))
        if self.normalise not in get_args(Normalise):
            raise UnknownName("normalisation", str(self.normalise), get_args(Normalise))
        if not 0 < self.alpha <= 1 or not 0 < self.gamma <= 1:
            raise InputError(f"alpha and gamma must lie in (0, 1], got {self.alpha!r} and {self.gamma!r}.")
        check_count(self.seeds, "seeds")
        check_count(self.hops, "hops")

    def start(self, graph: NeighbourGraph, row: Sequence[tuple[str, float]]) -> Array:
        """Distribution over the graph's items that the walk of one query starts from; zeros if no seed is in it."""
        p0 = np.zeros(len(graph))
        seeds = [(graph.place[i], score) for i, score in row[: self.seeds] if i in graph.place]
        weights = np.maximum([score for _, score in seeds], 0.0)
        if seeds:
            p0[[i for i, _ in seeds]] = weights / weights.sum() if weights.sum() > 0 else 1 / len(seeds)
        return p0

    def paths(self, graph: NeighbourGraph, p0: Array) -> Paths:
        """The best path of at most ``hops`` from a seed to each item."""
        if self.method != "paths":
            return best_paths(graph.transition(self.normalise), p0, hops=self.hops, gamma=1.0)
        largest = graph.weights.data.max(initial=0.0)
        return best_paths(graph.weights / largest if largest > 0 else graph.weights, p0,
                          hops=self.hops, gamma=self.gamma)  # fmt: skip

    def proximity(self, graph: NeighbourGraph, p0: Array) -> Array:
        """Graph score of every item, ``[n]``, at least 0; 0 further than ``hops`` from every seed."""
        reached = self.paths(graph, p0).value
        if self.method == "paths":
            return reached
        walk = WALKS[self.method]
        p = walk(graph.transition(self.normalise), p0, alpha=self.alpha)
        if self.discount_hubs:
            even = np.full(len(p0), 1 / len(p0))
            p = np.maximum(p - personalised_pagerank(graph.transition(self.normalise), even, alpha=self.alpha), 0)
        return np.where(reached > 0, p, 0.0)


class Expand(Stage):
    """Graph-augmented ranking: ``(1 - beta) * similarity + beta * graph proximity``.

    Candidates are the hits and the items within ``walk.hops`` of the best of them. The similarity of an item that was
    not among the hits counts as the last of them; an item that is not in the graph has proximity 0. Explanations show
    the scaled proximity as "graph".

    Parameters
    ----------
    graph
        The graph, or a function that returns the one around some ids (`Surroundings`).
    beta
        0: the hits as they are; 1: proximity alone.
    walk
        How proximity is measured.
    blend
        Both parts are scaled to [0, 1] over the candidates of a query: by ``"minmax"``, or by ``"rank"``.
    k
        How many of the best to return per query.
    floor
        Candidates need more proximity than this, unless they are hits.
    allowed
        Ids that may be added; default all.

    References
    ----------
    Raja and Vats, Beyond Nearest Neighbors: Semantic Compression and Graph-Augmented Retrieval for Enhanced Vector
    Search, arXiv:2507.19715.
    """

    name = "expand"

    def __init__(
        self,
        graph: Graph,
        *,
        beta: float = 0.3,
        walk: Walk | None = None,
        blend: Blend = "minmax",
        k: int = 100,
        floor: float = 1e-6,
        allowed: Collection[str] | None = None,
    ) -> None:
        if not 0 <= beta <= 1:
            raise InputError(f"beta must be between 0 (similarity) and 1 (graph), got {beta!r}.")
        if blend not in get_args(Blend):
            raise UnknownName("way to blend", str(blend), get_args(Blend))
        if not floor >= 0:
            raise InputError(f"floor must be at least 0, got {floor!r}.")
        self.graph, self.beta, self.walk, self.blend = graph, float(beta), walk or Walk(), blend
        self.k, self.floor, self.allowed = check_count(k, "k"), floor, None if allowed is None else frozenset(allowed)

    def config(self) -> Mapping[str, Any]:
        """The walk, the blend, and the graph by its edges."""
        graph: Any = self.graph
        if isinstance(graph, NeighbourGraph):
            graph = {"ids": graph.ids.tolist(), "edges": graph.weights.data, "to": graph.weights.indices,
                     "from": graph.weights.indptr}  # fmt: skip
        allowed = None if self.allowed is None else sorted(self.allowed)
        return {"graph": graph, "beta": self.beta, "walk": asdict(self.walk), "blend": self.blend, "k": self.k,
                "floor": self.floor, "allowed": allowed}  # fmt: skip

    def rank(self, queries: Queries, hits: Hits | None) -> Hits:
        """Blend and sort; `InputError` if there are no hits to start from."""
        if hits is None:
            raise InputError("Expand needs the hits of a stage before it: Retrieve(...) >> Expand(...).")
        rows = [hits.row(i) for i in range(len(hits))]
        if self.beta == 0:
            return Hits.build(queries.ids, rows, k=self.k)
        blended = [self._blend(row) for row in rows]
        found = Hits.build(queries.ids, [[(i, score) for i, score, _ in row] for row in blended], k=self.k)
        near = [{i: share for i, _, share in row} for row in blended]
        shares = [near[q][i] for q in range(len(found)) for i in found.ids[found.span(q)].tolist()]
        given: dict[str, FloatArray] = {"graph": np.asarray(shares, np.float32)}
        return Hits(found.query_ids, found.offsets, found.ids, found.scores, given)

    def graph_around(self, row: Sequence[tuple[str, float]]) -> NeighbourGraph:
        """The graph that one query's hits are judged by."""
        if isinstance(self.graph, NeighbourGraph):
            return self.graph
        return self.graph([i for i, _ in row[: self.walk.seeds]])

    def _blend(self, row: Sequence[tuple[str, float]]) -> list[tuple[str, float, float]]:
        """Id, blended score and scaled proximity of every candidate of one query."""
        graph = self.graph_around(row) if row else None
        p0 = np.zeros(0) if graph is None else self.walk.start(graph, row)
        if graph is None or not p0.any():
            scaled = self._scaled([score for _, score in row])
            return [(i, (1 - self.beta) * s, 0.0) for (i, _), s in zip(row, scaled, strict=True)]
        p = self.walk.proximity(graph, p0)
        similar = dict(zip((i for i, _ in row), self._scaled([s for _, s in row]), strict=True))
        more = (str(graph.ids[j]) for j in np.flatnonzero(p > self.floor))
        candidates = [*similar, *(i for i in more if i not in similar and (self.allowed is None or i in self.allowed))]
        near = self._scaled([float(p[graph.place[i]]) if i in graph.place else 0.0 for i in candidates], zero=True)
        pairs = zip(candidates, near, strict=True)
        return [(i, (1 - self.beta) * similar.get(i, 0.0) + self.beta * g, g) for i, g in pairs]

    def _scaled(self, scores: Sequence[float], *, zero: bool = False) -> list[float]:
        """Scores in [0, 1], the best at 1; ``zero``: a score of 0 stays 0."""
        values = np.asarray(scores, np.float64)
        if not len(values):
            return []
        if self.blend == "rank":
            levels, place = np.unique(values, return_inverse=True)
            below = np.searchsorted(np.sort(values), levels)[place.ravel()]  # how many are worse
            scaled = (below + 1) / len(values)
            return list(np.where(values > 0, scaled, 0.0) if zero else scaled)
        if zero:
            return list(values / values.max() if values.max() > 0 else values)
        return list(min_max(values))
