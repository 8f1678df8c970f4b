"""ACORN: an HNSW graph with lists so long that what a filter leaves of them is an HNSW graph again.

Patel et al., ACORN: Performant and Predicate-Agnostic Search Over Vector Embeddings and Structured Data, 2024
(arXiv:2403.04871).
"""

# ruff: noqa: ANN001, ANN202
# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators
# (numba infers the types of its kernels)

from __future__ import annotations

from typing import Self

import numpy as np
from numba import njit

from isometry.errors import InputError
from isometry.indexes.filtered.attributes import Attributes
from isometry.indexes.filtered.beam import Layer, Links, TwoHop, best_first
from isometry.indexes.filtered.filtered_index import FilteredIndex, Found, Mask, scan
from isometry.indexes.filtered.predicates import Predicate
from isometry.types import FloatArray


@njit(cache=True)
def _compress(links, counts, rows, level, node, dist, size, near, most, mark, stamp):
    """Keep the ``near`` nearest, then only nodes not yet two links away through a node kept after those."""
    kept, reached = 0, 0
    for i in range(size):
        if kept + reached >= most and kept >= near:
            break
        if kept < near or mark[node[i]] != stamp:
            if kept >= near:
                row = rows[node[i]] + level
                for j in range(counts[row]):
                    if mark[links[row, j]] != stamp:
                        mark[links[row, j]] = stamp
                        reached += 1
            node[kept], dist[kept] = node[i], dist[i]
            kept += 1
    return kept


@njit(cache=True)
def _link(links, lengths, counts, row, node, d, most, level, rows, near, marks):
    """Add a link to a list sorted by distance; an overfull one is compressed, or loses its farthest."""
    size = counts[row]
    if size == most and near < most:
        marks[0] += 1
        size = _compress(links, counts, rows, level, links[row], lengths[row], size, near, most, marks[1:], marks[0])
    if size == most:
        if d >= lengths[row, size - 1]:
            return
        size -= 1
    i = size
    while i > 0 and lengths[row, i - 1] > d:
        lengths[row, i], links[row, i] = lengths[row, i - 1], links[row, i - 1]
        i -= 1
    lengths[row, i], links[row, i] = d, node
    counts[row] = size + 1


@njit(cache=True)
def _build(x, levels, rows, m, gamma, near, ef, links, lengths, counts):
    n, width = x.shape[0], links.shape[1]
    everything = np.ones(n, np.bool_)
    marks = np.zeros(n + 1, np.int32)  # the stamp, then one mark a node
    entry, total = 0, 0
    for i in range(1, n):
        start = np.array([entry], np.int32)
        for level in range(levels[entry], -1, -1):
            most = max(2 * m, m * gamma) if level == 0 else m * gamma
            layer = Layer(links, counts, rows, level, min(2 * m, width))
            wide = ef if level <= levels[i] else 1
            node, dist, computed, _, _ = best_first(x, layer, x[i], start, everything, wide, False)
            total += computed
            start = node[:1].copy()
            if level > levels[i]:
                continue
            size, keep = min(len(node), most), near if level == 0 else most
            if keep < most:
                marks[0] += 1
                size = _compress(links, counts, rows, level, node, dist, size, keep, most, marks[1:], marks[0])
            row = rows[i] + level
            links[row, :size], lengths[row, :size], counts[row] = node[:size], dist[:size], size
            for j in range(size):
                _link(links, lengths, counts, rows[node[j]] + level, i, dist[j], most, level, rows, keep, marks)
        if levels[i] > levels[entry]:
            entry = i
    return entry, total


@njit(cache=True)
def _search(x, links, counts, rows, entry, top, q, mask, near, most, ef):
    """Descend through the matching nodes of each layer; where none is in sight, go down from the same node."""
    start = np.array([entry], np.int32)
    total, width = 0, links.shape[1]
    for level in range(top, 0, -1):
        reach = (
            width if near > 0 else 0
        )  # only layer 0 is compressed; without long lists, look two links far everywhere
        node, _, computed, _, _ = best_first(
            x, TwoHop(links, counts, rows, level, reach, most), q, start, mask, 1, False
        )
        total += computed
        if len(node):
            start = node[:1].copy()
    node, dist, computed, _, _ = best_first(x, TwoHop(links, counts, rows, 0, near, most), q, start, mask, ef, False)
    return node, dist, total + computed


