"""Distances between packed codes: Hamming by popcount, table sums, and four exact dot products of multi-level codes.

A multi-level code of u refinements holds u + 1 bit planes of m bits: plane 0 the signs, plane j the signs of weight
``2^-j``. Its value ``b = sum_j 2^-j s_j`` is ``w / 2^u`` for the odd integer ``w = sum_j 2^(u - j) s_j``, so a dot
product of two codes is an integer over ``4^u`` and every exact implementation gives the same float32.
"""

# ruff: noqa: ANN001, ANN202 (numba infers the types of its kernels)
from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from isometry.codes.packing import Bytes
from isometry.errors import DimensionMismatch, InputError, UnknownName
from isometry.types import FloatArray

Method = Literal["integer", "float", "popcount", "table"]
METHODS: tuple[Method, ...] = ("integer", "float", "popcount", "table")
_ROWS = 4096  # documents per block
_M1, _M2, _M4, _ONES = (np.uint64(v) for v in (0x5555555555555555, 0x3333333333333333, 0x0F0F0F0F0F0F0F0F,
                                              0x0101010101010101))  # fmt: skip
_1, _2, _4, _56 = (np.uint64(v) for v in (1, 2, 4, 56))


@njit(cache=True, nogil=True, inline="always")
def _ones(x):  # type: ignore[no-untyped-def]  # the compiler turns these steps into its population count
    x = x - ((x >> _1) & _M1)
    x = (x & _M2) + ((x >> _2) & _M2)
    x = (x + (x >> _4)) & _M4
    return (x * _ONES) >> _56


@njit(cache=True, nogil=True)
def _hamming(a, b, out):  # type: ignore[no-untyped-def]
    for j in range(b.shape[0]):
        for i in range(a.shape[0]):
            total = np.uint64(0)
            for w in range(a.shape[1]):
                total += _ones(a[i, w] ^ b[j, w])
            out[i, j] = total


@njit(cache=True, nogil=True)
def _table_sums(tables, digits, out):  # type: ignore[no-untyped-def]
    for i in range(tables.shape[0]):
        for j in range(digits.shape[0]):
            total = np.float32(0)
            for part in range(digits.shape[1]):
                total += tables[i, part, digits[j, part]]
            out[i, j] = total


@njit(cache=True, nogil=True)
def _pair_sums(table, a, b, width, out):  # type: ignore[no-untyped-def]
    for i in range(a.shape[0]):
        for j in range(b.shape[0]):
            total = np.int32(0)
            for t in range(a.shape[1]):
                total += table[(np.int32(a[i, t]) << width) | np.int32(b[j, t])]
            out[i, j] = total


