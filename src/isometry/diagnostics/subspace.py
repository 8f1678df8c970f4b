"""Clouds of known intrinsic dimension, to study what dimension does to an index."""

from __future__ import annotations

import numpy as np

from isometry.errors import InputError
from isometry.types import FloatArray


def subspace_cloud(n: int, dim: int, intrinsic: int, *, seed: int = 0) -> FloatArray:
    """Unit vectors that lie in a random subspace: ``x = w B / |w B|`` with w normal and B orthonormal.

    The synthetic sweep of Elliott & Clark 2024 (arXiv:2405.17813). The directions are uniform on a sphere of
    ``intrinsic - 1`` dimensions. The subspace depends on ``seed`` alone, so clouds of different n share it.

    Parameters
    ----------
    n
        Rows.
    dim
        Ambient width d.
    intrinsic
        Width of the subspace, 1 to ``dim``.

    Returns
    -------
    NDArray
        float32 ``[n, dim]``.
    """
    if not 1 <= intrinsic <= dim:
        raise InputError(f"intrinsic must lie between 1 and {dim} (the width of the vectors), got {intrinsic}.")
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(dim, intrinsic)))[0].T
    cloud = rng.normal(size=(n, intrinsic)) @ basis
    return np.asarray(cloud / np.linalg.norm(cloud, axis=1, keepdims=True), np.float32)
