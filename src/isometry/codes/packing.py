"""Small integers to packed bytes and back; the first value of a row takes the lowest bits of its first byte."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


def pack(digits: NDArray[np.uint8], bits: int) -> Bytes:
    """Pack uint8 ``[n, m]`` below ``2 ** bits`` (bits 1, 2, 4 or 8) into uint8 ``[n, ceil(m bits / 8)]``.

    >>> pack(np.array([[1, 2, 3]], np.uint8), 4).tolist()
    [[33, 3]]
    """
    if bits == 1:
        return np.packbits(digits, axis=1, bitorder="little")
    if bits == 8:
        return np.ascontiguousarray(digits, np.uint8)
    per = 8 // bits
    full = np.zeros((len(digits), -(-digits.shape[1] // per) * per), np.uint8)
    full[:, : digits.shape[1]] = digits
    out = full[:, ::per].copy()
    for i in range(1, per):
        out |= full[:, i::per] << np.uint8(i * bits)
    return out


def unpack(codes: Bytes, bits: int, count: int) -> Bytes:
    """Return the first ``count`` values of each row: uint8 ``[n, count]``, the inverse of `pack`.

    >>> unpack(pack(np.array([[1, 2, 3]], np.uint8), 4), 4, 3).tolist()
    [[1, 2, 3]]
    """
    if bits == 1:
        return np.unpackbits(codes, axis=1, count=count, bitorder="little")
    if bits == 8:
        return np.ascontiguousarray(codes[:, :count])
    per, mask = 8 // bits, np.uint8(2**bits - 1)
    out = np.empty((len(codes), codes.shape[1] * per), np.uint8)
    for i in range(per):
        out[:, i::per] = (codes >> np.uint8(i * bits)) & mask
    return np.ascontiguousarray(out[:, :count])
