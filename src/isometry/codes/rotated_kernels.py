"""Levels of rotated residuals, packed as `isometry.codes.rotated.Planes` keeps them; compiled on first use."""

from __future__ import annotations

import numpy as np
from numba import njit

from isometry.codes.intrinsics import dot_nibbles


@njit(cache=True, fastmath=True, nogil=True)
def quantise(residual, high, low, factor4, factor8, square):
    """Fill the planes of rows ``[n, D]``; a zero row gets factors 0."""
    d = residual.shape[1]
    level = np.empty(d, np.uint8)
    for i in range(residual.shape[0]):
        row = residual[i]
        top = np.float32(0)
        for j in range(d):
            top = max(top, abs(row[j]))
        step = np.float32(127.5) / top if top > 0 else np.float32(0)
        for j in range(d):
            level[j] = np.uint8(min(np.float32(255), max(np.float32(0), row[j] * step + np.float32(128))))
        total = with4 = with8 = np.float32(0)
        for j in range(d):
            v = row[j]
            total += v * v
            with4 += v * (np.float32(level[j] >> 4) - np.float32(7.5))
            with8 += v * (np.float32(level[j]) - np.float32(127.5))
        square[i] = total
        factor4[i] = total / with4 if with4 > 0 else np.float32(0)
        factor8[i] = total / with8 if with8 > 0 else np.float32(0)
        for group in range(d // 128):
            for j in range(64):
                a, b = level[128 * group + j], level[128 * group + 64 + j]
                high[i, 64 * group + j] = (a >> 4) | (b & 240)
                low[i, 64 * group + j] = (a & 15) | ((b & 15) << 4)


@njit(cache=True, nogil=True)
def score_nibbles(codes, factor, query, step, out):
    """Dot products of rows packed with 4 bits a dimension and one query of bytes."""
    base = np.float32(7.5) * np.float32(np.sum(query.astype(np.int64)))
    for i in range(codes.shape[0]):
        dot = dot_nibbles(codes, i * codes.shape[1], query, 0, query.shape[0] // 128)
        out[i] = factor[i] * step * (np.float32(dot) - base)


@njit(cache=True, fastmath=True, nogil=True)
def score_bytes(codes, factor, query, out):
    """Dot products of rows packed with 8 bits a dimension (high nibbles, then low ones) and one query of floats."""
    half, summed = query.shape[0] // 2, np.float32(0)
    for j in range(query.shape[0]):
        summed += query[j]
    for i in range(codes.shape[0]):
        total = np.float32(0)
        for group in range(half // 64):
            for j in range(64):
                high, low = codes[i, 64 * group + j], codes[i, half + 64 * group + j]
                total += np.float32(np.uint8((high << 4) | (low & 15))) * query[128 * group + j]
                total += np.float32(np.uint8((high & 240) | (low >> 4))) * query[128 * group + 64 + j]
        out[i] = factor[i] * (total - np.float32(127.5) * summed)