def hamming(a: Bytes, b: Bytes) -> NDArray[np.int32]:
    """Return the number of differing bits of packed rows ``[n_a, w]`` and ``[n_b, w]``: int32 ``[n_a, n_b]``.

    >>> hamming(np.array([[7]], np.uint8), np.array([[0], [7]], np.uint8)).tolist()
    [[3, 0]]

    Raises
    ------
    DimensionMismatch
        If they are not uint8 matrices of one width.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or a.dtype != np.uint8 or b.dtype != np.uint8:
        raise DimensionMismatch(
            f"Packed codes must be uint8 [n, w] of one width, got {a.dtype} {a.shape}, {b.dtype} {b.shape}."
        )
    out = np.empty((len(a), len(b)), np.int32)
    _hamming(_words(a), _words(b), out)
    return out


def table_sums(tables: FloatArray, digits: Bytes) -> FloatArray:
    """Sum one table entry per digit (asymmetric distance computation): float32 ``[q, n]``.

    Parameters
    ----------
    tables
        float32 ``[q, parts, entries]``: of each query, the value of each digit of each part.
    digits
        uint8 ``[n, parts]``.
    """
    out = np.empty((len(tables), len(digits)), np.float32)
    _table_sums(np.ascontiguousarray(tables, np.float32), np.ascontiguousarray(digits), out)
    return out


def pack_planes(signs: NDArray[np.bool_]) -> Bytes:
    """Pack bit planes, bool ``[n, u + 1, m]`` (True: +1), into uint8 ``[n, (u + 1) m / 8]``; m a multiple of 8."""
    return np.packbits(signs, axis=2, bitorder="little").reshape(len(signs), signs.shape[1] * signs.shape[2] // 8)


def levels(planes: Bytes, rounds: int) -> NDArray[np.int8]:
    """Return the odd integers w of packed planes of ``rounds`` = u refinements: int8 ``[n, m]``, ``|w| < 2^(u+1)``.

    >>> levels(pack_planes(np.array([[[1] * 8, [0] * 8]], bool)), 1)[0, :2].tolist()     # +1 - 1/2 = 1 / 2
    [1, 1]
    """
    odd: NDArray[np.int8] = (2 * np.arange(2 ** (rounds + 1)) - (2 ** (rounds + 1) - 1)).astype(np.int8)
    return np.take(odd, _digits(planes, rounds))


def plane_dots(a: Bytes, b: Bytes, rounds: int, method: Method = "integer") -> FloatArray:
    """Return the exact dot products of multi-level codes, the same bits by every method: float32 ``[n_a, n_b]``.

    Parameters
    ----------
    a, b
        Packed planes ``[n, (u + 1) m / 8]``.
    rounds
        The u refinements, 0 to 6.
    method
        ``"integer"``: blocked product of the odd integers w, exact in float32 since ``|sum| < 2^24`` (fastest here);
        ``"float"``: the same on the values ``w / 2^u``; ``"popcount"``: ``(u + 1)^2`` Hamming distances of planes;
        ``"table"``: one table of ``4^(u + 1)`` products for the pairs of digits (symmetric distance computation,
        16 entries for two-bit codes).

    Raises
    ------
    DimensionMismatch
        If the widths differ, or do not hold ``rounds`` + 1 planes.
    InputError
        If rounds or the width exceed what is exact.
    UnknownName
        If there is no such method.
    """
    if method not in METHODS:
        raise UnknownName("method of plane_dots", method, METHODS)
    if not 0 <= rounds <= 6:
        raise InputError(f"rounds must be 0 to 6 (a code's value then fits eight bits), got {rounds}.")
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or a.shape[1] % (rounds + 1):
        raise DimensionMismatch(
            f"Codes must be of one width that {rounds + 1} planes share, got shapes {a.shape} and {b.shape}."
        )
    if a.shape[1] // (rounds + 1) * 8 * (2 ** (rounds + 1) - 1) ** 2 >= 2**24:
        raise InputError(f"Dot products of codes of {a.shape[1]} bytes and {rounds} rounds exceed exact float32.")
    out = np.empty((len(a), len(b)), np.float32)
    way = {"integer": _integer, "float": _float, "popcount": _popcount, "table": _table}[method]
    for start in range(0, len(b), _ROWS):
        out[:, start : start + _ROWS] = way(a, b[start : start + _ROWS], rounds)
    return out


def _integer(a: Bytes, b: Bytes, rounds: int) -> FloatArray:
    product = levels(a, rounds).astype(np.float32) @ levels(b, rounds).astype(np.float32).T
    return np.asarray(product * np.float32(0.25**rounds), np.float32)


def _float(a: Bytes, b: Bytes, rounds: int) -> FloatArray:
    scale = np.float32(0.5**rounds)
    return np.asarray((levels(a, rounds) * scale) @ (levels(b, rounds) * scale).T, np.float32)


def _popcount(a: Bytes, b: Bytes, rounds: int) -> FloatArray:
    width = a.shape[1] // (rounds + 1)
    planes = [slice(j * width, (j + 1) * width) for j in range(rounds + 1)]
    total = np.zeros((len(a), len(b)), np.float32)
    for j, left in enumerate(planes):
        for k, right in enumerate(planes):
            apart = hamming(np.ascontiguousarray(a[:, left]), np.ascontiguousarray(b[:, right]))
            total += (width * 8 - 2 * apart).astype(np.float32) * np.float32(0.5 ** (j + k))
    return total


def _table(a: Bytes, b: Bytes, rounds: int) -> FloatArray:
    odd = 2 * np.arange(2 ** (rounds + 1)) - (2 ** (rounds + 1) - 1)
    table = np.ascontiguousarray(np.outer(odd, odd).ravel(), np.int32)
    out = np.empty((len(a), len(b)), np.int32)
    _pair_sums(table, _digits(a, rounds), _digits(b, rounds), rounds + 1, out)
    return out.astype(np.float32) * np.float32(0.25**rounds)


def _digits(planes: Bytes, rounds: int) -> Bytes:
    """Codes ``c = sum_j t_j 2^(u - j)``, uint8 ``[n, m]``."""
    width = planes.shape[1] // (rounds + 1)
    digits = np.zeros((len(planes), width * 8), np.uint8)
    for j in range(rounds + 1):
        bits = np.unpackbits(np.ascontiguousarray(planes[:, j * width : (j + 1) * width]), axis=1, bitorder="little")
        digits = (digits << np.uint8(1)) | bits
    return digits


def _words(codes: Bytes) -> Any:
    """Rows as 64-bit words, padded by zeros."""
    padded = codes
    if codes.shape[1] % 8:
        padded = np.zeros((len(codes), -(-codes.shape[1] // 8) * 8), np.uint8)
        padded[:, : codes.shape[1]] = codes
    return np.ascontiguousarray(padded).view(np.uint64)
