"""Randomly rotated codes of 1, 4 or 8 bits a dimension, nested in each other, with unbiased dot products and bounds."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from isometry.codes.code import Bytes, Code
from isometry.codes.rotation import Rotation
from isometry.errors import InputError
from isometry.types import FloatArray

Bits = Literal[1, 4, 8]
LEVELS = {4: 7.5, 8: 127.5}  # middle of the levels 0..15 and 0..255


class Planes(NamedTuple):
    """The codes of n rows: the 8-bit level of a dimension is ``16 * high + low``, its sign is one bit.

    Parameters
    ----------
    signs
        uint64 ``[n, D / 64]``; bit j of a row is set where the residual is positive.
    high, low
        uint8 ``[n, D / 2]``: in each group of 64 bytes, byte j holds the nibbles of dimensions j and j + 64.
    factor4, factor8
        float32 ``[n]``: the residual is about ``factor4 * (high - 7.5)`` or ``factor8 * (16 high + low - 127.5)``.
    square
        float32 ``[n]``: squared norm of the residual.
    """

    signs: NDArray[np.uint64]
    high: Bytes
    low: Bytes
    factor4: FloatArray
    factor8: FloatArray
    square: FloatArray


class RotatedCode(Code):
    """RaBitQ-style code: centre, rotate at random, keep the sign or a level of each dimension.

    With ``r`` the rotated residual and ``c`` its centred levels, ``<q, r>`` is estimated by
    ``<q, c> |r|^2 / <r, c>``, which the random rotation makes unbiased; `bound` says how far it may be off
    (Gao & Long, RaBitQ, arXiv:2405.12497, theorem 3.2; several bits: arXiv:2409.09913).

    Differs from the paper: levels are the leading bits of one uniform 8-bit grid over ``[-max|r|, max|r|]``, so the
    1- and 4-bit codes are parts of the 8-bit code and an index may look at them one after the other.

    Parameters
    ----------
    bits
        Per dimension: 1, 4 or 8. Widths are rounded up to a multiple of 128.
    seed
        Of the rotation.
    centre
        Whether to subtract the mean of the training vectors.

    >>> import numpy as np
    >>> x = np.random.default_rng(0).standard_normal((50, 32)).astype(np.float32)
    >>> code = RotatedCode(8).fit(x)
    >>> code.code_bytes, bool(np.abs(code.inverse_transform(code.transform(x)) - x).max() < 0.1)
    (136, True)
    """

    fitted = ("mean_",)
    mean_: FloatArray

    def __init__(self, bits: Bits = 4, *, seed: int = 0, centre: bool = True) -> None:
        if bits not in get_args(Bits):
            raise InputError(f"bits must be 1, 4 or 8 per dimension, got {bits!r}.")
        self.bits, self.seed, self.centre = bits, seed, centre
        self._rotation: Rotation | None = None

    @property
    def rotation(self) -> Rotation:
        """The rotation, made from the seed."""
        if self._rotation is None or self._rotation.dim != self.dim:
            self._rotation = Rotation(self.dim, self.seed)
        return self._rotation

    @property
    def width(self) -> int:
        """Dimensions after the rotation, D: d rounded up to a multiple of 128."""
        return self.rotation.width

    @property
    def code_bytes(self) -> int:
        """Bytes of a row: the levels, a factor and the squared norm."""
        return self.width * self.bits // 8 + 8

    def _fit(self, x: FloatArray) -> None:
        self.mean_ = x.mean(axis=0, dtype=np.float64).astype(np.float32) if self.centre else np.zeros_like(x[0])

    def planes(self, x: FloatArray) -> Planes:
        """Encode float32 ``[n, d]`` at every level."""
        n, width = len(x), self.width
        out = Planes(
            np.empty((n, width // 64), np.uint64), np.empty((n, width // 2), np.uint8),
            np.empty((n, width // 2), np.uint8), *(np.empty(n, np.float32) for _ in range(3)),
        )  # fmt: skip
        from isometry.codes.rotated_kernels import quantise

        for start in range(0, n, 2048):
            part = slice(start, start + 2048)
            residual = self.rotation.apply(x[part] - self.mean_)
            out.signs[part] = np.packbits(residual > 0, axis=1, bitorder="little").view("<u8")
            quantise(residual, out.high[part], out.low[part], out.factor4[part], out.factor8[part], out.square[part])
        return out

    def _encode(self, x: FloatArray) -> Bytes:
        planes = self.planes(x)
        if self.bits == 1:
            levels, centred = [planes.signs.view(np.uint8)], None
        else:
            levels, centred = [planes.high, planes.low][: self.bits // 4], [planes.factor4, planes.factor8]
        factor = _sign_factor(x, self) if centred is None else centred[self.bits // 4 - 1]
        numbers = np.stack([factor, planes.square], axis=1).astype("<f4").view(np.uint8)
        return np.ascontiguousarray(np.concatenate([*levels, numbers], axis=1))

    def _decode(self, codes: Bytes) -> FloatArray:
        factor, _ = _numbers(codes)
        return self.rotation.undo(self.levels(codes) * factor[:, None]) + self.mean_

    def score(self, queries: Any, codes: Any) -> FloatArray:
        """Estimate dot products of queries ``[q, d]`` with coded vectors, float32 ``[q, n]``.

        For 4 bits the query is rounded to a byte a dimension first, which adds a tenth of the code's own error.
        """
        from isometry.codes.rotated_kernels import score_bytes, score_nibbles

        queries, codes = self._asked(queries), self._checked(codes)
        asked, offset = self.rotation.apply(queries), queries @ self.mean_
        factor = _numbers(codes)[0].copy()
        if self.bits == 1:
            scores: FloatArray = self._by_block(
                codes, lambda part: asked @ self.levels(part).T * _numbers(part)[0], len(queries)
            )
            return np.asarray(scores + offset[:, None], np.float32)
        out = np.empty((len(queries), len(codes)), np.float32)
        for query, row in zip(asked, out, strict=True):
            if self.bits == 8:
                score_bytes(codes, factor, query, row)
                continue
            step = np.float32(np.abs(query).max() / 127)
            rounded = np.rint(query / (step or 1)).astype(np.int8)
            score_nibbles(codes, factor, rounded, step, row)
        return np.asarray(out + offset[:, None], np.float32)

    def levels(self, codes: Bytes) -> FloatArray:
        """Return the centred levels of packed codes, float32 ``[n, D]``."""
        body = np.ascontiguousarray(codes[:, :-8])
        if self.bits == 1:
            return np.unpackbits(body, axis=1, bitorder="little").astype(np.float32) * 2 - 1
        high = unpack_nibbles(body[:, : self.width // 2])
        if self.bits == 4:
            return high.astype(np.float32) - np.float32(LEVELS[4])
        return 16 * high.astype(np.float32) + unpack_nibbles(body[:, self.width // 2 :]) - np.float32(LEVELS[8])

    def bound(self, queries: FloatArray, codes: Bytes, *, epsilon: float = 1.9) -> FloatArray:
        """How far `score` may be off, float32 ``[q, n]``: holds with probability at least ``1 - 2 exp(-c epsilon^2)``.

        The constant of the paper's theorem 3.2 is not given; 1.9 is the value its experiments use (about 95 %).
        """
        factor, square = _numbers(self._checked(codes))
        levels = self.levels(codes)
        length = factor * np.sqrt(np.einsum("nd,nd->n", levels, levels))  # of the estimated residual: |r| / cosine
        spread = np.sqrt(np.maximum(length**2 - square, 0))
        asked = np.linalg.norm(queries, axis=1)
        return np.asarray(epsilon * asked[:, None] * spread / np.sqrt(max(1, self.width - 1)), np.float32)


def unpack_nibbles(packed: Bytes) -> Bytes:
    """Nibbles of uint8 ``[n, D / 2]`` as uint8 ``[n, D]``, in the order of the dimensions."""
    groups = packed.reshape(len(packed), -1, 64)
    return np.stack([groups & 15, groups >> 4], axis=2).reshape(len(packed), -1)


def _numbers(codes: Bytes) -> tuple[FloatArray, FloatArray]:
    numbers = np.ascontiguousarray(codes[:, -8:]).view("<f4").astype(np.float32, copy=False)
    return numbers[:, 0], numbers[:, 1]


def _sign_factor(x: FloatArray, code: RotatedCode) -> Any:
    residual = code.rotation.apply(x - code.mean_)
    total = np.abs(residual).sum(axis=1)
    square = np.einsum("nd,nd->n", residual, residual)
    return np.divide(square, total, out=np.zeros_like(total), where=total > 0)
