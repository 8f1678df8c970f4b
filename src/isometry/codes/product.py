"""Product quantisation: one centroid per stretch of dimensions, distances from tables."""

# ruff: noqa: ANN001, ANN202 (numba infers the types of its kernels)
from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numba import njit

from isometry.codes.binary import random_rotations
from isometry.codes.code import Bytes, Code, check_code_size
from isometry.codes.distances import table_sums
from isometry.codes.packing import pack, unpack
from isometry.errors import DimensionMismatch, InputError
from isometry.types import FloatArray

_PER_CENTROID = 128  # training rows used for one centroid: more do not move it
_QUERIES = 64  # queries whose tables are held at once


class ProductCode(Code):
    """Product quantisation (PQ) with asymmetric and symmetric distances, optionally after a learned rotation (OPQ).

    The d dimensions are cut into M stretches, each replaced by the number of its nearest of ``2^bits`` centroids
    (k-means). `score` sums M entries of a table of the query's dot products with the centroids (ADC), `score_codes`
    of a table between centroids (SDC). Jegou, Douze and Schmid, TPAMI 2011; Ge et al., CVPR 2013 (OPQ).

    Parameters
    ----------
    parts
        Stretches M; divides d.
    bits
        8 (256 centroids each) or 4 (16).
    rotation
        ``"none"``, ``"random"`` or ``"opq"``: fitted in turn with the centroids.
    iterations
        Of k-means.
    seed
        Of the first centroids, the sample and the rotation.

    Examples
    --------
    >>> x = np.repeat(np.eye(16, dtype=np.float32), 2, axis=0)
    >>> code = ProductCode(2, bits=4).fit(x)
    >>> code.code_bytes, bool(np.allclose(code.inverse_transform(code.transform(x)), x))
    (1, True)
    """

    fitted = ("centroids_", "rotation_")

    def __init__(
        self, parts: int, *, bits: int = 8, rotation: Literal["none", "random", "opq"] = "none", iterations: int = 20,
        seed: int = 0,
    ) -> None:  # fmt: skip
        if bits not in (4, 8):
            raise InputError(f"A product code has 4 or 8 bits per part, got {bits}.")
        if rotation not in ("none", "random", "opq"):
            raise InputError(f"rotation must be 'none', 'random' or 'opq', got {rotation!r}.")
        if not isinstance(parts, int) or parts < 1:
            raise InputError(f"parts must be a whole number of at least 1, got {parts!r}.")
        if iterations < 1:
            raise InputError(f"iterations must be at least 1, got {iterations}.")
        check_code_size(parts * bits, "a product code")
        self.parts, self.bits, self.rotation, self.iterations, self.seed = parts, bits, rotation, iterations, seed

    @property
    def code_bytes(self) -> int:
        """Bytes of one vector: M bits / 8."""
        return check_code_size(self.parts * self.bits, "a product code")

    def _fit(self, x: FloatArray) -> None:
        d, k = x.shape[1], 2**self.bits
        if d % self.parts:
            raise InputError(f"{d} dimensions cannot be cut into {self.parts} equal parts; choose a divisor of {d}.")
        if len(x) < k:
            raise InputError(f"{k} centroids need as many training vectors at least, got {len(x)}.")
        rng = np.random.default_rng(self.seed)
        x = x[rng.permutation(len(x))[: _PER_CENTROID * k]]
        self.rotation_ = np.zeros((0, 0), np.float32) if self.rotation == "none" else random_rotations(d, d, self.seed)
        self.centroids_ = self._stretches(self._rotated(x))[:, :k].copy()
        if self.rotation == "opq":
            for _ in range(self.iterations):
                self._cluster(x, 1)
                u, _, vt = np.linalg.svd(x.T @ self._joined(self._digits(x)))
                self.rotation_ = np.ascontiguousarray(u @ vt, np.float32)
        self._cluster(x, self.iterations)

    def _cluster(self, x: FloatArray, iterations: int) -> None:
        for stretch, centroids in zip(self._stretches(self._rotated(x)), self.centroids_, strict=True):
            kmeans(stretch, centroids, iterations)

    def _rotated(self, x: FloatArray) -> FloatArray:
        return x @ self.rotation_ if self.rotation_.size else x

    def _stretches(self, x: FloatArray) -> FloatArray:
        """``[n, d]`` as contiguous ``[M, n, d / M]``."""
        return np.ascontiguousarray(x.reshape(len(x), self.parts, x.shape[1] // self.parts).transpose(1, 0, 2))

    def _digits(self, x: FloatArray) -> Bytes:
        digits = np.empty((len(x), self.parts), np.uint8)
        for part, stretch in enumerate(self._stretches(self._rotated(x))):
            digits[:, part] = nearest(stretch, self.centroids_[part])
        return digits

    def _joined(self, digits: Bytes) -> FloatArray:
        """Centroids side by side, still rotated."""
        return self.centroids_[np.arange(self.parts), digits].reshape(len(digits), self.dim)

    def _encode(self, x: FloatArray) -> Bytes:
        return pack(self._digits(x), self.bits)

    def _decode(self, codes: Bytes) -> FloatArray:
        joined = self._joined(unpack(codes, self.bits, self.parts))
        return joined @ self.rotation_.T if self.rotation_.size else joined

    def score(self, queries: Any, codes: Any) -> FloatArray:
        """Dot products of float queries with reconstructions by ADC tables, float32 ``[q, n]``."""
        parts = self._stretches(self._rotated(self._asked(queries)))
        return self._sums(parts.shape[1], lambda rows: parts[:, rows] @ self.centroids_.transpose(0, 2, 1), codes)

    def score_codes(self, a: Any, b: Any) -> FloatArray:
        """Dot products between reconstructions by SDC tables, float32 ``[n_a, n_b]``."""
        left = unpack(self._checked(a), self.bits, self.parts).T
        between = self.centroids_ @ self.centroids_.transpose(0, 2, 1)
        return self._sums(left.shape[1], lambda rows: between[np.arange(self.parts)[:, None], left[:, rows]], b)

    def _sums(self, count: int, tables: Callable[[slice], FloatArray], codes: Any) -> FloatArray:
        """Table sums of ``count`` queries, whose tables ``[M, rows, 2^bits]`` are made a few at a time."""
        digits = unpack(self._checked(codes), self.bits, self.parts)
        out = np.empty((count, len(digits)), np.float32)
        for start in range(0, count, _QUERIES):
            rows = slice(start, start + _QUERIES)
            out[rows] = table_sums(tables(rows).transpose(1, 0, 2), digits)
        return out


@njit(cache=True, fastmath=True, nogil=True)
def _assign(x, flipped, half, out, best):  # type: ignore[no-untyped-def]
    d, k = flipped.shape
    scores = np.empty(k, np.float32)
    for i in range(x.shape[0]):
        for c in range(k):
            scores[c] = -half[c]
        for j in range(d):
            v = x[i, j]
            for c in range(k):
                scores[c] += v * flipped[j, c]
        top = scores[0]
        for c in range(k):
            top = max(top, scores[c])
        at = 0
        while scores[at] != top:
            at += 1
        out[i], best[i] = at, top


@njit(cache=True, nogil=True)
def _totals(x, labels, sums, counts):  # type: ignore[no-untyped-def]
    for i in range(x.shape[0]):
        counts[labels[i]] += 1
        for j in range(x.shape[1]):
            sums[labels[i], j] += x[i, j]


def nearest(x: FloatArray, centroids: FloatArray) -> Any:
    """Number of the nearest centroid (Euclidean) of each row: int32 ``[n]``; of several, the first."""
    return _nearest(x, centroids)[0]


def _nearest(x: FloatArray, centroids: FloatArray) -> tuple[Any, FloatArray]:
    labels, best = np.empty(len(x), np.int32), np.empty(len(x), np.float32)
    half = np.asarray(0.5 * (centroids * centroids).sum(axis=1), np.float32)
    _assign(np.ascontiguousarray(x), np.ascontiguousarray(centroids.T), half, labels, best)
    return labels, best


def kmeans(x: FloatArray, centroids: FloatArray, iterations: int) -> None:
    """Lloyd's k-means in place: rows ``[n, d]``, starting centroids ``[k, d]``.

    A centroid that lost all its rows is put on the row farthest from its own centroid.

    Raises
    ------
    DimensionMismatch
        If the widths differ.
    InputError
        If there are fewer rows than centroids.
    """
    if x.shape[1] != centroids.shape[1]:
        raise DimensionMismatch(f"Rows are {x.shape[1]} wide and centroids {centroids.shape[1]}.")
    if len(x) < len(centroids):
        raise InputError(f"{len(centroids)} centroids need as many rows at least, got {len(x)}.")
    squares = np.asarray((x * x).sum(axis=1), np.float32)
    before = None
    for _ in range(iterations):
        labels, best = _nearest(x, centroids)
        if before is not None and np.array_equal(labels, before):
            return
        before = labels
        sums, counts = np.zeros(centroids.shape, np.float64), np.zeros(len(centroids), np.int64)
        _totals(x, labels, sums, counts)
        kept = counts > 0
        centroids[kept] = sums[kept] / counts[kept, None]
        if lost := int((~kept).sum()):
            far = np.argsort(2 * best - squares, kind="stable")[:lost]  # least similar first
            centroids[~kept] = x[far]
