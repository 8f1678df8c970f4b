"""Probing inverted lists of coded rows; compiled, one thread per call."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from isometry.indexes.code_kernels import best_rows, keep_best, rerank


class Lists(NamedTuple):
    """Inverted lists: list l holds ``rows[offsets[l]:offsets[l + 1]]`` and is near a query as ``q . c - half[l]`` says.

    ``centroids`` float32 ``[L, d]``, ``half`` float32 ``[L]``, ``offsets`` int64 ``[L + 1]``, ``rows`` int32 ``[n]``.
    """

    centroids: Any
    half: Any
    offsets: Any
    rows: Any


@njit(cache=True, fastmath=True, nogil=True)
def _nearness(centroids, half, query, out):  # type: ignore[no-untyped-def]
    for c in range(centroids.shape[0]):
        total = -half[c]
        for j in range(centroids.shape[1]):
            total += centroids[c, j] * query[j]
        out[c] = total


@njit(cache=True, nogil=True)
def _gather(lists, c, allowed, picked, count):  # type: ignore[no-untyped-def]
    """Append the allowed rows of list c to the first ``count`` rows picked; return the new count."""
    for b in range(lists.offsets[c], lists.offsets[c + 1]):
        i = lists.rows[b]
        if len(allowed) == 0 or allowed[i]:
            picked[count] = i
            count += 1
    return count


@njit(cache=True, nogil=True)
def probe_lists(rows, asked, lists, vectors, allowed, probes, least, keep, k, out_row, out_score, counts):  # type: ignore[no-untyped-def]
    """The k best of each query in its ``probes`` nearest lists, and in further ones until ``least`` rows were met.

    ``vectors`` float32 ``[q, d]`` are the queries as the centroids know them; ``allowed`` uint8 ``[n]`` or empty;
    the ``keep`` best by 4 bits are ranked by 8.
    """
    n, total = rows.high.shape[0], lists.centroids.shape[0]
    near, visited, picked = np.empty(total, np.float32), np.zeros(total, np.uint8), np.empty(n, np.int32)
    bars, nearest = np.empty(probes, np.float32), np.empty(probes, np.int64)
    scores, items = np.empty(keep, np.float32), np.empty(keep, np.int64)
    for a in range(vectors.shape[0]):
        _nearness(lists.centroids, lists.half, vectors[a], near)
        held = count = 0
        for c in range(total):
            held = keep_best(bars, nearest, held, probes, near[c], c)
        for b in range(held):
            count = _gather(lists, nearest[b], allowed, picked, count)
        if count < least:
            visited[:] = 0
            for b in range(held):
                visited[nearest[b]] = 1
            for c in np.argsort(-near):
                if count >= least:
                    break
                if not visited[c]:
                    count = _gather(lists, c, allowed, picked, count)
        held = best_rows(rows, asked, a, picked, count, keep, scores, items)
        counts[a] = rerank(rows, asked, a, items, held, k, out_row[a], out_score[a])
