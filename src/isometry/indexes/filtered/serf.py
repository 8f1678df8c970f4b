"""SeRF: one segment graph that holds, compressed, the HNSW graph of every range of an ordered attribute.

Zuo et al., SeRF: Segment Graph for Range-Filtering Approximate Nearest Neighbor Search, SIGMOD 2024.
"""

# ruff: noqa: ANN001, ANN202
# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators
# (numba infers the types of its kernels)

from __future__ import annotations

from typing import Final, Literal, Self

import numpy as np
from numba import njit

from isometry.errors import InputError
from isometry.indexes.filtered.attributes import Attributes
from isometry.indexes.filtered.beam import Alive, Growing, Links, best_first
from isometry.indexes.filtered.filtered_index import FilteredIndex, Found, Mask
from isometry.indexes.filtered.predicates import Between, Equals, Predicate
from isometry.indexes.hnsw_graph import _insert_sorted, _select
from isometry.types import FloatArray, IntArray

Leap = Literal["max", "mid", "min"]
LEAPS: Final = ("min", "mid", "max")
FOREVER: Final = 2**31 - 1
# Columns of a link: it leads from OWNER to TARGET for every range [low, high] with FIRST <= low <= LAST and
# BORN <= high < DEAD; NEXT chains the links of an owner that are not dead yet.
OWNER, TARGET, FIRST, LAST, BORN, DEAD, NEXT = range(7)


@njit(cache=True)
def _add(heads, pool, gaps, used, owner, target, first, last, born, gap):
    """Add a link, or lengthen the one that ends where it begins; return the number of links."""
    e = heads[owner]
    while e >= 0:
        if pool[e, TARGET] == target and pool[e, BORN] == born and pool[e, LAST] == first - 1:
            pool[e, LAST] = last
            return used
        e = pool[e, NEXT]
    pool[used, OWNER], pool[used, TARGET] = owner, target
    pool[used, FIRST], pool[used, LAST], pool[used, BORN], pool[used, DEAD] = first, last, born, FOREVER
    pool[used, NEXT], gaps[used] = heads[owner], gap
    heads[owner] = used
    return used + 1


@njit(cache=True)
def _bury(heads, pool, gaps, used, e, first, last, now):
    """End a link for ranges from ``first`` to ``last``; it lives on, as other links, for those before and after."""
    owner = pool[e, OWNER]
    at, before = heads[owner], -1
    while at != e:
        at, before = pool[at, NEXT], at
    if before < 0:
        heads[owner] = pool[e, NEXT]
    else:
        pool[before, NEXT] = pool[e, NEXT]
    start, end, born = pool[e, FIRST], pool[e, LAST], pool[e, BORN]
    pool[e, FIRST], pool[e, LAST], pool[e, DEAD] = max(start, first), min(end, last), now
    if start < first:
        used = _add(heads, pool, gaps, used, owner, pool[e, TARGET], start, first - 1, born, gaps[e])
    if end > last:
        used = _add(heads, pool, gaps, used, owner, pool[e, TARGET], last + 1, end, born, gaps[e])
    return used


@njit(cache=True)
def _link_back(x, heads, pool, gaps, used, owner, now, gap, first, last, most):
    """Link an older node to the new one; if it then has too many for ranges from ``first``, the heuristic ends some."""
    held, e = 0, heads[owner]
    while e >= 0:
        held += pool[e, FIRST] <= first <= pool[e, LAST]
        e = pool[e, NEXT]
    if held < most:
        return _add(heads, pool, gaps, used, owner, now, first, last, now, gap), 0
    dist, node, done = np.empty(held + 1, np.float32), np.empty(held + 1, np.int32), np.empty(held + 1, np.bool_)
    edges, size, e = np.empty(held, np.int32), 0, heads[owner]
    size = _insert_sorted(dist, node, done, size, gap, now, held + 1)
    count = 0
    while e >= 0:
        if pool[e, FIRST] <= first <= pool[e, LAST]:
            edges[count] = e
            count += 1
            size = _insert_sorted(dist, node, done, size, gaps[e], pool[e, TARGET], held + 1)
        e = pool[e, NEXT]
    chosen = np.empty(most + 1, np.int32)
    kept, computed = _select(x, dist, node, size, most, chosen)
    new = False
    for j in range(kept):
        new |= chosen[j] == now
    for i in range(held):
        lost = True
        for j in range(kept):
            lost &= chosen[j] != pool[edges[i], TARGET]
        if lost:
            used = _bury(heads, pool, gaps, used, edges[i], first, last, now)
    if new:
        used = _add(heads, pool, gaps, used, owner, now, first, last, now, gap)
    return used, computed


