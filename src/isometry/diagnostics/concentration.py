"""Distance concentration: whether the nearest neighbour is much nearer than the farthest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from isometry.diagnostics.sphere import Array, blocks
from isometry.errors import InputError
from isometry.types import check_vectors


def relative_contrast(vectors: Any, queries: Any) -> Array:
    """Relative contrast ``(d_max - d_min) / d_min`` of Euclidean distances, one value a query, float64 ``[q]``.

    For independent coordinates it goes to 0 as the dimension grows, and with it the meaning of "nearest" (Beyer,
    Goldstein, Ramakrishnan and Shaft, When Is Nearest Neighbor Meaningful?, ICDT 1999). A query that is among the
    vectors has infinite contrast.

    Parameters
    ----------
    vectors
        ``[n, d]``, at least two.
    queries
        ``[q, d]``.

    Examples
    --------
    >>> relative_contrast([[1.0], [4.0]], [[0.0]]).tolist()
    [3.0]
    """
    x = check_vectors(vectors).astype(np.float64)
    q = check_vectors(queries, dim=x.shape[1], what="queries").astype(np.float64)
    if len(x) < 2:
        raise InputError("Relative contrast needs at least two vectors.")
    centre = x.mean(axis=0)  # keeps distances, and the digits that a common offset would cost
    x, q = x - centre, q - centre
    squares = np.einsum("ij,ij->i", x, x)
    values = np.empty(len(q))
    for start, stop in blocks(len(q), len(x)):
        part = q[start:stop]
        product = squares - 2 * (part @ x.T)
        ends = product.argmin(axis=1), product.argmax(axis=1)
        near, far = (np.linalg.norm(x[end] - part, axis=1) for end in ends)  # measured again: no cancellation
        values[start:stop] = np.divide(far - near, near, out=np.full(len(part), np.inf), where=near > 0)
    return values


def contrast_by_dimension(
    vectors: Any, queries: Any, dimensions: Sequence[int], *, rotate: bool = True, seed: int = 0
) -> Array:
    """Relative contrast in the first d coordinates, for each d: float64 ``[len(dimensions), q]``.

    Parameters
    ----------
    vectors, queries
        ``[n, D]`` and ``[q, D]``.
    dimensions
        Each from 1 to D.
    rotate
        Turn the space at random first, so that no coordinate is special (a random projection for each d).
    seed
        Of the rotation.
    """
    x, q = check_vectors(vectors), check_vectors(queries)
    if not dimensions or not all(1 <= d <= x.shape[1] for d in dimensions):
        raise InputError(f"Dimensions must lie between 1 and {x.shape[1]}, got {list(dimensions)}.")
    if rotate:
        turn = np.linalg.qr(np.random.default_rng(seed).standard_normal((x.shape[1],) * 2))[0].astype(np.float32)
        x, q = x @ turn, q @ turn
    return np.stack([relative_contrast(x[:, :d], q[:, :d]) for d in dimensions])
