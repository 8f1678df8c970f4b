"""Ridge least squares from one space to another, and how well two sets of vectors agree."""

from __future__ import annotations

from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from isometry.errors import DimensionMismatch, InputError, NotFitted
from isometry.types import FloatArray, check_vectors

Array = NDArray[np.float64]


RIDGES: Final = tuple(10.0**e for e in range(-6, 3))


class LeastSquaresMap(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Ridge least-squares map ``y = x W + b`` between the vectors of two spaces.

    The closed form of the linear output head of a frozen student (LEAF, arXiv:2509.12539), and its start otherwise.

    Parameters
    ----------
    ridge
        Penalty, relative to the mean variance of a coordinate of x; 0 for ordinary least squares, ``"auto"`` for the
        power of ten that predicts best when every row in turn is left out (in closed form).
    bias
        Whether b is fitted; it is not penalised.

    Attributes
    ----------
    weight_, bias_
        float32 ``[d', d]`` and ``[d]``.
    ridge_
        The penalty used.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(50, 3))
    >>> turned = LeastSquaresMap(ridge=0.0).fit(x, x @ np.diag([1, 2, 3]) + 1)
    >>> turned.weight_.round(4).diagonal().tolist(), turned.bias_.round(4).tolist()
    ([1.0, 2.0, 3.0], [1.0, 1.0, 1.0])
    """

    def __init__(self, *, ridge: float | Literal["auto"] = "auto", bias: bool = True) -> None:
        self.ridge, self.bias = ridge, bias

    def fit(self, X: Any, y: Any) -> Self:
        """Fit to rows ``X`` ``[n, d']`` and their targets ``y`` ``[n, d]``.

        Raises
        ------
        DimensionMismatch
            If the numbers of rows differ.
        InputError
            If there is no row, or ``ridge`` is negative.
        """
        x, targets = check_vectors(X).astype(np.float64), check_vectors(y, what="targets").astype(np.float64)
        if len(x) != len(targets):
            raise DimensionMismatch(f"{len(x)} vectors need as many targets, got {len(targets)}.")
        if not len(x) or (self.ridge != "auto" and not self.ridge >= 0):
            raise InputError(f"Least squares need a row and ridge >= 0, got {len(x)} rows, ridge={self.ridge!r}.")
        zero = np.zeros(1)
        middle, aim = (x.mean(0), targets.mean(0)) if self.bias else (zero, zero)
        x, targets = x - middle, targets - aim
        gram = x.T @ x
        self.ridge_ = self._best(x, targets, gram) if self.ridge == "auto" else float(self.ridge)
        gram.flat[:: len(gram) + 1] += self.ridge_ * np.trace(gram) / len(gram)
        weight = np.linalg.lstsq(gram, x.T @ targets, rcond=None)[0]
        shift = np.broadcast_to(aim - middle @ weight if self.bias else zero, (targets.shape[1],))
        self.weight_, self.bias_ = weight.astype(np.float32), shift.astype(np.float32)
        return self

    def _best(self, x: Array, targets: Array, gram: Array) -> float:
        """The penalty of least squared error with each row left out (Allen 1974), from one eigendecomposition."""
        values, axes = np.linalg.eigh(gram)
        z, unit = x @ axes, np.trace(gram) / len(gram)
        aims, errors = z.T @ targets, []
        for ridge in RIDGES:
            shrink = 1 / np.maximum(values + ridge * unit, 1e-12 * unit + 1e-300)
            leverage = (z**2) @ shrink + (1 / len(x) if self.bias else 0)
            left = targets - (z * shrink) @ aims
            errors.append(float(((left / np.maximum(1 - leverage, 1e-6)[:, None]) ** 2).sum()))
        return RIDGES[int(np.argmin(errors))]

    def transform(self, X: Any) -> FloatArray:
        """Map vectors ``[n, d']`` to float32 ``[n, d]``."""
        if not hasattr(self, "weight_"):
            raise NotFitted("This map has not been fitted; call fit first.")
        x = check_vectors(X, dim=len(self.weight_))
        mapped: FloatArray = x @ self.weight_ + self.bias_
        return mapped


def agreement(vectors: Any, targets: Any) -> dict[str, float]:
    """How well vectors ``[n, d]`` reproduce targets: mean cosine, mean squared distance, and centred R².

    The vectors of most encoders share a large mean, so a constant already has a high cosine; ``r2``, the share of the
    targets' variance around their mean that is explained, is 0 for it.

    >>> agreement([[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]])
    {'cosine': 1.0, 'distance': 0.0, 'r2': 1.0}
    """
    y, t = check_vectors(vectors).astype(np.float64), check_vectors(targets, what="targets").astype(np.float64)
    if y.shape != t.shape or not len(y):
        raise DimensionMismatch(f"Vectors and targets must have one shape and a row, got {y.shape} and {t.shape}.")
    norms = np.linalg.norm(y, axis=1) * np.linalg.norm(t, axis=1)
    error = ((y - t) ** 2).sum()
    spread = ((t - t.mean(0)) ** 2).sum()
    return {
        "cosine": float(((y * t).sum(1) / np.maximum(norms, 1e-12)).mean()),
        "distance": float(error / len(y)),
        "r2": float(1 - error / spread) if spread > 0 else float("nan"),
    }
