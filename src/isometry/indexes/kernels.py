"""Dot products of many rows with a few queries, at the speed of memory; compiled on first use, single-threaded.

A matrix product library packs its operands first, which pays for hundreds of queries only; a few queries are bound by
reading the rows once. Rows are read one by one (two at a time halve the speed of the prefetcher), and up to four
queries share each read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from isometry.types import IntArray

HALF_BIAS = np.float32(2.0**112)  # float16 bits moved into a float32 are this much too small


@njit(cache=True, fastmath=True, nogil=True)
def _dots(x, picked, start, queries, out):  # type: ignore[no-untyped-def]
    d = x.shape[1]
    for i in range(out.shape[0]):
        row = x[picked[i]] if len(picked) else x[start + i]
        c = 0
        while c + 4 <= out.shape[1]:
            q0, q1, q2, q3 = queries[c], queries[c + 1], queries[c + 2], queries[c + 3]
            s0 = s1 = s2 = s3 = np.float32(0)
            for j in range(d):
                v = np.float32(row[j])
                s0 += v * q0[j]
                s1 += v * q1[j]
                s2 += v * q2[j]
                s3 += v * q3[j]
            out[i, c], out[i, c + 1], out[i, c + 2], out[i, c + 3] = s0, s1, s2, s3
            c += 4
        while c < out.shape[1]:
            q0 = queries[c]
            s0 = np.float32(0)
            for j in range(d):
                s0 += np.float32(row[j]) * q0[j]
            out[i, c] = s0
            c += 1


@njit(cache=True, nogil=True)
def _widen(halves, picked, start, bits, out):  # type: ignore[no-untyped-def]
    for i in range(out.shape[0]):
        row = halves[picked[i]] if len(picked) else halves[start + i]
        for j in range(out.shape[1]):
            h = np.int32(row[j])
            bits[i, j] = ((h & 0x8000) << 16) | ((h & 0x7FFF) << 13)
        for j in range(out.shape[1]):
            out[i, j] *= HALF_BIAS


@njit(cache=True, nogil=True, fastmath={"nnan", "nsz", "reassoc"})
def _above(scores, bar, row, column):  # type: ignore[no-untyped-def]
    found, width = 0, scores.shape[1]
    for i in range(scores.shape[0]):
        for start in range(0, width, 128):
            stop = min(start + 128, width)
            most = scores[i, start] - bar[start]
            for j in range(start, stop):
                most = max(most, scores[i, j] - bar[j])
            if most >= 0:
                for j in range(start, stop):
                    if scores[i, j] >= bar[j]:
                        if found == len(row):
                            return -1
                        row[found], column[found] = i, j
                        found += 1
    return found


def above(scores: Any, bar: Any) -> tuple[IntArray, IntArray]:
    """Positions ``(row, column)`` of float32 ``[r, q]`` that reach the bar of their column, in one pass."""
    room = 1 << 14
    while True:
        row, column = np.empty(room, np.int64), np.empty(room, np.int64)
        found = _above(scores, bar, row, column)
        if found >= 0:
            return row[:found], column[:found]
        room *= 8


def dots(codes: Any, rows: slice | IntArray, queries: Any) -> Any:
    """Float32 ``[r, q]`` of rows of float32 or int8 codes ``[n, d]`` with float32 queries ``[q, d]``."""
    picked, start, count = _span(rows)
    out = np.empty((count, len(queries)), np.float32)
    _dots(codes, picked, start, queries, out)
    return out


def widen(codes: Any, rows: slice | IntArray) -> Any:
    """Rows of float16 codes as float32 ``[r, d]``, the same numbers as ``astype`` gives, several times faster."""
    picked, start, count = _span(rows)
    out = np.empty((count, codes.shape[1]), np.float32)
    _widen(codes.view(np.uint16), picked, start, out.view(np.int32), out)
    return out


def _span(rows: slice | IntArray) -> tuple[IntArray, int, int]:
    if isinstance(rows, slice):
        return np.empty(0, np.int64), rows.start, rows.stop - rows.start
    return rows, 0, len(rows)
