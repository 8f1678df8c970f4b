"""Best-first search over a proximity graph, one loop for every method: a graph type says which neighbours it offers.

`Everyone` offers all links (inline and post-filtering), `Matching` those that satisfy the filter (Filtered-DiskANN,
UNG), `TwoHop` the first matching ones, looking two links far (ACORN), `Alive` those that exist for a range (SeRF);
`Layer` and `Growing` are the graphs of the latter two while they are built.
"""

# ruff: noqa: ANN001, ANN201, ANN202
# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators
# (numba infers the types of its kernels)

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numba.extending import overload
from numpy.typing import NDArray

from isometry.indexes.hnsw_graph import _distance, _insert_sorted

Links = NDArray[np.int32]
Mask = NDArray[np.bool_]


class Everyone(NamedTuple):
    """All links of a node: ``links`` int32 ``[n, width]``, of which the first ``counts`` ``[n]`` are there."""

    links: Links
    counts: Links


class Layer(NamedTuple):
    """The first ``most`` links of a node on one layer; its list is row ``rows[i] + level`` of ``links``."""

    links: Links
    counts: Links
    rows: Links
    level: int
    most: int


class Matching(NamedTuple):
    """The links that lead to matching nodes."""

    links: Links
    counts: Links


class TwoHop(NamedTuple):
    """The first ``most`` matching nodes among a layer's links and the links of those from position ``near`` on."""

    links: Links
    counts: Links
    rows: Links
    level: int
    near: int
    most: int


class Growing(NamedTuple):
    """A segment graph being built: the links that exist now for ranges from ``low`` on, ``most`` of them at most.

    Node i's links are the chain of ``pool`` rows from ``heads[i]``; `isometry.indexes.filtered.serf` names the columns.
    """

    heads: Links
    pool: Links
    low: int
    most: int


class Alive(NamedTuple):
    """Links that exist for the ranks ``[low, high]``.

    Link e of node i (``offsets[i] <= e < offsets[i + 1]``) leads to ``target[e]`` for every range with
    ``first[e] <= low <= last[e]`` and ``born[e] <= high < dead[e]``; ``widest`` is the longest list.
    """

    offsets: Links
    target: Links
    first: Links
    last: Links
    born: Links
    dead: Links
    low: int
    high: int
    widest: int


def gather(graph, node, mask, near):
    """Write the neighbours of a node that a search may go to into ``near`` and return how many there are."""
    raise TypeError(f"{type(graph).__name__} is no graph.")


def room(graph):
    """Return how many neighbours `gather` can return."""
    raise TypeError(f"{type(graph).__name__} is no graph.")


@njit(cache=True)
def _gather_all(graph, node, mask, near):
    size = graph.counts[node]
    near[:size] = graph.links[node, :size]
    return size


@njit(cache=True)
def _gather_layer(graph, node, mask, near):
    row = graph.rows[node] + graph.level
    size = min(graph.counts[row], graph.most)
    near[:size] = graph.links[row, :size]
    return size


@njit(cache=True)
def _gather_matching(graph, node, mask, near):
    size = 0
    for j in range(graph.counts[node]):
        other = graph.links[node, j]
        if mask[other]:
            near[size] = other
            size += 1
    return size


@njit(cache=True)
def _append_new(near, size, other):
    for j in range(size):
        if near[j] == other:
            return size
    near[size] = other
    return size + 1


@njit(cache=True)
def _gather_two_hop(graph, node, mask, near):
    row, size = graph.rows[node] + graph.level, 0
    for j in range(graph.counts[row]):
        other = graph.links[row, j]
        if mask[other]:
            size = _append_new(near, size, other)
            if size == graph.most:
                return size
        if j >= graph.near:
            far = graph.rows[other] + graph.level
            for i in range(graph.counts[far]):
                if mask[graph.links[far, i]] and graph.links[far, i] != node:
                    size = _append_new(near, size, graph.links[far, i])
                    if size == graph.most:
                        return size
    return size


@njit(cache=True)
def _gather_alive(graph, node, mask, near):
    size = 0
    for e in range(graph.offsets[node], graph.offsets[node + 1]):
        exists = graph.first[e] <= graph.low <= graph.last[e] and graph.born[e] <= graph.high < graph.dead[e]
        if exists and mask[graph.target[e]]:
            near[size] = graph.target[e]
            size += 1
    return size


