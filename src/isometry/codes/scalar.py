"""Uniform scalar quantisation: every dimension on its own, 1, 2, 4 or 8 bits each."""

from __future__ import annotations

from typing import Literal

import numpy as np

from isometry.codes.code import Bytes, Code, check_code_size
from isometry.codes.packing import pack, unpack
from isometry.errors import InputError
from isometry.types import FloatArray

# Range of the uniform quantiser of least squared error for a normal distribution, as the probability cut off at each
# end (J. Max, Quantizing for Minimum Distortion, IRE Trans. Inf. Theory 1960, table II).
_TAILS = {1: 0.0552, 2: 0.0232, 4: 0.0037, 8: 4e-5}


class ScalarCode(Code):
    """Uniform scalar quantisation (int8, int4, int2, int1) with a range per row or per dimension.

    A range ``[lo, hi]`` is cut into ``2^bits`` equal steps and a value becomes the middle of its step, so inside the
    range it moves by half a step at most: ``|<q, x> - <q, x^>| <= |q|_1 step / 2``.

    Parameters
    ----------
    bits
        1, 2, 4 or 8 per dimension.
    ranges
        ``"row"``: ``[-max |x_j|, max |x_j|]`` of each vector, nothing is cut off, four bytes more per vector;
        ``"dimension"``: quantiles of the training vectors, values beyond are moved to the border.
    tail
        Share of the training values cut off at each end (``ranges="dimension"``); default: the best for normal
        values.

    Examples
    --------
    >>> x = np.array([[0.5, -1.0], [0.25, 0.0]], np.float32)
    >>> code = ScalarCode(8, ranges="row").fit(x)
    >>> code.code_bytes, bool(abs(code.inverse_transform(code.transform(x)) - x).max() <= 1 / 256)
    (6, True)
    """

    fitted = ("lo_", "step_")

    def __init__(
        self, bits: int = 8, *, ranges: Literal["row", "dimension"] = "dimension", tail: float | None = None
    ) -> None:
        if bits not in _TAILS:
            raise InputError(f"A scalar code has 1, 2, 4 or 8 bits per dimension, got {bits}.")
        if ranges not in ("row", "dimension"):
            raise InputError(f"ranges must be 'row' or 'dimension', got {ranges!r}.")
        if tail is not None and not 0 <= tail < 0.5:
            raise InputError(f"tail must be a share in [0, 0.5), got {tail}.")
        self.bits, self.ranges, self.tail = bits, ranges, tail

    @property
    def code_bytes(self) -> int:
        """Bytes of one vector: d bits / 8, and four for the range where each row has its own."""
        return check_code_size(self.dim * self.bits, "a scalar code") + 4 * (self.ranges == "row")

    def _fit(self, x: FloatArray) -> None:
        check_code_size(x.shape[1] * self.bits, "a scalar code")
        self.lo_ = self.step_ = np.zeros(0, np.float32)
        if self.ranges == "dimension":
            tail = _TAILS[self.bits] if self.tail is None else self.tail
            lo, hi = np.quantile(x, [tail, 1 - tail], axis=0)
            self.lo_, self.step_ = lo.astype(np.float32), ((hi - lo) / 2**self.bits).astype(np.float32)

    def _encode(self, x: FloatArray) -> Bytes:
        if self.ranges == "dimension":
            return pack(self._digits(x, self.lo_, self.step_), self.bits)
        largest = np.abs(x).max(axis=1, keepdims=True)
        digits = self._digits(x, -largest, largest * np.float32(2.0 ** (1 - self.bits)))
        return np.hstack([pack(digits, self.bits), largest.astype("<f4").view(np.uint8)])

    def _digits(self, x: FloatArray, lo: FloatArray, step: FloatArray) -> Bytes:
        safe = np.where(step > 0, step, np.float32(1))
        return np.clip((x - lo) / safe, 0, 2**self.bits - 1).astype(np.uint8)

    def _decode(self, codes: Bytes) -> FloatArray:
        if self.ranges == "dimension":
            lo, step = self.lo_, self.step_
        else:
            largest = np.ascontiguousarray(codes[:, -4:]).view("<f4")
            lo, step = -largest, largest * np.float32(2.0 ** (1 - self.bits))
        return lo + (unpack(codes, self.bits, self.dim) + np.float32(0.5)) * step
