"""Rows that lie apart, by statistical depth or by distance to neighbours."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from isometry.diagnostics.depth import cosine_depth
from isometry.diagnostics.neighbours import knn
from isometry.diagnostics.sphere import Array, unit_rows
from isometry.errors import UnknownName
from isometry.types import IntArray


def mean_knn_distance(vectors: Any, k: int = 10) -> Array:
    """Mean Euclidean distance of every unit row to its k nearest, float64 ``[n]`` (Angiulli and Pizzuti, 2002)."""
    return np.asarray(knn(unit_rows(vectors), k)[0].mean(axis=1), np.float64)


def outlier_scores(vectors: Any, method: Literal["depth", "knn"] = "depth", *, k: int = 10) -> Array:
    """Outlier score of every row, float64 ``[n]``, higher is more outlying.

    ``depth`` is minus the cosine depth: global, O(n d), sees distance from the corpus's mean direction. ``knn`` is the
    mean distance to the k nearest: local, O(n^2 d), also finds rows between clusters.
    """
    if method not in ("depth", "knn"):
        raise UnknownName("outlier method", method, ("depth", "knn"))
    return -cosine_depth(vectors, vectors, in_sample=True) if method == "depth" else mean_knn_distance(vectors, k)


def find_outliers(vectors: Any, count: int = 10, method: Literal["depth", "knn"] = "depth", *, k: int = 10) -> IntArray:
    """Rows of the ``count`` most outlying vectors, most outlying first; ties by row."""
    return np.argsort(-outlier_scores(vectors, method, k=k), kind="stable")[:count]
