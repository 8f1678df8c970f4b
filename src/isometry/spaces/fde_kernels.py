"""Loops of the fixed dimensional encoding: bucket numbers, pooling per bucket, count sketch; compiled on first use."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def bucket_numbers(products: Any, thresholds: Any, repetitions: int, bits: int) -> Any:
    """Gray-decoded bucket numbers, int64 ``[r, t]``, of hyperplane products ``[t, r * bits]``.

    A product above its threshold is a 1; the first hyperplane of a repetition gives the highest bit.
    """
    out = np.zeros((repetitions, products.shape[0]), np.int64)
    for t in range(products.shape[0]):
        for r in range(repetitions):
            p = np.int64(0)
            for j in range(r * bits, (r + 1) * bits):
                p = (p << 1) + (np.int64(products[t, j] > thresholds[j]) ^ (p & 1))
            out[r, t] = p
    return out


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _distance(a: int, b: int) -> int:
    different, count = a ^ b, 0
    while different:
        different &= different - 1
        count += 1
    return count


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _fill(rows: Any, start: int, first: Any, order: Any, out: Any) -> None:
    """Give each empty bucket the token whose bits are nearest to its own; of several, the earliest."""
    for p in range(out.shape[0]):
        if first[p] >= 0:
            continue
        best = nearest = np.int64(64)
        for other in order:  # the first token of each bucket in use, earliest first
            distance = _distance(p ^ (p >> 1), other ^ (other >> 1))
            if distance < nearest:
                best, nearest = first[other], distance
        out[p] = rows[start + best]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def pool(rows: Any, numbers: Any, offsets: Any, mean: bool, fill: bool, out: Any) -> None:
    """Sums (or means) of each item's rows per bucket.

    Parameters
    ----------
    rows
        float32 ``[t, w]``.
    numbers
        int64 ``[t]``: bucket of each row.
    offsets
        int64 ``[n + 1]``: item i owns rows ``offsets[i]:offsets[i + 1]``, at least one.
    mean, fill
        Divide by the bucket's count; fill empty buckets.
    out
        float32 ``[n, buckets, w]``, overwritten.
    """
    buckets = out.shape[1]
    count, first = np.zeros(buckets, np.int64), np.empty(buckets, np.int64)
    for i in range(len(offsets) - 1):
        start, stop = offsets[i], offsets[i + 1]
        out[i] = 0
        count[:], first[:] = 0, -1
        order = np.empty(stop - start, np.int64)
        used = 0
        for t in range(start, stop):
            p = numbers[t]
            if first[p] < 0:
                first[p], order[used] = t - start, p
                used += 1
            count[p] += 1
            for j in range(rows.shape[1]):
                out[i, p, j] += rows[t, j]
        if mean:
            for p in order[:used]:
                scale = np.float32(1) / np.float32(count[p])
                for j in range(rows.shape[1]):
                    out[i, p, j] *= scale
        if fill and used < buckets:
            _fill(rows, start, first, order[:used], out[i])


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def sketch(block: Any, targets: Any, signs: Any, out: Any) -> None:
    """Add ``signs[c] * block[:, c]`` to column ``targets[c]`` of ``out``, for every c."""
    for i in range(block.shape[0]):
        for c in range(block.shape[1]):
            out[i, targets[c]] += signs[c] * block[i, c]
