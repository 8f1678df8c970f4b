"""The plain ways to filter: before the search, after it, within it, by inverted lists, and a planner between them."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray

from isometry.errors import InputError
from isometry.indexes.filtered.attributes import Attributes
from isometry.indexes.filtered.beam import Everyone, best_first
from isometry.indexes.filtered.filtered_index import FilteredIndex, Found, Mask, scan
from isometry.indexes.filtered.predicates import Predicate
from isometry.indexes.hnsw_graph import HNSWGraph, _descend
from isometry.types import FloatArray, IntArray, unit


class PreFilter(FilteredIndex):
    """Pre-filtering: evaluate the predicate, then search the matching rows exactly; costs ``sigma n d``."""

    exact = True

    @classmethod
    def build(cls, vectors: FloatArray, attributes: Attributes) -> Self:
        """Nothing to build."""
        return cls(vectors, attributes)

    def _walk(self, query: FloatArray, predicate: Predicate, mask: Mask, k: int, ef: int) -> Found:
        return scan(self.vectors, query, np.flatnonzero(mask), k)


class _OnHNSW(FilteredIndex):
    """A method that searches an ordinary HNSW graph, which several may share."""

    def __init__(self, graph: HNSWGraph, attributes: Attributes) -> None:
        super().__init__(graph.vectors, attributes)
        self.graph, self.vectors = graph, graph.vectors
        self.build_distances = graph.build_distances
        width = graph.links.shape[2] if len(graph.vectors) else 1
        self._links = np.ascontiguousarray(graph.links[:, 0]) if len(graph.vectors) else np.empty((0, width), np.int32)
        self._counts = np.ascontiguousarray(graph.counts[:, 0]) if len(graph.vectors) else np.empty(0, np.int32)

    @classmethod
    def build(
        cls, vectors: FloatArray, attributes: Attributes, *, m: int = 16, ef_construction: int = 100, seed: int = 0
    ) -> Self:
        """Insert in row order; see `isometry.indexes.hnsw_graph.HNSWGraph.build`."""
        return cls(HNSWGraph.build(vectors, m=m, ef_construction=ef_construction, seed=seed), attributes)

    @property
    def size_bytes(self) -> int:
        """Links that are there, 4 bytes each, and their counts."""
        return 4 * int(self.graph.counts.sum()) + self.graph.counts.nbytes

    def _beam(self, query: FloatArray, mask: Mask, ef: int, *, strict: bool) -> Found:
        g = self.graph
        at, _, descent = _descend(g.vectors, g.links, g.counts, query, g.entry, int(g.levels[g.entry]), 0)
        start = np.array([at], np.int32)
        layer = Everyone(self._links, self._counts)
        ids, distances, computed, _, _ = best_first(g.vectors, layer, query, start, mask, ef, strict)
        return Found(ids.astype(np.int64), distances, int(descent + computed - 1))  # the start was counted on the way


class PostFilter(_OnHNSW):
    """Post-filtering: search ``k' = c k / sigma`` (estimated) without the filter, drop, double ``k'`` while too few.

    Parameters
    ----------
    graph, attributes
        What to search.
    oversampling
        The factor c.
    once
        Search ``ef`` items once, and return whatever matches: what a system without such a loop does.
    """

    widen = 2

    def __init__(
        self, graph: HNSWGraph, attributes: Attributes, *, oversampling: float = 2.0, once: bool = False
    ) -> None:
        super().__init__(graph, attributes)
        self.oversampling, self.once = oversampling, once

    def _width(self, predicate: Predicate, k: int, ef: int) -> int:
        if self.once:
            return max(ef, k)
        sigma = max(self.attributes.selectivity(predicate), 1 / max(1, len(self.vectors)))
        return max(ef, k, int(np.ceil(self.oversampling * k / sigma)))

    def _walk(self, query: FloatArray, predicate: Predicate, mask: Mask, k: int, ef: int) -> Found:
        found = self._beam(query, np.ones(len(mask), bool), ef, strict=False)
        keep = np.flatnonzero(mask[found.ids])[:k]
        return Found(found.ids[keep], found.distances[keep], found.computed)


class InlineHNSW(_OnHNSW):
    """Inline filtering: the walk goes everywhere, only matching items count as results.

    Parameters
    ----------
    graph, attributes
        What to search.
    strict
        False: the walk ends when the ``ef`` nearest *matching* items are settled (as in hnswlib). True: when the
        ``ef`` nearest of *all* are (as in faiss), cheaper, but it may die before it meets k matches and is then
        repeated wider.
    once
        With ``strict``: do not repeat.
    """

    def __init__(self, graph: HNSWGraph, attributes: Attributes, *, strict: bool = False, once: bool = False) -> None:
        super().__init__(graph, attributes)
        self.strict, self.once = strict, once

    def _walk(self, query: FloatArray, predicate: Predicate, mask: Mask, k: int, ef: int) -> Found:
        found = self._beam(query, mask, ef, strict=self.strict)
        return Found(found.ids[:k], found.distances[:k], found.computed)


class IVFBitmap(FilteredIndex):
    """IVF with a bitmap: k-means lists, nearest first; the filter is applied before distances are computed.

    ``ef`` is the number of lists probed.
    """

    def __init__(self, vectors: FloatArray, attributes: Attributes, centroids: FloatArray, home: IntArray) -> None:
        super().__init__(vectors, attributes)
        self.centroids = centroids
        self._rows = np.argsort(home, kind="stable").astype(np.int64)
        self._offsets = np.concatenate([[0], np.cumsum(np.bincount(home, minlength=len(centroids)))]).astype(np.int64)

    @classmethod
    def build(
        cls, vectors: FloatArray, attributes: Attributes, *, lists: int | None = None, rounds: int = 10, seed: int = 0
    ) -> Self:
        """Cluster into ``lists`` (default: the square root of n) by spherical k-means."""
        x = unit(np.asarray(vectors, np.float32))
        if lists is not None and lists < 1:
            raise InputError(f"IVF needs at least one list, got {lists}.")
        centroids, home = spherical_kmeans(x, lists or max(1, round(len(x) ** 0.5)), rounds=rounds, seed=seed)
        index = cls(vectors, attributes, centroids, home)
        index.build_distances = len(x) * len(centroids) * rounds
        return index

    @property
    def size_bytes(self) -> int:
        """Centroids and lists."""
        return self.centroids.nbytes + self._rows.nbytes + self._offsets.nbytes

    def _width(self, predicate: Predicate, k: int, ef: int) -> int:
        return max(1, ef)

    def _widest(self) -> int:
        return max(1, len(self.centroids))

    def _walk(self, query: FloatArray, predicate: Predicate, mask: Mask, k: int, ef: int) -> Found:
        near = np.argsort(-(self.centroids @ query), kind="stable")[:ef]
        rows = np.concatenate([self._rows[self._offsets[c] : self._offsets[c + 1]] for c in near])
        found = scan(self.vectors, query, np.sort(rows[mask[rows]]), k)
        return found._replace(computed=found.computed + len(self.centroids))


class Planned(FilteredIndex):
    """A planner: exact search of the matches below ``crossover`` of them, a graph above.

    Parameters
    ----------
    graph
        The index for filters that let many items pass.
    crossover
        Expected number of matches below which brute force is faster; measure it (``benchmark`` of two indexes).
    """

    def __init__(self, graph: FilteredIndex, *, crossover: int = 1000) -> None:
        super().__init__(graph.vectors, graph.attributes)
        self.graph, self.vectors, self.crossover = graph, graph.vectors, crossover

    def supports(self, predicate: Predicate) -> bool:
        """What the graph supports."""
        return self.graph.supports(predicate)

    @property
    def size_bytes(self) -> int:
        """The graph's."""
        return self.graph.size_bytes

    def _walk(self, query: FloatArray, predicate: Predicate, mask: Mask, k: int, ef: int) -> Found:
        few = self.attributes.selectivity(predicate) * len(mask) <= max(self.crossover, k)
        if few or np.count_nonzero(mask) <= k:
            return scan(self.vectors, query, np.flatnonzero(mask), k)
        return self.graph.search(query, predicate, k, ef)


def spherical_kmeans(
    x: FloatArray, clusters: int, *, rounds: int = 10, seed: int = 0
) -> tuple[FloatArray, NDArray[np.int64]]:
    """Spherical k-means (Lloyd's rounds on unit vectors): centroids float32 ``[c, d]`` and the nearest of each row.

    An empty cluster restarts at the row that its centroid serves worst.
    """
    clusters = min(clusters, len(x))
    if not clusters:
        return np.empty((0, x.shape[1]), np.float32), np.empty(0, np.int64)
    centroids = x[np.sort(np.random.default_rng(seed).choice(len(x), clusters, replace=False))]
    for _ in range(rounds):
        near = x @ centroids.T
        home = near.argmax(1)
        sums = np.zeros((clusters, x.shape[1]))
        np.add.at(sums, home, x)
        empty = np.flatnonzero(np.bincount(home, minlength=clusters) == 0)
        sums[empty] = x[np.argsort(near[np.arange(len(x)), home], kind="stable")[: len(empty)]]
        centroids = unit(sums.astype(np.float32))
    return centroids, (x @ centroids.T).argmax(1).astype(np.int64)
