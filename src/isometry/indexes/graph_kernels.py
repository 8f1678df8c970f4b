"""Building and walking a proximity graph over nested codes; compiled, one thread per call.

The graph is Vamana's (Subramanya et al., DiskANN, 2019): a new row is linked to the rows a search for it meets, thinned
by the relative-neighbourhood rule, and they to it. Everything is read from 4 bits a dimension; where a walk begins is
decided by the sign bits of a few rows ("pivots").
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from isometry.codes.intrinsics import prefetch
from isometry.indexes.code_kernels import fetch, insert, nearest_signs, rerank, score4

EXPANDED = np.int64(1)  # lowest bit of an item: its links were followed


class Graph(NamedTuple):
    """Links int32 ``[n, degree]`` with their number int32 ``[n]``, and rows to start from with their signs."""

    links: Any
    degree: Any
    pivots: Any
    pivot_signs: Any


class Walk(NamedTuple):
    """Memory of a walk: rows seen in round ``epoch[0]``, the best rows found, and those about to be scored."""

    seen: Any
    epoch: Any
    scores: Any
    items: Any
    fresh: Any


@njit(inline="always")
def _unseen(links, degree, node, seen, epoch, fresh, plane, factor):
    """Note the neighbours of a node that the walk has not seen, and fetch their codes; return how many."""
    met = 0
    for j in range(degree[node]):
        i = links[node, j]
        if seen[i] != epoch:
            seen[i] = epoch
            fresh[met] = i
            met += 1
            fetch(plane, np.int64(i))
            prefetch(factor, np.int64(i))
    return met


@njit(inline="always")
def _unseen_allowed(links, degree, node, allowed, seen, epoch, fresh, plane):
    """The same among allowed rows, looking through neighbours that are not allowed at theirs (ACORN, two hops)."""
    met, room = 0, links.shape[1]
    for j in range(degree[node]):
        i = links[node, j]
        if seen[i] == epoch:
            continue
        seen[i] = epoch
        if allowed[i]:
            fresh[met] = i
            met += 1
            fetch(plane, np.int64(i))
        else:
            for c in range(degree[i]):
                v = links[i, c]
                if met < room and allowed[v] and seen[v] != epoch:
                    seen[v] = epoch
                    fresh[met] = v
                    met += 1
                    fetch(plane, np.int64(v))
        if met >= room:
            break
    return met


@njit(cache=True, nogil=True)
def walk_to(rows, asked, a, graph, start, allowed, width, walk):
    """Fill ``walk.scores`` and ``walk.items`` (row times two, plus one if expanded) with the best rows met.

    ``allowed`` uint8 ``[n]`` (or empty: all are) says which rows count; a start that does not is left out at the end.
    """
    high, factor, square, half = rows.high, rows.factor4, rows.square, asked.half
    query, step, base = asked.bytes, asked.step[a], np.float32(7.5) * asked.total[a]
    links, degree, seen, fresh = graph.links, graph.degree, walk.seen, walk.fresh
    scores, items, at, filtered = walk.scores, walk.items, a * query.shape[1], len(allowed) > 0
    if walk.epoch[0] == 255:
        seen[:], walk.epoch[0] = 0, 0
    walk.epoch[0] += 1
    epoch, squares = walk.epoch[0], half > 0
    seen[start] = epoch
    scores[0], items[0] = score4(high, factor, query, at, step, base, start) - half * square[start], start * 2
    count, current = 1, 0
    while current < count:
        item = items[current]
        if item & EXPANDED:
            current += 1
            continue
        items[current] = item | EXPANDED
        nearest = current + 1
        if filtered:
            met = _unseen_allowed(links, degree, item >> 1, allowed, seen, epoch, fresh, high)
        else:
            met = _unseen(links, degree, item >> 1, seen, epoch, fresh, high, factor)
        for b in range(met):
            i = np.int64(fresh[b])
            score = score4(high, factor, query, at, step, base, i)
            if squares:
                score -= half * square[i]
            count, place = insert(scores, items, count, width, score, i * 2)
            if place < nearest:
                nearest = place
                prefetch(links, i * links.shape[1])  # the next to be followed
                prefetch(links, i * links.shape[1] + 16)
        current = nearest
    return count


@njit(cache=True, nogil=True)
def search_graph(rows, asked, graph, allowed, width, k, walk, out_row, out_score, counts):
    """The k best allowed rows of each query among the ``width`` best a walk meets, ranked by all bits."""
    found, items, pivots = np.empty(width, np.int64), walk.items, graph.pivots
    for a in range(asked.bytes.shape[0]):
        start = np.int64(pivots[nearest_signs(graph.pivot_signs, asked.signs, a)])
        count = walk_to(rows, asked, a, graph, start, allowed, width, walk)
        kept = 0
        for b in range(count):
            i = items[b] >> 1
            if not len(allowed) or allowed[i]:
                found[kept] = i
                kept += 1
        counts[a] = rerank(rows, asked, a, found, kept, k, out_row[a], out_score[a])


@njit(cache=True, nogil=True)
def _distances(rows, own, node, items, count, out):
    """Squared distances of a node (as query of ``own``) and the rows ``items``."""
    high, factor, square, query = rows.high, rows.factor4, rows.square, own.bytes
    at, step, base = node * query.shape[1], own.step[node], np.float32(7.5) * own.total[node]
    for b in range(count):
        i = np.int64(items[b])
        out[b] = square[node] + square[i] - 2 * score4(high, factor, query, at, step, base, i)


@njit(cache=True, nogil=True)
def _thin(rows, own, near, items, count, slope, most, out):
    """Keep, nearest first, the candidates that no kept one is nearer to (by ``slope``) than the node is."""
    high, factor, square, query = rows.high, rows.factor4, rows.square, own.bytes
    steps, totals, width, kept = own.step, own.total, own.bytes.shape[1], 0
    for b in range(count):
        i, covered = items[b], False
        for c in range(kept):
            j = np.int64(out[c])
            dot = score4(high, factor, query, j * width, steps[j], np.float32(7.5) * totals[j], i)
            if slope * (square[i] + square[j] - 2 * dot) <= near[b]:
                covered = True
                break
        if not covered:
            out[kept] = i
            kept += 1
            if kept == most:
                break
    return kept


@njit(cache=True, nogil=True)
def _rethin(rows, own, node, candidates, count, slope, most, scores, items, out):
    """Thin the first ``count`` candidates for a node; return how many stay in ``out``."""
    distances, held = np.empty(count, np.float32), 0
    _distances(rows, own, node, candidates, count, distances)
    for b in range(count):
        held, _ = insert(scores, items, held, len(scores), -distances[b], np.int64(candidates[b]))
    for b in range(held):
        scores[b] = -scores[b]
    return _thin(rows, own, scores, items, held, slope, most, out)


@njit(cache=True, nogil=True)
def grow(rows, own, graph, order, inserted, width, slope, most, walk):
    """Insert the rows ``order`` one by one, row i as query i of ``own``; ``links`` may have room beyond ``most``."""
    links, degree, room = graph.links, graph.degree, graph.links.shape[1]
    near, items = np.empty(room + 1, np.float32), np.empty(room + 1, np.int64)
    out, crowd = np.empty(room + 1, np.int32), np.empty(room + 1, np.int32)
    score, met, every = walk.scores, walk.items, np.empty(0, np.uint8)
    for turn in range(len(order)):
        i = np.int64(order[turn])
        pivots = min(len(graph.pivots), inserted + turn)
        if not pivots:
            continue
        known = Graph(links, degree, graph.pivots[:pivots], graph.pivot_signs[:pivots])
        start = np.int64(known.pivots[nearest_signs(known.pivot_signs, own.signs, i)])
        count = walk_to(rows, own, i, known, start, every, width, walk)
        for b in range(count):
            met[b] >>= 1
            score[b] = rows.square[i] - 2 * score[b]
        degree[i] = _thin(rows, own, score, met, count, slope, most, links[i])
        for b in range(degree[i]):
            j = np.int64(links[i, b])
            if degree[j] < room:
                links[j, degree[j]] = i
                degree[j] += 1
                continue
            crowd[:room], crowd[room] = links[j], i
            degree[j] = _rethin(rows, own, j, crowd, room + 1, slope, most, near, items, out)
            links[j, : degree[j]] = out[: degree[j]]


@njit(cache=True, nogil=True)
def trim(rows, own, graph, slope, most):
    """Thin what has more than ``most`` links."""
    room = graph.links.shape[1]
    near, items, out = np.empty(room, np.float32), np.empty(room, np.int64), np.empty(room, np.int32)
    for i in range(len(graph.degree)):
        if graph.degree[i] > most:
            kept = _rethin(rows, own, i, graph.links[i], graph.degree[i], slope, most, near, items, out)
            graph.links[i, :kept] = out[:kept]
            graph.degree[i] = kept


@njit(cache=True, nogil=True)
def bypass(rows, own, graph, gone, slope, most):
    """Replace links to rows that are ``gone`` by links to what those rows were linked to."""
    room = 8 * most
    near, items, out = np.empty(room, np.float32), np.empty(room, np.int64), np.empty(room, np.int32)
    crowd, seen = np.empty(room, np.int32), np.full(len(gone), -1, np.int32)
    for i in range(len(gone)):
        if gone[i]:
            continue
        held, lost = 0, False
        seen[i] = i
        for b in range(graph.degree[i]):
            j = graph.links[i, b]
            lost |= gone[j]
            for c in range(-1, graph.degree[j] if gone[j] else 0):
                v = j if c < 0 else graph.links[j, c]
                if not gone[v] and seen[v] != i and held < room:
                    seen[v], crowd[held] = i, v
                    held += 1
        if lost:
            kept = _rethin(rows, own, i, crowd, held, slope, most, near, items, out)
            graph.links[i, :kept] = out[:kept]
            graph.degree[i] = kept


@njit(cache=True, nogil=True)
def unreachable(graph):
    """Rows that no walk from a pivot can reach, bool ``[n]``."""
    lost = np.ones(len(graph.degree), np.bool_)
    queue, head, tail = np.empty(len(graph.degree), np.int32), 0, 0
    for i in graph.pivots:
        if lost[i]:
            lost[i] = False
            queue[tail] = i
            tail += 1
    while head < tail:
        node = queue[head]
        head += 1
        for b in range(graph.degree[node]):
            i = graph.links[node, b]
            if lost[i]:
                lost[i] = False
                queue[tail] = i
                tail += 1
    return lost


@njit(cache=True, nogil=True)
def attach(rows, own, graph, lost, width, most, walk):
    """Give each lost row a link from the nearest reachable row with room, else in place of the most needless link.

    That is the link met on the way whose end most other reachable rows link to.

    What got a link counts as reachable for the next, so that equal rows form a chain.
    """
    links, degree, popularity = graph.links, graph.degree, np.zeros(len(lost), np.int64)
    for i in range(len(lost)):
        for b in range(0 if lost[i] else degree[i]):
            popularity[links[i, b]] += 1
    for i in np.flatnonzero(lost):
        start = np.int64(graph.pivots[nearest_signs(graph.pivot_signs, own.signs, i)])
        host, place, most_popular = np.int64(-1), 0, np.int64(1)
        for b in range(walk_to(rows, own, i, graph, start, np.empty(0, np.uint8), width, walk)):
            j = walk.items[b] >> 1
            if j == i or lost[j]:
                continue
            if degree[j] < most:
                host, place = j, degree[j]
                break
            for c in range(most):
                if popularity[links[j, c]] > most_popular:
                    host, place, most_popular = j, c, popularity[links[j, c]]
        if host < 0:
            continue
        if place == degree[host]:
            degree[host] += 1
        else:
            popularity[links[host, place]] -= 1
        links[host, place] = i
        popularity[i] += 1
        for b in range(degree[i]):
            popularity[links[i, b]] += 1
        lost[i] = False
