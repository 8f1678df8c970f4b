"""HNSW in the open: the graph itself, deterministic, with every distance computation counted.

For studying the algorithm (Malkov & Yashunin 2018, arXiv:1603.09320), up to some ten thousand vectors: insertion order
and level seed are the caller's, links can be read, and nothing is hidden. `isometry.indexes.HNSW` is the one for work.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from isometry.errors import InputError
from isometry.types import FloatArray, check_vectors, unit

Links = NDArray[np.int32]


@njit(cache=True, fastmath=True)
def _distance(a, b):  # type: ignore[no-untyped-def]
    """Cosine distance of two unit vectors."""
    total = np.float32(0.0)
    for i in range(a.shape[0]):
        total += a[i] * b[i]
    return np.float32(1.0) - total


@njit(cache=True)
def _insert_sorted(dist, node, done, size, d, n, limit):  # type: ignore[no-untyped-def]
    """Insert (d, n) into arrays sorted by rising distance; return the new size, at most ``limit``."""
    if size == limit:
        if d >= dist[size - 1]:
            return size
        size -= 1
    i = size
    while i > 0 and dist[i - 1] > d:
        dist[i], node[i], done[i] = dist[i - 1], node[i - 1], done[i - 1]
        i -= 1
    dist[i], node[i], done[i] = d, n, False
    return size + 1


@njit(cache=True)
def _search_layer(x, links, counts, level, q, entry, entry_distance, ef, visited, stamp, dist, node, done):  # type: ignore[no-untyped-def]
    """Best-first search of one layer; fills ``dist, node`` and returns (found, distance computations)."""
    dist[0], node[0], done[0] = entry_distance, entry, False
    size, computed, at = 1, 0, 0
    visited[entry] = stamp
    while at < size:
        done[at] = True
        current = node[at]
        for j in range(counts[current, level]):
            other = links[current, level, j]
            if visited[other] != stamp:
                visited[other] = stamp
                computed += 1
                size = _insert_sorted(dist, node, done, size, _distance(x[other], q), other, ef)
        at = 0
        while at < size and done[at]:
            at += 1
    return size, computed


@njit(cache=True)
def _select(x, dist, node, size, most, out):  # type: ignore[no-untyped-def]
    """Neighbour heuristic: keep a candidate if it is nearer to the point than to every neighbour kept so far."""
    kept, computed = 0, 0
    for i in range(size):
        if kept == most:
            break
        good = True
        for j in range(kept):
            computed += 1
            if _distance(x[node[i]], x[out[j]]) <= dist[i]:
                good = False
                break
        if good:
            out[kept] = node[i]
            kept += 1
    return kept, computed


@njit(cache=True)
def _link(x, links, counts, level, a, b, most, dist, node, done, out):  # type: ignore[no-untyped-def]
    """Add the link a -> b; an overfull list is shrunk by the same heuristic."""
    c = counts[a, level]
    if c < most:
        links[a, level, c] = b
        counts[a, level] = c + 1
        return 0
    size = _insert_sorted(dist, node, done, 0, _distance(x[a], x[b]), b, most + 1)
    for j in range(c):
        other = links[a, level, j]
        size = _insert_sorted(dist, node, done, size, _distance(x[a], x[other]), other, most + 1)
    kept, computed = _select(x, dist, node, size, most, out)
    for j in range(kept):
        links[a, level, j] = out[j]
    counts[a, level] = kept
    return computed + c + 1


@njit(cache=True)
def _descend(x, links, counts, q, entry, top, bottom):  # type: ignore[no-untyped-def]
    """Greedy walk from level ``top`` down to just above ``bottom``; return (node, distance, computations)."""
    best = _distance(x[entry], q)
    computed = 1
    for level in range(top, bottom, -1):
        moved = True
        while moved:
            moved, current = False, entry
            for j in range(counts[current, level]):
                other = links[current, level, j]
                d = _distance(x[other], q)
                computed += 1
                if d < best:
                    best, entry, moved = d, other, True
    return entry, best, computed


@njit(cache=True)
def _build(x, levels, m, ef, links, counts):  # type: ignore[no-untyped-def]
    n = x.shape[0]
    visited = np.zeros(n, np.int32)
    room = max(ef, 2 * m) + 2
    dist, node, done = np.empty(room, np.float32), np.empty(room, np.int32), np.empty(room, np.bool_)
    spare_d, spare_n, spare_b = np.empty(room, np.float32), np.empty(room, np.int32), np.empty(room, np.bool_)
    chosen, spare = np.empty(2 * m + 1, np.int32), np.empty(2 * m + 1, np.int32)
    entry, computed, stamp = 0, 0, 0
    for i in range(1, n):
        top = levels[entry]
        at, d, c = _descend(x, links, counts, x[i], entry, top, min(levels[i], top))
        computed += c
        for level in range(min(levels[i], top), -1, -1):
            stamp += 1
            size, c = _search_layer(x, links, counts, level, x[i], at, d, ef, visited, stamp, dist, node, done)
            computed += c
            kept, c = _select(x, dist, node, size, m, chosen)
            computed += c
            most = 2 * m if level == 0 else m
            counts[i, level] = kept
            for j in range(kept):
                links[i, level, j] = chosen[j]
            for j in range(kept):
                computed += _link(x, links, counts, level, chosen[j], i, most, spare_d, spare_n, spare_b, spare)
            at, d = node[0], dist[0]
        if levels[i] > top:
            entry = i
    return entry, computed


@njit(cache=True)
def _search(x, links, counts, entry, top, queries, k, ef, out, out_d):  # type: ignore[no-untyped-def]
    n = x.shape[0]
    visited = np.zeros(n, np.int32)
    dist, node, done = np.empty(ef + 1, np.float32), np.empty(ef + 1, np.int32), np.empty(ef + 1, np.bool_)
    computed = np.zeros(queries.shape[0], np.int64)
    for i in range(queries.shape[0]):
        at, d, c = _descend(x, links, counts, queries[i], entry, top, 0)
        size, more = _search_layer(x, links, counts, 0, queries[i], at, d, ef, visited, i + 1, dist, node, done)
        computed[i] = c + more
        for j in range(min(k, size)):
            out[i, j], out_d[i, j] = node[j], dist[j]
    return computed


@dataclass(frozen=True)
class HNSWGraph:
    """A hierarchical navigable small world graph over unit vectors.

    Build with `HNSWGraph.build`: vectors are inserted one by one in their row order, levels are drawn as
    ``floor(-ln U / ln M)`` from ``seed``, neighbours are chosen by the paper's heuristic (algorithm 4).

    Attributes
    ----------
    links
        int32 ``[n, levels, 2M]``; the first ``counts[i, l]`` entries are node i's neighbours on level l.
    counts
        int32 ``[n, levels]``: at most M, on level 0 at most 2M.
    levels
        int32 ``[n]``: highest level of each node.
    build_distances
        Distance computations the build took.
    """

    vectors: FloatArray
    links: Links
    counts: Links
    levels: Links
    entry: int
    build_distances: int

    @classmethod
    def build(cls, vectors: FloatArray, *, m: int = 16, ef_construction: int = 128, seed: int = 0) -> HNSWGraph:
        """Insert ``vectors`` ``[n, d]`` (normalised here) in row order.

        Raises
        ------
        InputError
            If ``m`` is smaller than 2 or ``ef_construction`` smaller than 1.
        """
        x = check_vectors(vectors)
        if m < 2 or ef_construction < 1:
            raise InputError(f"HNSW needs m >= 2 and ef_construction >= 1, got {m} and {ef_construction}.")
        x = unit(x)
        uniform = 1.0 - np.random.default_rng(seed).random(len(x))  # in (0, 1]: its logarithm is finite
        levels = np.floor(-np.log(uniform) / np.log(m)).astype(np.int32)
        height = int(levels.max(initial=0)) + 1
        links = np.full((len(x), height, 2 * m), -1, np.int32)
        counts = np.zeros((len(x), height), np.int32)
        entry, computed = _build(x, levels, m, ef_construction, links, counts) if len(x) else (0, 0)
        return cls(x, links, counts, levels, int(entry), int(computed))

    def search(self, queries: FloatArray, k: int, *, ef: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return row numbers of the k nearest, int32 ``[q, k]`` (-1 where fewer were found), and distance counts.

        Parameters
        ----------
        queries
            float32 ``[q, d]``, normalised here.
        ef
            Width of the search; raised to k where smaller.
        """
        q = check_vectors(queries, dim=self.vectors.shape[1])
        q = unit(q)
        found = np.full((len(q), k), -1, np.int32)
        if not len(self.vectors):
            return found, np.zeros(len(q), np.int64)
        distances = np.empty((len(q), k), np.float32)
        top = int(self.levels[self.entry])
        computed = _search(self.vectors, self.links, self.counts, self.entry, top, q, k, max(ef, k), found, distances)
        return found, computed

    def unreachable(self) -> NDArray[np.int64]:
        """Rows that no walk over layer 0 from the entry point reaches: they can never be found."""
        seen = np.zeros(len(self.vectors), bool)
        front = np.array([self.entry]) if len(seen) else np.empty(0, np.int64)
        seen[front] = True
        while len(front):
            near = np.concatenate([self.links[i, 0, : self.counts[i, 0]] for i in front])
            front = np.unique(near[~seen[near]])
            seen[front] = True
        return np.flatnonzero(~seen)
