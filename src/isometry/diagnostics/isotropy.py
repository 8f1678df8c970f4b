"""How evenly vectors use their directions: mean cosine, uniformity, IsoScore, partition function, effective rank."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import logsumexp

from isometry.diagnostics.sphere import Array, blocks, unit_rows
from isometry.errors import InputError
from isometry.types import check_vectors


def mean_cosine(vectors: Any) -> float:
    """Mean cosine of two different rows (average pairwise cosine, the anisotropy of Ethayarajh, 2019).

    Computed from the sum of the unit rows, O(n d), without a matrix of pairs.

    Examples
    --------
    >>> mean_cosine([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    0.3333333333333333
    """
    unit = unit_rows(vectors)
    n = len(unit)
    if n < 2:
        raise InputError("mean cosine needs at least two vectors.")
    total = unit.sum(axis=0)
    return float((total @ total - n) / (n * (n - 1)))


def uniformity(vectors: Any, *, t: float = 2.0) -> float:
    """Uniformity of Wang and Isola (2020): log of the mean of ``exp(-t |u_i - u_j|^2)`` over pairs of unit rows.

    At most 0, lower is more uniform. Pairs are taken block by block, O(n^2 d) time and little memory.

    Examples
    --------
    >>> round(uniformity([[1.0, 0.0], [0.0, 1.0]]), 6)      # |u - v|^2 = 2
    -4.0
    """
    unit = unit_rows(vectors)
    n = len(unit)
    if n < 2 or t <= 0:
        raise InputError(f"uniformity needs at least two vectors and t > 0, got {n} and {t}.")
    total = sum(float(np.exp(2 * t * (unit[i:j] @ unit.T - 1)).sum()) for i, j in blocks(n, n))
    return float(np.log((total - n) / (n * (n - 1))))


def alignment(left: Any, right: Any, *, alpha: float = 2.0) -> float:
    """Alignment of Wang and Isola (2020): mean ``|u_i - v_i|^alpha`` of unit rows that belong together; 0 at best.

    >>> round(alignment([[1.0, 0.0]], [[0.0, 3.0]]), 6)
    2.0
    """
    u, v = unit_rows(left, "left"), unit_rows(right, "right")
    if u.shape != v.shape:
        raise InputError(f"alignment compares row i with row i: got shapes {u.shape} and {v.shape}.")
    return float((np.linalg.norm(u - v, axis=1) ** alpha).mean())


def spectrum(vectors: Any, *, center: bool = True) -> Array:
    """Eigenvalues of the covariance ``[min(n, d)]`` float64, largest first (divisor n).

    ``center=False`` gives those of the second moment, which keep the mean direction.
    """
    check_vectors(vectors)
    values = np.asarray(vectors, np.float64)
    if len(values) < 2:
        raise InputError("a spectrum needs at least two vectors.")
    if center:
        values = values - values.mean(axis=0)
    gram = values.T @ values if values.shape[1] <= len(values) else values @ values.T
    return np.asarray(np.clip(np.linalg.eigvalsh(gram)[::-1], 0.0, None) / len(values), np.float64)


def _positive(eigenvalues: Any) -> Array:
    values = np.asarray(eigenvalues, np.float64)
    if values.ndim != 1 or not values.sum() > 0 or (values < 0).any():
        raise InputError("a spectrum must be a list of non-negative eigenvalues with a positive sum: the vectors vary.")
    return values


def effective_rank(vectors: Any, *, center: bool = True) -> float:
    """Effective rank of Roy and Vetterli (2007): exp of the entropy of the normalised singular values.

    Examples
    --------
    >>> round(effective_rank([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), 6)
    2.0
    """
    return effective_rank_of(spectrum(vectors, center=center))


def effective_rank_of(eigenvalues: Any) -> float:
    """`effective_rank` from what `spectrum` returns; the singular values are the square roots."""
    singular = np.sqrt(_positive(eigenvalues))
    share = singular[singular > 0] / singular.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def participation_ratio(vectors: Any, *, center: bool = True) -> float:
    """Participation ratio (sum of eigenvalues)^2 / sum of their squares: how many directions carry the variance."""
    return participation_ratio_of(spectrum(vectors, center=center))


def participation_ratio_of(eigenvalues: Any) -> float:
    """`participation_ratio` from what `spectrum` returns.

    >>> participation_ratio_of([2.0, 2.0, 0.0])
    2.0
    """
    values = _positive(eigenvalues)
    values = values / values.max()  # squares of tiny eigenvalues would underflow
    return float(values.sum() ** 2 / (values**2).sum())


def isoscore(vectors: Any) -> float:
    """IsoScore (Rudman et al., 2022): 1 when the variance is equal in all directions, 0 when it lies in one.

    Raises
    ------
    InputError
        If the vectors are all the same, or have one dimension only.
    """
    return isoscore_of(spectrum(vectors), np.shape(vectors)[1])


def isoscore_of(eigenvalues: Any, width: int) -> float:
    """`isoscore` from what `spectrum` returns and the width of the vectors."""
    if width < 2:
        raise InputError("IsoScore compares directions and needs at least two dimensions.")
    found = _positive(eigenvalues)
    variances = np.zeros(width)
    variances[: len(found)] = found
    scaled = np.sqrt(width) * variances / np.linalg.norm(variances)
    gap = width - np.sqrt(width)
    defect = np.linalg.norm(scaled - 1.0) / np.sqrt(2.0 * gap)
    used = (width - defect**2 * gap) ** 2 / width**2  # fraction of dimensions in use, in [1 / d, 1]
    return float((width * used - 1.0) / (width - 1.0))


def partition_isotropy(vectors: Any) -> float:
    """Partition-function isotropy I(W) = min Z(c) / max Z(c), Z(c) = sum_i exp(<c, w_i>) (Mu and Viswanath, 2018).

    c runs over the eigenvectors of the second moment with both signs, since an eigenvector has none of its own. Rows
    are used at their own length; 1 is isotropic. Sums are taken in logarithms, so long vectors do not overflow.
    """
    check_vectors(vectors)
    values = np.asarray(vectors, np.float64)
    if not len(values):
        raise InputError("partition-function isotropy needs at least one vector.")
    directions = np.linalg.eigh(values.T @ values)[1]
    along = values @ directions
    logs = np.concatenate([logsumexp(along, axis=0), logsumexp(-along, axis=0)])
    return float(np.exp(logs.min() - logs.max()))
