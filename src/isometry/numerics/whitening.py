"""Matrices that whiten: from a covariance to W with ``W' C W = I``, for numpy and torch alike."""

from __future__ import annotations

from typing import Any, Literal

Kind = Literal["zca", "pca", "cholesky"]
KINDS: tuple[Kind, ...] = ("zca", "pca", "cholesky")


def whitening_matrix(covariance: Any, kind: Kind, *, linalg: Any) -> Any:
    """Return W ``[..., d, d]`` such that rows ``x W`` have covariance I (Kessy et al. 2018, "Optimal whitening").

    Parameters
    ----------
    covariance
        Positive definite ``[..., d, d]``, an array or a tensor.
    kind
        ``"zca"`` the symmetric root, closest to the input; ``"pca"`` principal axes, largest variance first;
        ``"cholesky"`` the lower triangular root of the precision matrix.
    linalg
        ``numpy.linalg`` or ``torch.linalg``, whichever the covariance is of.

    Notes
    -----
    The gradient through the eigenvectors holds ``1 / (l_i - l_j)``: it is undefined where eigenvalues tie.
    `newton_schulz` has no such trouble.

    Examples
    --------
    >>> import numpy as np
    >>> whitening_matrix(np.diag([4.0, 0.25]), "zca", linalg=np.linalg).tolist()
    [[0.5, 0.0], [0.0, 2.0]]
    """
    if kind == "cholesky":
        return linalg.cholesky(linalg.inv(covariance))
    values, vectors = linalg.eigh(covariance)
    scaled = vectors * values[..., None, :] ** -0.5
    if kind == "zca":
        return scaled @ vectors.mT
    order = list(range(scaled.shape[-1]))[::-1]
    return scaled[..., order]


def newton_schulz(covariance: Any, identity: Any, iterations: int) -> Any:
    """Return about ``C^(-1/2)`` ``[..., d, d]`` by products alone (coupled Newton-Schulz iteration, Higham 2008).

    The covariance is divided by its trace, so that the iteration converges (as in IterNorm, Huang et al. 2019);
    directions whose share of the trace is below about ``1.5^(-2 iterations)`` are not fully whitened.

    Parameters
    ----------
    identity
        I ``[d, d]`` of the same kind as the covariance.
    """
    trace = (covariance * identity).sum(-1).sum(-1)[..., None, None]
    root, inverse = covariance / trace, identity
    for _ in range(iterations):
        step = 1.5 * identity - 0.5 * (inverse @ root)
        root, inverse = root @ step, step @ inverse
    return inverse * trace**-0.5
