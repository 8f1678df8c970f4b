"""The compiled instructions give the integers that plain arithmetic gives, with and without the processor's help."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from isometry.codes import intrinsics as ir


@njit
def _nibbles(codes, query, chunks):
    return ir.dot_nibbles(codes, 0, query, 0, chunks), ir.portable_dot_nibbles(codes, 0, query, 0, chunks)


@njit
def _bytes(codes, query, chunks):
    return ir.dot_bytes(codes, 0, query, 0, chunks), ir.portable_dot_bytes(codes, 0, query, 0, chunks)


@njit
def _near(blocks, query, bar, out):
    return ir.near_rows(blocks, 0, query, 0, len(query), bar, out)


@njit
def _bits(word):
    return ir.popcount(word), ir.lowest_bit(word)


@given(st.integers(1, 5), st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=60, deadline=None)
def test_dot_products_are_exact(chunks, seed, extreme):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 256, 64 * chunks).astype(np.uint8)
    query = rng.integers(-128, 128, 128 * chunks).astype(np.int8)
    if extreme:  # sums of four products beyond 16 bits, which saturating instructions would clip
        codes[:], query[:] = 255, -128
    groups = codes.reshape(chunks, 1, 64)
    levels = np.concatenate([groups & 15, groups >> 4], axis=1).reshape(-1)
    assert set(_nibbles(codes, query, chunks)) == {int(levels.astype(int) @ query.astype(int))}
    assert set(_bytes(codes, query, chunks)) == {int(codes.astype(int) @ query[: 64 * chunks].astype(int))}


@given(st.integers(1, 9), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_near_rows_are_those_within_the_bar(words, seed):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 2**64, (64, words), dtype=np.uint64)
    query = rng.integers(0, 2**64, words, dtype=np.uint64)
    codes[3] = query
    expected = np.bitwise_count(codes ^ query).sum(axis=1)
    out = np.empty(64, np.uint16)
    bar = int(np.median(expected))
    near = _near(np.ascontiguousarray(codes.T), query, bar, out)
    assert out.tolist() == expected.tolist()
    assert [bool(int(near) >> j & 1) for j in range(64)] == (expected <= bar).tolist()


@pytest.mark.parametrize("word", [0, 1, 2**63, 0b101000, 2**64 - 1])
def test_bits(word):
    lowest = (word & -word).bit_length() - 1 if word else 64
    assert _bits(np.uint64(word)) == (word.bit_count(), lowest)
