"""Fewer dimensions, then any code: truncated SVD or principal components."""

from __future__ import annotations

import numpy as np

from isometry.codes.code import Bytes, Code
from isometry.errors import InputError
from isometry.types import FloatArray


class LowRankCode(Code):
    """Truncated SVD (or PCA) to r dimensions, kept as float32 or by another code.

    Of the training vectors, the squared error of the reconstruction is the sum of the squared singular values left
    out (Eckart and Young 1936), as long as the r numbers are kept as they are.

    Parameters
    ----------
    rank
        Dimensions r kept.
    inner
        Code of the r numbers; None keeps them as float32.
    center
        Subtract the training mean first (PCA); False: SVD of the vectors as they are.

    Examples
    --------
    >>> code = LowRankCode(1).fit([[3.0, 4.0], [6.0, 8.0]])
    >>> code.inverse_transform(code.transform([[3.0, 4.0]])).round(4).tolist()
    [[3.0, 4.0]]
    """

    fitted = ("mean_", "axes_")

    def __init__(self, rank: int, inner: Code | None = None, *, center: bool = False) -> None:
        if rank < 1:
            raise InputError(f"rank must be at least 1, got {rank}.")
        self.rank, self.inner, self.center = rank, inner, center

    @property
    def code_bytes(self) -> int:
        """Bytes of one vector: those of the inner code, or 4 r."""
        return 4 * self.rank if self.inner is None else self.inner.code_bytes

    def _fit(self, x: FloatArray) -> None:
        if self.rank > min(x.shape):
            raise InputError(f"rank {self.rank} exceeds what {len(x)} training vectors of width {x.shape[1]} have.")
        self.mean_ = x.mean(axis=0) if self.center else np.zeros(x.shape[1], np.float32)
        centred = (x - self.mean_).astype(np.float64)
        _, vectors = np.linalg.eigh(centred.T @ centred)
        self.axes_ = np.ascontiguousarray(vectors[:, ::-1][:, : self.rank], np.float32)
        if self.inner is not None:
            self.inner.fit(self._reduced(x))

    def _reduced(self, x: FloatArray) -> FloatArray:
        return np.asarray((x - self.mean_) @ self.axes_, np.float32)

    def _encode(self, x: FloatArray) -> Bytes:
        z = self._reduced(x)
        return np.ascontiguousarray(z, "<f4").view(np.uint8) if self.inner is None else self.inner.transform(z)

    def _decode(self, codes: Bytes) -> FloatArray:
        z = codes.view("<f4") if self.inner is None else self.inner.inverse_transform(codes)
        return np.asarray(z @ self.axes_.T + self.mean_, np.float32)
