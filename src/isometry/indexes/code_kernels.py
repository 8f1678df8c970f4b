"""Scores of queries against nested codes, and the cascade of a quantised scan; compiled, one thread per call.

Numbers follow `isometry.codes.rotated`: a level-4 score is read from 192 bytes of a 384-d row, a level-8 score from
384 with a query of 15 bits.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from isometry.codes.intrinsics import dot_nibbles, lowest_bit, near_rows, popcount, prefetch

BLOCK = 64  # rows whose signs lie side by side
FINE = np.float32(254)  # finer steps of a query per step of its bytes
CHUNK = 16  # blocks that all queries visit before the next: 48 kB of signs of 384 dimensions


class Coded(NamedTuple):
    """Rows: see `isometry.codes.rotated.Planes`."""

    high: Any
    low: Any
    factor4: Any
    factor8: Any
    square: Any


class Asked(NamedTuple):
    """Queries in the rotated space.

    A query is about ``step * (bytes + fine / 254)``, int8 ``[q, D]`` both: 15 bits a dimension; ``total`` and
    ``fine_total`` are their sums. ``signs`` uint64 ``[q, D / 64]``; ``half`` is 0.5 where squared norms count
    (Euclidean), else 0.
    """

    bytes: Any
    step: Any
    total: Any
    fine: Any
    fine_total: Any
    signs: Any
    half: np.float32


@njit(cache=True, nogil=True)
def quantise_queries(full, out, fine, step, total, fine_total):
    """Bytes, finer bytes, step and sums of float32 queries ``[q, D]``."""
    for a in range(full.shape[0]):
        top = np.float32(0)
        for j in range(full.shape[1]):
            top = max(top, abs(full[a, j]))
        step[a] = top / np.float32(127)
        inverse = np.float32(1) / step[a] if top > 0 else np.float32(0)
        coarse_sum, fine_sum = 0, 0
        for j in range(full.shape[1]):
            value = full[a, j] * inverse
            coarse = np.rint(value)
            rest = np.rint((value - coarse) * FINE)
            out[a, j], fine[a, j] = np.int8(coarse), np.int8(rest)
            coarse_sum += np.int64(coarse)
            fine_sum += np.int64(rest)
        total[a], fine_total[a] = coarse_sum, fine_sum


@njit(inline="always")
def score4(high, factor, query, at, step, base, i):
    """Estimated dot product of row i and the query at ``query.flat[at:]``; ``base`` is 7.5 times the sum of its bytes.

    Arrays come one by one: taken out of a tuple within a loop, each would be counted in and out of use every time.
    """
    width = high.shape[1]
    return factor[i] * step * (np.float32(dot_nibbles(high, i * width, query, at, width // 64)) - base)


@njit(inline="always")
def fetch(plane, i):
    """Ask for the cache lines of row i."""
    width = plane.shape[1]
    for j in range(0, width, 64):
        prefetch(plane, i * width + j)


@njit(inline="always")
def insert(scores, items, count, room, score, item):
    """Insert into falling order, at most ``room`` entries; return the new count and the place taken (room if none)."""
    if count == room and score <= scores[room - 1]:
        return count, room
    place = count if count < room else room - 1
    while place > 0 and scores[place - 1] < score:
        scores[place], items[place] = scores[place - 1], items[place - 1]
        place -= 1
    scores[place], items[place] = score, item
    return (count + 1 if count < room else count), place


@njit(inline="always")
def keep_best(scores, items, count, room, score, item):
    """Push onto a heap of the ``room`` best, the worst on top; return the new count."""
    if count < room:
        place = count
        while place > 0 and scores[(place - 1) >> 1] > score:
            scores[place], items[place] = scores[(place - 1) >> 1], items[(place - 1) >> 1]
            place = (place - 1) >> 1
        scores[place], items[place] = score, item
        return count + 1
    if score <= scores[0]:
        return count
    place = 0
    while True:
        child = 2 * place + 1
        if child >= room:
            break
        if child + 1 < room and scores[child + 1] < scores[child]:
            child += 1
        if scores[child] >= score:
            break
        scores[place], items[place] = scores[child], items[child]
        place = child
    scores[place], items[place] = score, item
    return count


@njit(cache=True, nogil=True)
def rerank(rows, asked, a, items, count, k, out_row, out_score):
    """Score candidates by all bits and write the k best, falling; return how many."""
    high, low, factor, square, half = rows.high, rows.low, rows.factor8, rows.square, asked.half
    coarse, fine, at = asked.bytes, asked.fine, a * asked.bytes.shape[1]
    base = np.float32(127.5) * (np.float32(asked.total[a]) + np.float32(asked.fine_total[a]) / FINE)
    width, step = high.shape[1], asked.step[a]
    chunks = width // 64
    for b in range(count):
        fetch(low, items[b])
    found = 0
    for b in range(count):
        i = items[b]
        row = i * width
        first = 16 * dot_nibbles(high, row, coarse, at, chunks) + dot_nibbles(low, row, coarse, at, chunks)
        second = 16 * dot_nibbles(high, row, fine, at, chunks) + dot_nibbles(low, row, fine, at, chunks)
        dot = np.float32(first) + np.float32(second) / FINE
        found, _ = insert(out_score, out_row, found, k, factor[i] * step * (dot - base) - half * square[i], i)
    return found


@njit(cache=True, nogil=True)
def best_rows(rows, asked, a, picked, count, keep, scores, items):
    """Heap of the ``keep`` best of the first ``count`` rows ``picked`` (of all rows if none are) by 4 bits."""
    high, factor, square, half = rows.high, rows.factor4, rows.square, asked.half
    query, step, base = asked.bytes, asked.step[a], np.float32(7.5) * asked.total[a]
    at, listed, held = a * query.shape[1], len(picked) > 0, 0
    for b in range(count):
        if listed and b + 8 < count:
            fetch(high, np.int64(picked[b + 8]))
        i = np.int64(picked[b]) if listed else b
        score = score4(high, factor, query, at, step, base, i) - half * square[i]
        held = keep_best(scores, items, held, keep, score, i)
    return held


@njit(cache=True, nogil=True)
def scan_rows(rows, asked, picked, keep, k, out_row, out_score, counts):
    """The k best of each query among the rows ``picked`` (all rows if there are none)."""
    n = len(picked) if len(picked) else rows.high.shape[0]
    scores, items = np.empty(keep, np.float32), np.empty(keep, np.int64)
    for a in range(asked.bytes.shape[0]):
        held = best_rows(rows, asked, a, picked, n, keep, scores, items)
        counts[a] = rerank(rows, asked, a, items, held, k, out_row[a], out_score[a])


@njit(cache=True, nogil=True)
def _tighten(near, found, held, histogram, want):
    """Keep the ``want`` nearest candidates, of equally near ones the first; return the farthest kept and the count."""
    inside = bar = 0
    while inside + histogram[bar] < want:
        inside += histogram[bar]
        bar += 1
    room, kept = want - inside, 0
    for b in range(held):
        at_bar = near[b] == bar
        if near[b] < bar or (at_bar and room > 0):
            near[kept], found[kept] = near[b], found[b]
            kept += 1
            room -= at_bar
    histogram[bar], histogram[bar + 1 :] = want - inside, 0
    return bar, kept


@njit(cache=True, nogil=True)
def scan_signs(blocks, n, asked, allowed, want, near, found, held, bar, histogram):
    """Candidates by Hamming distance of signs: the ``want`` nearest of each query, all within its ``bar``.

    ``blocks`` uint64 ``[n / 64, D / 64, 64]``; ``allowed`` uint8 ``[n]`` or empty; ``near``, ``found`` ``[q, room]``
    with ``room >= 2 * want + 64``; ``held``, ``bar`` ``[q]``; ``histogram`` ``[q, D + 1]`` of zeros.
    """
    words, room, signs = blocks.shape[1], near.shape[1], asked.signs
    distance = np.empty(BLOCK, np.uint16)
    for chunk in range(0, blocks.shape[0], CHUNK):
        for a in range(signs.shape[0]):
            for block in range(chunk, min(chunk + CHUNK, blocks.shape[0])):
                row = block * BLOCK
                inside = near_rows(blocks, row * words, signs, a * words, words, bar[a], distance)
                if n - row < BLOCK:
                    inside &= (np.uint64(1) << np.uint64(n - row)) - np.uint64(1)
                while inside != 0:
                    j = lowest_bit(inside)
                    inside &= inside - np.uint64(1)
                    if len(allowed) and not allowed[row + j]:
                        continue
                    near[a, held[a]], found[a, held[a]] = distance[j], row + j
                    held[a] += 1
                    histogram[a, distance[j]] += 1
                if held[a] >= room - BLOCK:
                    bar[a], held[a] = _tighten(near[a], found[a], held[a], histogram[a], want)
    for a in range(signs.shape[0]):
        if held[a] > want:
            bar[a], held[a] = _tighten(near[a], found[a], held[a], histogram[a], want)


@njit(cache=True, nogil=True)
def narrow(rows, asked, found, held, keep, k, out_row, out_score, counts):
    """Score candidates by 4 bits, the ``keep`` best of them by all bits, and write the k best."""
    scores, items = np.empty(keep, np.float32), np.empty(keep, np.int64)
    for a in range(asked.bytes.shape[0]):
        kept = best_rows(rows, asked, a, found[a], held[a], keep, scores, items)
        counts[a] = rerank(rows, asked, a, items, kept, k, out_row[a], out_score[a])


@njit(cache=True, nogil=True)
def nearest_signs(signs, query, a):
    """Row of ``signs`` with the smallest Hamming distance to row a of ``query``."""
    nearest, best = np.uint64(1 << 62), 0
    for i in range(signs.shape[0]):
        total = np.uint64(0)
        for j in range(signs.shape[1]):
            total += popcount(signs[i, j] ^ query[a, j])
        if total < nearest:
            nearest, best = total, i
    return best
