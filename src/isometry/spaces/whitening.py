"""Linear maps that make vectors isotropic: whitening (ZCA, PCA, Cholesky) and independent components."""

from __future__ import annotations

import inspect
import json
import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from isometry.errors import CorruptStore, DataWarning, InputError, NotFitted, UnknownName
from isometry.files import write_whole
from isometry.numerics.whitening import KINDS, Kind, whitening_matrix
from isometry.types import FloatArray, check_vectors

Array = NDArray[np.float64]


class LinearSpace(ABC):
    """Base: ``z = (x - mean) matrix``, with scikit-learn's methods and one safetensors file.

    Attributes
    ----------
    mean_, matrix_, inverse_
        float32 ``[d]``, ``[d, k]`` and ``[k, d]`` after `fit`; `inverse_` is the pseudo-inverse of `matrix_`.
    """

    mean_: FloatArray | None = None
    matrix_: FloatArray
    inverse_: FloatArray

    @abstractmethod
    def _fit(self, x: Array) -> tuple[Array, Array]:
        """Return the mean ``[d]`` and the matrix ``[d, k]`` learned from ``[n, d]``."""

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn the map from training vectors ``[n, d]``; ``y`` is ignored.

        Raises
        ------
        DimensionMismatch
            If X is no finite matrix.
        InputError
            If its rows do not determine the map.
        """
        mean, matrix = self._fit(check_vectors(X, what="training vectors").astype(np.float64))
        self.mean_, self.matrix_ = mean.astype(np.float32), np.ascontiguousarray(matrix, np.float32)
        self.inverse_ = np.ascontiguousarray(np.linalg.pinv(matrix), np.float32)
        return self

    def _fitted(self) -> FloatArray:
        if self.mean_ is None:
            raise NotFitted(f"This {type(self).__name__} is not fitted yet; call fit with training vectors first.")
        return self.mean_

    def transform(self, X: Any) -> FloatArray:
        """Map ``[n, d]`` to float32 ``[n, k]``."""
        mean = self._fitted()
        return np.asarray((check_vectors(X, dim=len(mean)) - mean) @ self.matrix_, np.float32)

    def fit_transform(self, X: Any, y: Any = None) -> FloatArray:
        """`fit`, then `transform`."""
        return self.fit(X, y).transform(X)

    def inverse_transform(self, Z: Any) -> FloatArray:
        """Map ``[n, k]`` back to float32 ``[n, d]``: exact where k = d, else the nearest point of the kept axes."""
        mean = self._fitted()
        return np.asarray(check_vectors(Z, dim=len(self.inverse_)) @ self.inverse_ + mean, np.float32)

    def get_params(self, deep: bool = False) -> dict[str, Any]:
        """Return the parameters of ``__init__`` (``deep`` is scikit-learn's and changes nothing)."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **params: Any) -> Self:
        """Set parameters of ``__init__``, checked as there; what was fitted is forgotten."""
        self.__init__(**{**self.get_params(), **params})  # type: ignore[misc]
        self.mean_ = None
        return self

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, whole or not at all; the parameters are JSON in its header."""
        from safetensors.numpy import save

        arrays = {"mean": self._fitted(), "matrix": self.matrix_, "inverse": self.inverse_}
        header = {"class": type(self).__name__, "params": self.get_params()}
        write_whole(path, save(arrays, metadata={"isometry.space": json.dumps(header, sort_keys=True)}))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        CorruptStore
            If the file is not one of this class, or is broken.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                header = json.loads((file.metadata() or {})["isometry.space"])
                if header["class"] != cls.__name__:
                    raise CorruptStore(f"{path} holds a {header['class']}, not a {cls.__name__}.")
                space = cls(**header["params"])
                space.mean_, space.matrix_, space.inverse_ = (
                    file.get_tensor(name) for name in ("mean", "matrix", "inverse")
                )
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise CorruptStore(f"{path} is no file of a {cls.__name__}, or it is broken ({error}).") from error
        return space


class Whitening(LinearSpace):
    """Whitening transform: zero mean and unit covariance (ZCA / Mahalanobis, PCA or Cholesky), or so within groups.

    Fit it on training vectors and apply it to others; cosines of the result are those of the Mahalanobis metric. It
    helps vectors that were never tuned for similarity, and often harms vectors that were.

    Parameters
    ----------
    kind
        ``"zca"`` stays closest to the input; ``"pca"`` has axes by falling variance, so it can be cut; ``"cholesky"``.
    dim
        Axes kept, for ``"pca"`` only; None: all.
    groups
        Number of groups of channels, a divisor of d, each whitened alone; d groups standardise every channel.
    shrinkage
        Share s in [0, 1] of ``mean variance * I`` mixed into the covariance, or ``"auto"`` for that of Ledoit and Wolf
        (2004). Above 0 the result is only nearly white, and few rows suffice.
    seed
        Which channels form a group; None takes them in order.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(500, 3)) @ [[2, 0, 0], [1, 1, 0], [0, 1, 0.1]]
    >>> np.abs(np.cov(Whitening().fit_transform(x).T, bias=True) - np.eye(3)).max() < 1e-4
    np.True_
    """

    def __init__(
        self, kind: Kind = "zca", *, dim: int | None = None, groups: int = 1,
        shrinkage: float | Literal["auto"] = 0.0, seed: int | None = None,
    ) -> None:  # fmt: skip
        if kind not in KINDS:
            raise UnknownName("whitening", str(kind), KINDS)
        if dim is not None and (kind != "pca" or groups != 1 or dim < 1):
            raise InputError(f"dim={dim} needs kind='pca' and one group: only principal axes can be cut.")
        if groups < 1 or (shrinkage != "auto" and not 0 <= float(shrinkage) <= 1):
            raise InputError(f"Whitening needs groups >= 1 and shrinkage in [0, 1], got {groups} and {shrinkage}.")
        self.kind, self.dim, self.groups, self.shrinkage, self.seed = kind, dim, groups, shrinkage, seed

    def _fit(self, x: Array) -> tuple[Array, Array]:
        n, d = x.shape
        if n < 2 or not d or d % self.groups or (self.dim or 1) > d:
            raise InputError(f"{n} rows of width {d} cannot be whitened with groups={self.groups}, dim={self.dim}.")
        order = np.arange(d) if self.seed is None else np.random.default_rng(self.seed).permutation(d)
        mean, matrix = x.mean(axis=0), np.zeros((d, d))
        for channels in order.reshape(self.groups, -1):
            matrix[np.ix_(channels, channels)] = self._block(x[:, channels] - mean[channels])
        return mean, matrix[:, : self.dim]

    def _block(self, x: Array) -> Array:
        covariance = x.T @ x / len(x)
        size = len(covariance)
        if self.shrinkage:
            share: Any = self.shrinkage
            if share == "auto":
                from sklearn.covariance import ledoit_wolf_shrinkage

                share = ledoit_wolf_shrinkage(x, assume_centered=True)
            covariance = (1 - share) * covariance + share * np.trace(covariance) / size * np.eye(size)
        elif self.dim is not None:
            return _leading(covariance, self.dim)
        if np.linalg.eigvalsh(covariance)[0] <= 1e-12 * np.trace(covariance) / size:
            raise InputError(
                f"The covariance of {len(x)} rows in {size} channels is singular; give more rows, set shrinkage, "
                "more groups, or kind='pca' with dim."
            )
        found = whitening_matrix(covariance, self.kind, linalg=np.linalg)
        return _signed(found) if self.kind == "pca" else np.asarray(found)


def _leading(covariance: Array, dim: int) -> Array:
    """PCA whitening of the leading axes alone, in the first columns: the others may have no variance."""
    values, vectors = np.linalg.eigh(covariance)
    if values[-dim] <= 1e-12 * values.mean():
        raise InputError(f"The vectors vary in fewer than dim={dim} directions; lower dim.")
    kept = np.zeros_like(covariance)
    kept[:, :dim] = _signed((vectors[:, -dim:] * values[-dim:] ** -0.5)[:, ::-1])
    return kept


def _signed(matrix: Array) -> Array:
    """Turn each column so that its largest entry is positive: an axis has no sign of its own."""
    largest = np.take_along_axis(matrix, np.abs(matrix).argmax(axis=0)[None], axis=0)
    return matrix * np.where(largest < 0, -1.0, 1.0)


class ICA(LinearSpace):
    """Independent component analysis of standardised columns (FastICA, Hyvarinen 1999; logcosh, unit variance).

    Where FastICA does not converge, or rows are fewer than 2 per column, PCA whitening takes its place and a
    `DataWarning` says so: equally isotropic, without the independence.

    Parameters
    ----------
    dim
        Components kept; None: as many as the standardised columns vary in (variance above 1e-6 of the mean), since
        scaling up what is but rounding makes noise of it.
    scale
        Factor of the result. As targets of a softmax it is nothing but an inverse temperature.
    max_iter, tol
        Of FastICA.
    seed
        Its first guess; order and signs of components depend on it, distances between vectors hardly.

    Attributes
    ----------
    converged_
        Whether the components are FastICA's.
    """

    converged_: bool = False

    def __init__(
        self, dim: int | None = None, *, scale: float = 1.0, max_iter: int = 1000, tol: float = 1e-4, seed: int = 42
    ) -> None:
        if (dim is not None and dim < 1) or scale <= 0 or max_iter < 1 or tol <= 0:
            raise InputError(f"ICA needs dim, scale, max_iter and tol above 0, got {dim}, {scale}, {max_iter}, {tol}.")
        self.dim, self.scale, self.max_iter, self.tol, self.seed = dim, scale, max_iter, tol, seed

    def _fit(self, x: Array) -> tuple[Array, Array]:
        from sklearn.decomposition import FastICA
        from sklearn.exceptions import ConvergenceWarning

        n, d = x.shape
        mean, spread = x.mean(axis=0), x.std(axis=0)
        if n <= (self.dim or 1) or (self.dim or 1) > d or not (spread > 0).all():
            raise InputError(f"{n} rows of width {d} do not determine the components; give more rows that vary.")
        standard = (x - mean) / spread
        covariance = standard.T @ standard / n
        dim = self.dim or int((np.linalg.eigvalsh(covariance) > 1e-6).sum())  # the mean of its eigenvalues is 1
        self.converged_ = False
        problem = f"{n} rows are fewer than 2 per column ({d})"
        if n >= 2 * d:
            fast = FastICA(dim, whiten="unit-variance", fun="logcosh", whiten_solver="eigh",
                           max_iter=self.max_iter, tol=self.tol, random_state=self.seed)  # fmt: skip
            with warnings.catch_warnings():
                warnings.simplefilter("error", ConvergenceWarning)
                try:
                    fast.fit(standard)
                    self.converged_ = True
                except ConvergenceWarning:
                    problem = f"FastICA did not converge in {self.max_iter} iterations"
        if self.converged_:
            return mean, fast.components_.T / spread[:, None] * self.scale
        warnings.warn(f"{problem}: PCA whitening takes the place of ICA.", DataWarning, stacklevel=4)
        return mean, _leading(covariance, dim)[:, :dim] / spread[:, None] * self.scale
