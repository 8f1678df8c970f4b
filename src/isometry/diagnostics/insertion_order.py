"""Orders in which vectors can be put into an index: the order is part of what an HNSW graph becomes."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from isometry.diagnostics.intrinsic_dimension import lid
from isometry.errors import InputError, UnknownName
from isometry.types import FloatArray

OrderName = Literal[
    "random", "lid_descending", "lid_ascending", "clusters", "centre_out", "edge_in", "time", "curve", "labels"
]
ORDERS: tuple[OrderName, ...] = get_args(OrderName)
_CURVE_AXES, _CURVE_BITS = 6, 10  # principal directions a space-filling curve runs through, and steps along each


def insertion_order(
    vectors: FloatArray,
    order: OrderName,
    *,
    seed: int = 0,
    k: int = 100,
    clusters: int = 16,
    local_dimension: NDArray[np.float64] | None = None,
    labels: NDArray[np.object_] | None = None,
) -> NDArray[np.int64]:
    """Return a permutation of the rows of ``vectors`` ``[n, d]``, int64 ``[n]``.

    Elliott & Clark 2024 (arXiv:2405.17813) study random order, descending and ascending local intrinsic dimension,
    and blocks of one category after the other.

    Parameters
    ----------
    order
        ``"random"``; ``"lid_descending"`` / ``"lid_ascending"`` by pointwise local intrinsic dimension of k exact
        neighbours; ``"clusters"``: blocks of a k-means clustering in random sequence; ``"centre_out"``: by rising
        distance to the mean, ``"edge_in"``: by falling; ``"time"``: as the rows stand, the order of arrival;
        ``"curve"``: along a `hilbert_curve` through the first six principal directions, so that neighbours come one
        after the other; ``"labels"``: blocks of ``labels`` in random sequence.
    seed
        Of the permutation, the clustering and the sequence of blocks; ties keep a random order.
    local_dimension
        Pointwise dimensions ``[n]``, if they are known already.
    """
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(vectors))
    if order == "random":
        return shuffled
    if order == "time":
        return np.arange(len(vectors), dtype=np.int64)
    if order in ("lid_descending", "lid_ascending"):
        values = lid(vectors, k) if local_dimension is None else np.asarray(local_dimension)
        values = np.nan_to_num(values, nan=float(np.nanmedian(values)))
        key: NDArray[Any] = -values if order == "lid_descending" else values
    elif order == "clusters":
        from sklearn.cluster import KMeans

        found = KMeans(min(clusters, len(vectors)), n_init=1, random_state=seed).fit_predict(vectors)
        key = rng.permutation(found.max() + 1)[found].astype(np.float64)
    elif order in ("centre_out", "edge_in"):
        key = np.linalg.norm(vectors - vectors.mean(axis=0), axis=1) * (1 if order == "centre_out" else -1)
    elif order == "curve":
        key = hilbert_curve(_cells(vectors), _CURVE_BITS)
    elif order == "labels":
        if labels is None or len(labels) != len(vectors):
            raise InputError(f"The order 'labels' needs one label for each of the {len(vectors)} vectors.")
        block = np.unique(labels, return_inverse=True)[1]
        key = rng.permutation(block.max() + 1)[block].astype(np.float64)
    else:
        raise UnknownName("insertion order", order, ORDERS)
    return np.asarray(shuffled[np.argsort(key[shuffled], kind="stable")], np.int64)


def _cells(vectors: FloatArray) -> NDArray[np.int64]:
    """Cell of each row in the space of the first principal directions, every side cut into equal steps."""
    centred = vectors - vectors.mean(axis=0)
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :_CURVE_AXES]
    scores = centred @ axes
    low, high = scores.min(axis=0), scores.max(axis=0)
    steps = (scores - low) / np.maximum(high - low, 1e-12) * (1 << _CURVE_BITS)
    return np.asarray(np.minimum(steps, (1 << _CURVE_BITS) - 1), np.int64)


def hilbert_curve(cells: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """Place of each cell along the Hilbert curve (Skilling 2004, "Programming the Hilbert curve"), int64 ``[n]``.

    Parameters
    ----------
    cells
        int64 ``[n, p]`` with ``0 <= cells < 2 ** bits``.
    bits
        Steps along an axis, as a power of two; ``p * bits`` may not exceed 63.

    Raises
    ------
    InputError
        If the curve is longer than 63 bits count, or a cell lies outside.

    Examples
    --------
    >>> hilbert_curve(np.asarray([[0, 0], [0, 1], [1, 1], [1, 0]]), 1).tolist()
    [0, 1, 2, 3]
    """
    x = np.array(cells, np.int64)
    n, p = x.shape
    if p * bits > 63 or ((x < 0) | (x >> bits > 0)).any():
        raise InputError(f"cells of {p} axes with {bits} bits need p * bits <= 63 and values in 0..{(1 << bits) - 1}.")
    for level in range(bits - 1, 0, -1):  # turn and mirror each cube as the curve does
        below = (1 << level) - 1
        for axis in range(p):
            far = (x[:, axis] >> level & 1).astype(bool)
            x[:, 0] ^= np.where(far, below, 0)
            swap = np.where(far, 0, (x[:, 0] ^ x[:, axis]) & below)
            x[:, 0] ^= swap
            x[:, axis] ^= swap
    for axis in range(1, p):
        x[:, axis] ^= x[:, axis - 1]
    turn = np.zeros(n, np.int64)
    for level in range(bits - 1, 0, -1):
        turn ^= np.where(x[:, -1] >> level & 1, (1 << level) - 1, 0)
    x ^= turn[:, None]
    place = np.zeros(n, np.int64)
    for level in range(bits - 1, -1, -1):
        for axis in range(p):
            place = place << 1 | (x[:, axis] >> level & 1)
    return place
