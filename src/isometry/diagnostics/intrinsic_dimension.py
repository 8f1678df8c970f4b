"""How many dimensions the vectors really vary in, from the distances to near neighbours."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from isometry.diagnostics.neighbours import knn
from isometry.diagnostics.sphere import Array
from isometry.errors import InputError


def lid_of_distances(distances: Any, *, bias_corrected: bool = True) -> Array:
    """Pointwise local intrinsic dimension, Hill / maximum likelihood (Levina and Bickel, 2004; Amsaleg et al., 2015).

    Parameters
    ----------
    distances
        Ascending distances to the k nearest neighbours ``[n, k]``, of exact search. Zero distances (duplicates) are
        dropped, so a row may count fewer than k.
    bias_corrected
        Divide by the k - 1 terms that are not zero by construction, (k - 1) / sum ln(r_k / r_i); False divides by k.

    Returns
    -------
    NDArray
        float64 ``[n]``: NaN where fewer than two positive distances are left, infinity where they are all equal.

    Examples
    --------
    >>> lid_of_distances([[0.0, 0.5, 1.0]]).round(4).tolist()
    [1.4427]
    """
    values = np.asarray(distances, np.float64)
    if values.ndim != 2 or (values < 0).any() or (np.diff(values, axis=1) < 0).any():
        raise InputError("distances must be a matrix [n, k] of ascending, non-negative numbers.")
    positive = values > 0
    counts = positive.sum(axis=1)
    logs = np.log(values, out=np.zeros_like(values), where=positive)
    sums = counts * logs[:, -1] - logs.sum(axis=1) if values.shape[1] else np.zeros(len(values))
    # Equal distances sum to zero up to rounding.
    sums = np.where(sums < 1e-12 * np.maximum(counts, 1), 0.0, sums)
    with np.errstate(divide="ignore", invalid="ignore"):
        result = (counts - int(bias_corrected)) / sums
    return np.asarray(np.where(counts >= 2, result, np.nan), np.float64)


def lid(vectors: Any, k: int = 20, *, bias_corrected: bool = True) -> Array:
    """Pointwise local intrinsic dimension of every row from its k exact neighbours, float64 ``[n]``.

    Euclidean distances; give unit rows to study the sphere. See `lid_of_distances` for the estimator, for NaN and for
    infinity. The estimate is biased downwards where the dimension is above about 20.
    """
    return lid_of_distances(knn(vectors, k)[0], bias_corrected=bias_corrected)


def mle_dimension(local: Any, aggregate: Literal["harmonic", "mean"] = "harmonic") -> float:
    """Dimension of a whole set from pointwise ones, leaving out NaN.

    Parameters
    ----------
    local
        What `lid` returns.
    aggregate
        ``"harmonic"``: the inverse of the mean inverse, the likelihood's own average (MacKay and Ghahramani, 2005),
        robust to large values; ``"mean"``: Levina and Bickel's arithmetic mean over the finite ones.
    """
    values = np.asarray(local, np.float64)
    values = values[~np.isnan(values)]
    finite = values[np.isfinite(values)]
    if not len(finite):
        raise InputError("no row has two different distances to its neighbours; the rows are duplicates of each other.")
    return float(1.0 / np.mean(1.0 / values)) if aggregate == "harmonic" else float(finite.mean())


def two_nn(vectors: Any, discard: float = 0.1) -> float:
    """TwoNN intrinsic dimension (Facco et al., 2017): from the ratio of the distances to two neighbours.

    Duplicates are merged first, since a ratio by zero says nothing. The slope of -ln(1 - F) on ln(r2 / r1) is fitted
    through the origin, without the largest ``discard`` of the ratios.

    Raises
    ------
    InputError
        If fewer than three distinct rows are there, or ``discard`` is not in [0, 1).
    """
    distinct = np.unique(np.asarray(vectors), axis=0)
    if len(distinct) < 3:
        raise InputError(f"TwoNN needs at least three distinct vectors, got {len(distinct)}.")
    return two_nn_of_distances(knn(distinct, 2)[0], discard)


def two_nn_of_distances(distances: NDArray[np.float64], discard: float = 0.1) -> float:
    """`two_nn` from ascending distances ``[n, >= 2]``; rows with a duplicate beside them are left out."""
    if not 0.0 <= discard < 1.0:
        raise InputError(f"discard must lie in [0, 1), got {discard}.")
    first, second = distances[:, 0], distances[:, 1]
    kept = first > 0
    ratios = np.sort(np.log(second[kept] / first[kept]))
    use = int(len(ratios) * (1.0 - discard))
    x = ratios[:use]
    if not x.any():
        raise InputError("TwoNN needs rows whose two nearest neighbours are at different, positive distances.")
    # The fraction of ratios strictly below the i-th keeps the logarithm finite.
    y = -np.log1p(-np.arange(use) / len(ratios))
    return float(x @ y / (x @ x))
