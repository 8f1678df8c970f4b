"""Random rotations that cost ``d log d``: rounds of random signs, Hadamard transforms and small orthogonal mixes."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from isometry.types import FloatArray

WIDTH: Final = 128  # dimensions come in groups of so many
ROUNDS: Final = 3


class Rotation:
    """An orthogonal map of d dimensions into D, the next multiple of 128 (vectors are padded with zeros).

    A round flips signs at random, transforms each group of 128 dimensions by Hadamard's matrix and mixes the groups by
    a random orthogonal matrix. Each row is computed by itself, in a fixed order: what else is in the batch changes
    no bit of it.

    Parameters
    ----------
    dim
        Width of the vectors.
    seed
        Of signs and mixes.
    """

    def __init__(self, dim: int, seed: int) -> None:
        self.dim, self.groups = dim, -(-dim // WIDTH)
        self.width = self.groups * WIDTH
        rng = np.random.default_rng(seed)
        self._signs = rng.choice(np.asarray([-1, 1], np.float32), (ROUNDS, self.width)) / np.float32(WIDTH**0.5)
        normal = rng.standard_normal((ROUNDS, self.groups, self.groups))
        self._mixes = np.linalg.qr(normal)[0].astype(np.float32)

    def apply(self, x: FloatArray) -> FloatArray:
        """Rotate float32 ``[n, d]`` to float32 ``[n, D]``."""
        out = np.zeros((len(x), self.width), np.float32)
        out[:, : self.dim] = x
        _rotate(out, self._signs, self._mixes)
        return out

    def undo(self, y: FloatArray) -> FloatArray:
        """Inverse of `apply`, float32 ``[n, d]``."""
        out = np.array(y, np.float32, order="C")
        _unrotate(out, self._signs, np.ascontiguousarray(self._mixes.transpose(0, 2, 1)))
        return out[:, : self.dim].copy()


@njit(cache=True, nogil=True)
def _hadamard(row: Any, start: int) -> None:
    h = WIDTH // 2
    while h:
        for low in range(start, start + WIDTH, 2 * h):
            for j in range(low, low + h):
                a, b = row[j], row[j + h]
                row[j], row[j + h] = a + b, a - b
        h //= 2


@njit(cache=True, nogil=True)
def _mix(row: Any, mix: Any, spare: Any) -> None:
    groups = mix.shape[0]
    for g in range(groups):
        for j in range(WIDTH):
            spare[g * WIDTH + j] = mix[g, 0] * row[j]
        for other in range(1, groups):
            for j in range(WIDTH):
                spare[g * WIDTH + j] += mix[g, other] * row[other * WIDTH + j]
    row[:] = spare


@njit(cache=True, nogil=True)
def _rotate(x: Any, signs: Any, mixes: Any) -> None:
    spare = np.empty(x.shape[1], np.float32)
    for i in range(x.shape[0]):
        row = x[i]
        for r in range(signs.shape[0]):
            for j in range(x.shape[1]):
                row[j] *= signs[r, j]
            for start in range(0, x.shape[1], WIDTH):
                _hadamard(row, start)
            _mix(row, mixes[r], spare)


@njit(cache=True, nogil=True)
def _unrotate(x: Any, signs: Any, mixes: Any) -> None:
    spare = np.empty(x.shape[1], np.float32)
    for i in range(x.shape[0]):
        row = x[i]
        for r in range(signs.shape[0] - 1, -1, -1):
            _mix(row, mixes[r], spare)
            for start in range(0, x.shape[1], WIDTH):
                _hadamard(row, start)
            for j in range(x.shape[1]):
                row[j] *= signs[r, j]