@njit(cache=True)
def _grow(x, m, ef, leap, heads, pool, gaps, used, now, low):
    """Insert nodes in order until done or out of room; return (links, node, lower bound, distances) to go on from."""
    n, total = x.shape[0], 0
    everything, chosen = np.ones(n, np.bool_), np.empty(m + 1, np.int32)
    margin = (4 * m + 4) * (m + 1)  # links that one batch can add, with all that it splits
    while now < n:
        while low < now:
            if used + margin > pool.shape[0]:
                return used, now, low, total
            start = np.array([low], np.int32)
            graph = Growing(heads, pool, low, 8 * m)
            node, dist, computed, _, _ = best_first(x, graph, x[now], start, everything, ef, False)
            kept, more = _select(x, dist, node, len(node), m, chosen)
            total += computed + more
            ranks = np.sort(chosen[:kept])
            end = ranks[0] if leap == 0 else ranks[kept // 2] if leap == 1 else ranks[kept - 1]
            for j in range(kept):
                other, i = chosen[j], 0
                while node[i] != other:
                    i += 1
                last = min(end, other)
                used = _add(heads, pool, gaps, used, now, other, low, last, now, dist[i])
                used, more = _link_back(x, heads, pool, gaps, used, other, now, dist[i], low, last, 2 * m)
                total += more
            low = end + 1
        now, low = now + 1, 0
    return used, now, low, total


class SeRF(FilteredIndex):
    """SeRF's two-dimensional segment graph over one ordered attribute.

    Items enter an HNSW graph (without upper layers) in the attribute's order. A new item finds its neighbours among the
    items from rank ``low`` on, for ``low = 0``, keeps these links for all lower bounds up to where the neighbours end,
    and goes on from there. Each link holds for a rectangle of ranges; a search follows those of its own range. For
    ranges that begin with the first item the graph is exactly the plain one of that prefix.

    Attributes
    ----------
    order
        Row of each rank; items without the attribute are not in the graph.
    """

    def __init__(self, vectors: FloatArray, attributes: Attributes, field: str) -> None:
        super().__init__(vectors, attributes)
        self.field, self.order = field, attributes.ordered(field).order
        self._sorted = self.vectors[self.order]
        self.offsets = np.zeros(len(self.order) + 1, np.int32)
        self.edges: Links = np.empty((5, 0), np.int32)

    @classmethod
    def build(
        cls,
        vectors: FloatArray,
        attributes: Attributes,
        field: str,
        *,
        m: int = 16,
        ef_construction: int = 100,
        leap: Leap = "max",
    ) -> Self:
        """Build over ``field``.

        Parameters
        ----------
        leap
            How far links of one search are kept for other lower bounds: to the ``"max"`` of the neighbours' ranks
            (fastest), the ``"mid"`` one, or the ``"min"``, which approximates nothing and takes a search for each.

        Raises
        ------
        InputError
            If the field has no order, or a parameter is out of range.
        """
        if m < 2 or ef_construction < 1 or leap not in LEAPS:
            raise InputError(f"SeRF needs m >= 2, ef_construction >= 1 and a leap of {LEAPS}, got {m}, {leap!r}.")
        index = cls(vectors, attributes, field)
        n = len(index.order)
        heads = np.full(n, -1, np.int32)
        pool, gaps = np.empty((0, 7), np.int32), np.empty(0, np.float32)
        used, now, low = 0, 1, 0
        while now < n:
            room = (4 * m + 4) * (m + 1) + max(8 * m * n, len(pool))
            pool = np.concatenate([pool, np.empty((room, 7), np.int32)])
            gaps = np.concatenate([gaps, np.empty(room, np.float32)])
            used, now, low, computed = _grow(
                index._sorted, m, ef_construction, LEAPS.index(leap), heads, pool, gaps, used, now, low
            )
            index.build_distances += computed
        links = pool[:used]
        links = links[links[:, BORN] < links[:, DEAD]]
        links = links[np.argsort(links[:, OWNER], kind="stable")]
        index.offsets = np.searchsorted(links[:, OWNER], np.arange(n + 1)).astype(np.int32)
        index.edges = np.ascontiguousarray(links[:, TARGET : DEAD + 1].T)
        return index

    @property
    def size_bytes(self) -> int:
        """Links with their rectangles, 20 bytes each, where they begin, and the order."""
        return self.edges.nbytes + self.offsets.nbytes + self.order.nbytes

    def supports(self, predicate: Predicate) -> bool:
        """Ranges of the field, or one value of it."""
        return isinstance(predicate, Between | Equals) and predicate.field == self.field

    def neighbours(self, rank: int, low: int, high: int) -> IntArray:
        """Ranks that the node of a rank links to in the graph of ranks ``[low, high]``."""
        target, first, last, born, dead = self.edges[:, self.offsets[rank] : self.offsets[rank + 1]]
        return np.asarray(target[(first <= low) & (low <= last) & (born <= high) & (high < dead)], np.int64)

    def _walk(self, query: FloatArray, predicate: Predicate, mask: Mask, k: int, ef: int) -> Found:
        assert isinstance(predicate, Between | Equals)
        bounds = (predicate.low, predicate.high) if isinstance(predicate, Between) else (predicate.value,) * 2
        low, past = self.attributes.ordered(self.field).ranks(*bounds)  # type: ignore[arg-type]  # checked there
        starts = np.array([low, (low + past - 1) // 2, past - 1], np.int32)
        target, first, last, born, dead = self.edges
        graph = Alive(self.offsets, target, first, last, born, dead, low, past - 1, int(np.diff(self.offsets).max()))
        everything = np.ones(len(self.order), bool)
        ids, distances, computed, _, _ = best_first(self._sorted, graph, query, starts, everything, ef, False)
        return Found(self.order[ids[:k]], distances[:k], int(computed))
