"""How alike the rows of a pool are, as numbers from 0 to 1 that set functions can add up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from isometry.errors import DimensionMismatch, InputError, UnknownName
from isometry.types import check_vectors

Array = NDArray[np.float64]
Kind = Literal["clipped", "shifted", "centred", "rbf", "fisher-rao", "fisher-rao-categorical"]
Affinity = Kind | Callable[[Array], Array]


def affinity(x: Any, how: Affinity = "clipped", *, bandwidth: float | None = None) -> Array:
    """Pairwise similarity of the rows of ``x`` in [0, 1], symmetric, float64 ``[n, n]``.

    Coverage needs similarities of at least 0, or taking an item could lower it:

    - ``clipped``: max(0, cosine); ``shifted``: (1 + cosine) / 2, nearly flat where all cosines are large;
    - ``centred``: max(0, cosine) after taking away the mean of the rows, which undoes a common direction;
    - ``rbf``: exp(-|x - y|^2 / 2 s^2);
    - ``fisher-rao``: the same kernel of the Fisher-Rao distance between Gaussians with diagonal covariance, a row
      being their means followed by the logarithms of their standard deviations;
    - ``fisher-rao-categorical``: that of categorical distributions, a row being the probabilities.

    Parameters
    ----------
    x
        ``[n, d]``.
    how
        One of these names, or a function from ``[n, d]`` to ``[n, n]`` with values in [0, 1].
    bandwidth
        The s of the kernels; by default the median distance between two rows.

    Raises
    ------
    UnknownName
        If the name is none of these.
    DimensionMismatch
        If the rows are not what the name asks for, or a function returns another shape.
    InputError
        If the bandwidth is not above 0, or a function returns values outside [0, 1].

    Examples
    --------
    >>> affinity([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]], "shifted").tolist()
    [[1.0, 0.5, 0.0], [0.5, 1.0, 0.5], [0.0, 0.5, 1.0]]
    """
    rows = check_vectors(x).astype(np.float64)
    if callable(how):
        return _checked(np.asarray(how(rows), np.float64), len(rows))
    if how not in get_args(Kind):
        raise UnknownName("similarity", str(how), get_args(Kind))
    if how in ("clipped", "shifted", "centred"):
        cosines = _cosines(rows - rows.mean(axis=0) if how == "centred" and len(rows) else rows)
        return (1 + cosines) / 2 if how == "shifted" else np.maximum(cosines, 0.0)
    return kernel(
        {"rbf": euclidean, "fisher-rao": gaussian, "fisher-rao-categorical": categorical}[how](rows), bandwidth
    )


def kernel(distances: Array, bandwidth: float | None = None) -> Array:
    """Gaussian kernel exp(-d^2 / 2 s^2) of distances ``[n, n]``; s is by default their median off the diagonal."""
    if bandwidth is not None and not (np.isfinite(bandwidth) and bandwidth > 0):
        raise InputError(f"The bandwidth of a kernel must be above 0, got {bandwidth!r}.")
    if bandwidth is None:
        apart = distances[~np.eye(len(distances), dtype=bool)]
        bandwidth = float(np.median(apart[apart > 0])) if (apart > 0).any() else 1.0
    return np.asarray(np.exp(-((distances / bandwidth) ** 2) / 2), np.float64)


def euclidean(x: Array) -> Array:
    """Euclidean distances between rows, ``[n, n]``."""
    squares = np.einsum("ij,ij->i", x, x)
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * (x @ x.T), 0.0))
    np.fill_diagonal(distances, 0.0)
    return np.asarray((distances + distances.T) / 2, np.float64)


def gaussian(x: Array) -> Array:
    """Fisher-Rao distances between Gaussians of diagonal covariance, ``[n, n]``; rows are (means, log deviations).

    Each coordinate is a hyperbolic half-plane: its distance is ``sqrt(2) arccosh(1 + ((m - m')^2 / 2 + (s - s')^2) /
    (2 s s'))``, and coordinates add up by Pythagoras (Costa, Santos and Strapasson, arXiv:1210.2354).

    >>> round(float(gaussian(np.array([[0.0, 0.0], [0.0, 1.0]]))[0, 1] ** 2), 6)
    2.0
    """
    if x.shape[1] % 2:
        raise DimensionMismatch(f"Gaussians need as many means as log deviations, got rows of {x.shape[1]} numbers.")
    mean, log_s = np.split(x, 2, axis=1)
    total = np.zeros((len(x), len(x)))
    for m, t in zip(mean.T, log_s.T, strict=True):
        gap = t[:, None] - t
        # (s - s')^2 / 2 s s' = cosh(log s - log s') - 1, which neither overflows nor cancels as early
        shift = ((m[:, None] - m) ** 2) / 4 * np.exp(-(t[:, None] + t))
        total += 2 * np.arccosh(np.cosh(gap) + shift) ** 2
    return np.asarray(np.sqrt(total), np.float64)


def categorical(x: Array) -> Array:
    """Fisher-Rao distances between categorical distributions, ``2 arccos(sum sqrt(p q))``, ``[n, n]``."""
    if (x < 0).any() or not np.allclose(x.sum(axis=1), 1, atol=1e-4):
        raise DimensionMismatch("Categorical distributions must be rows of probabilities that sum to 1.")
    roots = np.sqrt(x)
    roots /= np.linalg.norm(roots, axis=1, keepdims=True)
    angles = 2 * np.arccos(np.clip(roots @ roots.T, -1, 1))
    np.fill_diagonal(angles, 0.0)
    return np.asarray(angles, np.float64)


def _cosines(x: Array) -> Array:
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    unit = np.divide(x, norms, out=np.zeros_like(x), where=norms > 0)
    return np.asarray(np.clip(unit @ unit.T, -1, 1), np.float64)


def _checked(found: Array, n: int) -> Array:
    if found.shape != (n, n):
        raise DimensionMismatch(f"A similarity of {n} rows must be [{n}, {n}], got {list(found.shape)}.")
    if not ((found >= -1e-9) & (found <= 1 + 1e-9)).all():
        raise InputError("Similarities must lie in [0, 1]; clip or scale them, or coverage is not monotone.")
    return np.clip((found + found.T) / 2, 0, 1)
