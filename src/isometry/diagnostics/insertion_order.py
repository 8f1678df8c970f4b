"""Orders in which vectors can be put into an index: the order is part of what an HNSW graph becomes."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from isometry.diagnostics.intrinsic_dimension import lid
from isometry.errors import InputError, UnknownName
from isometry.types import FloatArray

OrderName = Literal["random", "lid_descending", "lid_ascending", "clusters", "centre_out", "labels"]
ORDERS: tuple[OrderName, ...] = get_args(OrderName)


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
        distance to the mean; ``"labels"``: blocks of ``labels`` in random sequence.
    seed
        Of the permutation, the clustering and the sequence of blocks; ties keep a random order.
    local_dimension
        Pointwise dimensions ``[n]``, if they are known already.
    """
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(vectors))
    if order == "random":
        return shuffled
    if order in ("lid_descending", "lid_ascending"):
        values = lid(vectors, k) if local_dimension is None else np.asarray(local_dimension)
        values = np.nan_to_num(values, nan=float(np.nanmedian(values)))
        key = -values if order == "lid_descending" else values
    elif order == "clusters":
        from sklearn.cluster import KMeans

        found = KMeans(min(clusters, len(vectors)), n_init=1, random_state=seed).fit_predict(vectors)
        key = rng.permutation(found.max() + 1)[found].astype(np.float64)
    elif order == "centre_out":
        key = np.linalg.norm(vectors - vectors.mean(axis=0), axis=1)
    elif order == "labels":
        if labels is None or len(labels) != len(vectors):
            raise InputError(f"The order 'labels' needs one label for each of the {len(vectors)} vectors.")
        block = np.unique(labels, return_inverse=True)[1]
        key = rng.permutation(block.max() + 1)[block].astype(np.float64)
    else:
        raise UnknownName("insertion order", order, ORDERS)
    return np.asarray(shuffled[np.argsort(key[shuffled], kind="stable")], np.int64)