@njit(cache=True)
def _gather_growing(graph, node, mask, near):
    size, e = 0, graph.heads[node]
    while e >= 0 and size < graph.most:
        if graph.pool[e, 2] <= graph.low <= graph.pool[e, 3]:
            near[size] = graph.pool[e, 1]
            size += 1
        e = graph.pool[e, 6]
    return size


@overload(gather)
def _gather(graph, node, mask, near):
    if graph.instance_class is Everyone:
        return lambda graph, node, mask, near: _gather_all(graph, node, mask, near)
    if graph.instance_class is Layer:
        return lambda graph, node, mask, near: _gather_layer(graph, node, mask, near)
    if graph.instance_class is Matching:
        return lambda graph, node, mask, near: _gather_matching(graph, node, mask, near)
    if graph.instance_class is TwoHop:
        return lambda graph, node, mask, near: _gather_two_hop(graph, node, mask, near)
    if graph.instance_class is Growing:
        return lambda graph, node, mask, near: _gather_growing(graph, node, mask, near)
    return lambda graph, node, mask, near: _gather_alive(graph, node, mask, near)


@overload(room)
def _room(graph):
    if graph.instance_class is Everyone or graph.instance_class is Matching:
        return lambda graph: graph.links.shape[1]
    if graph.instance_class is TwoHop or graph.instance_class is Layer or graph.instance_class is Growing:
        return lambda graph: graph.most
    return lambda graph: graph.widest


@njit(cache=True)
def _push(dist, node, size, d, n):
    """Add to a binary heap, least first."""
    i = size
    while i > 0 and dist[(i - 1) // 2] > d:
        dist[i], node[i] = dist[(i - 1) // 2], node[(i - 1) // 2]
        i = (i - 1) // 2
    dist[i], node[i] = d, n


@njit(cache=True)
def _pop(dist, node, size):
    """Remove the least entry of a heap of ``size``; its last entry takes its way down."""
    d, n, i, size = dist[size - 1], node[size - 1], 0, size - 1
    while True:
        child = 2 * i + 1
        if child >= size:
            break
        if child + 1 < size and dist[child + 1] < dist[child]:
            child += 1
        if dist[child] >= d:
            break
        dist[i], node[i] = dist[child], node[child]
        i = child
    dist[i], node[i] = d, n


@njit(cache=True)
def best_first(x, graph, q, starts, mask, ef, strict):
    """Walk from ``starts`` to ever nearer nodes.

    Returns the ef nearest matching nodes met and their distances, nearest first; the number of distances computed; and
    the nodes expanded, in their order, with their distances.

    The walk ends when the next node is farther than the ef-th best: of the matching nodes found so far, or, if
    ``strict``, of all nodes met, so that a filter cannot lengthen it (and may leave it without an answer).
    """
    n = x.shape[0]
    seen = np.zeros(n, np.bool_)
    dist, node, done = np.empty(ef, np.float32), np.empty(ef, np.int32), np.empty(ef, np.bool_)
    wide = ef if strict else 1
    met, met_node, met_done = np.empty(wide, np.float32), np.empty(wide, np.int32), np.empty(wide, np.bool_)
    front, front_node = np.empty(n, np.float32), np.empty(n, np.int32)
    trail, trail_d = np.empty(n, np.int32), np.empty(n, np.float32)
    near = np.empty(max(room(graph), len(starts)), np.int32)
    size, reach, waiting, computed, steps = 0, 0, 0, 0, 0
    count = len(starts)
    near[:count] = starts
    while True:
        for j in range(count):
            other = near[j]
            if seen[other]:
                continue
            seen[other] = True
            computed += 1
            d = _distance(x[other], q)
            full = reach == ef if strict else size == ef
            worst = met[reach - 1] if strict and full else dist[size - 1] if full else np.float32(np.inf)
            if d >= worst:
                continue
            _push(front, front_node, waiting, d, other)
            waiting += 1
            if mask[other]:
                size = _insert_sorted(dist, node, done, size, d, other, ef)
            if strict:
                reach = _insert_sorted(met, met_node, met_done, reach, d, other, ef)
        if waiting == 0:
            break
        d, current = front[0], front_node[0]
        _pop(front, front_node, waiting)
        waiting -= 1
        if (strict and reach == ef and d > met[reach - 1]) or (not strict and size == ef and d > dist[size - 1]):
            break
        trail[steps], trail_d[steps] = current, d
        steps += 1
        count = gather(graph, current, mask, near)
    return node[:size].copy(), dist[:size].copy(), computed, trail[:steps].copy(), trail_d[:steps].copy()