class Acorn(FilteredIndex):
    """ACORN-gamma, and ACORN-1 for ``gamma=1``: any predicate, by searching the sub-graph of matching nodes.

    The graph is HNSW's with ``m gamma`` links a node, chosen without the neighbour heuristic; on layer 0 all but the
    first ``near`` are kept only if not two links away already. A search looks at the first m matching nodes among a
    node's links, and among the links of those that compression relied on. ACORN-1 builds plain lists of m (2m on
    layer 0, as in HNSW) and looks two links far everywhere.

    Differs from the paper: building walks over the first 2m links of a list instead of m.
    """

    def __init__(self, vectors: FloatArray, attributes: Attributes, *, m: int, gamma: int) -> None:
        super().__init__(vectors, attributes)
        self.m, self.gamma = m, gamma
        self.near = 0
        self.fallback = 0.0
        self.entry = 0
        self.levels = self.rows = self.counts = np.empty(0, np.int32)
        self.links: Links = np.empty((0, 0), np.int32)

    @classmethod
    def build(
        cls,
        vectors: FloatArray,
        attributes: Attributes,
        *,
        m: int = 16,
        gamma: int = 12,
        near: int | None = None,
        ef_construction: int = 100,
        fallback: float | None = None,
        seed: int = 0,
    ) -> Self:
        """Insert ``vectors`` ``[n, d]`` in row order.

        Parameters
        ----------
        m
            Links a search looks at.
        gamma
            Factor by which lists are longer, about one over the least selectivity to serve; 1 for ACORN-1.
        near
            ``M_beta``: nearest links kept in any case (default 2m); ``m * gamma`` and more compresses nothing.
        ef_construction
            Width of the building search, raised to ``m * gamma``.
        fallback
            Selectivity below which the matches are searched exactly (default ``1 / gamma``; 0 for ACORN-1).

        Raises
        ------
        InputError
            If ``m`` is smaller than 2 or ``gamma`` smaller than 1.
        """
        if m < 2 or gamma < 1 or ef_construction < 1 or (near is not None and near < 1):
            raise InputError(f"ACORN needs m >= 2, gamma >= 1 and near >= 1, got {m}, {gamma} and {near}.")
        index = cls(vectors, attributes, m=m, gamma=gamma)
        n, width = len(index.vectors), max(2 * m, m * gamma)
        uniform = 1.0 - np.random.default_rng(seed).random(n)
        index.levels = np.floor(-np.log(uniform) / np.log(m)).astype(np.int32)
        index.rows = (np.cumsum(index.levels + 1) - index.levels - 1).astype(np.int32)
        lists = int((index.levels + 1).sum())
        index.links, index.counts = np.full((lists, width), -1, np.int32), np.zeros(lists, np.int32)
        lengths = np.empty((lists, width), np.float32)
        keep = width if gamma == 1 else min(near or 2 * m, width)
        index.near = 0 if gamma == 1 else keep
        index.fallback = fallback if fallback is not None else 0.0 if gamma == 1 else 1 / gamma
        if n:
            wide = max(ef_construction, m * gamma)
            index.entry, index.build_distances = _build(
                index.vectors, index.levels, index.rows, m, gamma, keep, wide, index.links, lengths, index.counts
            )
        return index

    @property
    def size_bytes(self) -> int:
        """Links that are there, 4 bytes each, and where the lists begin."""
        return 4 * int(self.counts.sum()) + self.counts.nbytes + self.rows.nbytes

    def _walk(self, query: FloatArray, predicate: Predicate, mask: Mask, k: int, ef: int) -> Found:
        if self.attributes.selectivity(predicate) < self.fallback:
            return scan(self.vectors, query, np.flatnonzero(mask), k)
        ids, distances, computed = _search(
            self.vectors, self.links, self.counts, self.rows, self.entry, int(self.levels[self.entry]),
            query, mask, self.near, self.m, ef,
        )  # fmt: skip
        return Found(ids[:k].astype(np.int64), distances[:k], int(computed))
