"""Distances on the unit sphere: cosine, chord and arc."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from isometry.errors import EmptyInput, InputError, UnknownName
from isometry.types import check_vectors

Array = NDArray[np.float64]
Distance = Literal["cosine", "chord", "arc"]

# Largest distance two points of the sphere can have.
DIAMETER = {"cosine": 2.0, "chord": 2.0, "arc": float(np.pi)}
_BLOCK_VALUES = 2**22  # 32 MiB of float64 a block


def unit_rows(vectors: Any, what: str = "vectors") -> Array:
    """Return rows scaled to norm 1, float64 ``[n, d]``.

    Raises
    ------
    InputError
        If a row is zero: it has no direction. The message names the rows.
    EmptyInput
        If there is no row.
    DimensionMismatch
        If the array is not a matrix or holds NaN or infinity.

    Examples
    --------
    >>> unit_rows([[3.0, 4.0]]).tolist()
    [[0.6, 0.8]]
    """
    check_vectors(vectors, what=what)
    values = np.asarray(vectors, np.float64)
    if not len(values):
        raise EmptyInput(f"{what} hold no row; give at least one vector.")
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    if not norms.all():
        rows = np.flatnonzero(norms[:, 0] == 0)
        shown = ", ".join(map(str, rows[:8])) + (" ..." if len(rows) > 8 else "")
        raise InputError(
            f"{what} hold {len(rows)} zero vectors, which have no direction (rows {shown}); remove these rows, "
            "they are usually empty texts."
        )
    return np.asarray(values / norms, np.float64)


def check_distance(distance: str) -> None:
    """Raise `UnknownName` unless ``distance`` is cosine, chord or arc."""
    if distance not in DIAMETER:
        raise UnknownName("distance", distance, DIAMETER)


def distances(a: Array, b: Array, distance: Distance) -> Array:
    """Return the distances of unit rows, float64 ``[len(a), len(b)]``.

    ``cosine`` is 1 - <a, b>, ``chord`` the Euclidean distance sqrt(2 (1 - <a, b>)), ``arc`` the angle in radians.
    """
    values = a @ b.T
    if distance == "arc":
        return np.asarray(np.arccos(np.clip(values, -1.0, 1.0, out=values)), np.float64)
    np.subtract(1.0, values, out=values)
    np.clip(values, 0.0, 2.0, out=values)
    return np.sqrt(2.0 * values) if distance == "chord" else values


def mean_distances(points: Array, reference: Array, distance: Distance, *, in_sample: bool) -> Array:
    """Return the mean distance of every unit row of ``points`` to ``reference``, float64 ``[m]``, block by block.

    With ``in_sample`` row i of both is the same item and is left out of its own mean.
    """
    sums = np.empty(len(points))
    for start, stop in blocks(len(points), len(reference)):
        part = distances(points[start:stop], reference, distance)
        if in_sample:
            part[np.arange(stop - start), np.arange(start, stop)] = 0.0
        sums[start:stop] = part.sum(axis=1)
    return sums / (len(reference) - int(in_sample))


def blocks(rows: int, width: int, largest: int = 1024) -> Iterator[tuple[int, int]]:
    """Yield ``(start, stop)`` of row blocks such that a block of that width stays within a fixed memory."""
    step = max(1, min(largest, _BLOCK_VALUES // max(width, 1)))
    for start in range(0, rows, step):
        yield start, min(start + step, rows)
