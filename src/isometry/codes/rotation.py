"""Random rotations that cost ``d log d``: rounds of random signs, Hadamard transforms and small orthogonal mixes."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from isometry.codes.intrinsics import add_scaled16, butterfly16
from isometry.types import FloatArray

WIDTH: Final = 128  # dimensions come in groups of so many
ROUNDS: Final = 2
LANES: Final = 16  # rows rotated at once


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
        _rotate(out, self._signs, self._mixes, False)
        return out

    def undo(self, y: FloatArray) -> FloatArray:
        """Inverse of `apply`, float32 ``[n, d]``."""
        out = np.array(y, np.float32, order="C")
        _rotate(out, self._signs, self._mixes, True)
        return out[:, : self.dim].copy()


@njit(cache=True, nogil=True)
def _hadamard(work: Any, width: int) -> None:
    """Hadamard transform of each group of 128 dimensions; ``work`` float32 ``[D, 16]``, sixteen rows side by side."""
    h = 1
    while h < WIDTH:
        for low in range(0, width, 2 * h):
            for j in range(low, low + h):
                butterfly16(work, j * LANES, (j + h) * LANES)
        h *= 2


@njit(cache=True, nogil=True)
def _mix(work: Any, mix: Any, out: Any) -> None:
    out[:] = 0
    for g in range(mix.shape[0]):
        for other in range(mix.shape[0]):
            for j in range(WIDTH):
                add_scaled16(out, (g * WIDTH + j) * LANES, mix[g, other], work, (other * WIDTH + j) * LANES)


@njit(cache=True, nogil=True)
def _rotate(x: Any, signs: Any, mixes: Any, undo: bool) -> None:
    rounds, width = signs.shape
    work, spare = np.empty((width, LANES), np.float32), np.empty((width, LANES), np.float32)
    for start in range(0, x.shape[0], LANES):
        count = min(LANES, x.shape[0] - start)
        work[:] = 0
        for lane in range(count):
            for j in range(width):
                work[j, lane] = x[start + lane, j]
        for turn in range(rounds):
            r = rounds - 1 - turn if undo else turn
            if undo:
                _mix(work, mixes[r].T.copy(), spare)
                _hadamard(spare, width)
                work, spare = spare, work
            for j in range(width):
                for lane in range(LANES):
                    work[j, lane] *= signs[r, j]
            if not undo:
                _hadamard(work, width)
                _mix(work, mixes[r], spare)
                work, spare = spare, work
        for lane in range(count):
            for j in range(width):
                x[start + lane, j] = work[j, lane]
