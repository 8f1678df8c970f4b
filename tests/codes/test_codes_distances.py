"""Distances of packed codes: four exact ways agree to the bit; packing loses nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.codes.distances import METHODS, hamming, levels, pack_planes, plane_dots, table_sums
from isometry.codes.packing import pack, unpack
from isometry.errors import DimensionMismatch, InputError, UnknownName


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1, 2, 4, 8]), st.integers(1, 40), st.integers(0, 5))
def test_packing_loses_nothing(seed, bits, count, rows):
    digits = np.random.default_rng(seed).integers(0, 2**bits, (rows, count)).astype(np.uint8)
    packed = pack(digits, bits)
    assert packed.shape == (rows, -(-count * bits // 8))
    np.testing.assert_array_equal(unpack(packed, bits, count), digits)


def planes_of(rng, n, rounds, bits):
    signs = rng.integers(0, 2, (n, rounds + 1, bits)).astype(bool)
    value = sum(np.where(signs[:, j], 1.0, -1.0) * 2.0**-j for j in range(rounds + 1))
    return pack_planes(signs), value


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 4), st.integers(1, 12))
def test_four_ways_agree_to_the_bit(seed, rounds, octets):
    rng = np.random.default_rng(seed)
    (a, left), (b, right) = (planes_of(rng, n, rounds, 8 * octets) for n in (5, 9))
    exact = left @ right.T  # float64, exact
    for method in METHODS:
        found = plane_dots(a, b, rounds, method)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found.astype(np.float64), exact, err_msg=method)


@pytest.mark.parametrize("rounds", range(7))
def test_levels_are_the_odd_integers(rounds):
    planes, value = planes_of(np.random.default_rng(rounds), 50, rounds, 16)
    w = levels(planes, rounds)
    assert w.dtype == np.int8
    np.testing.assert_array_equal(w / 2.0**rounds, value)
    assert (w % 2 != 0).all()
    assert np.abs(w.astype(int)).max() < 2 ** (rounds + 1)


def test_blocks_do_not_matter():
    planes, value = planes_of(np.random.default_rng(0), 9000, 1, 8)
    np.testing.assert_array_equal(plane_dots(planes[:3], planes, 1, "popcount"), value[:3] @ value.T)


@pytest.mark.parametrize("width", [1, 7, 8, 9, 48])
def test_hamming_counts_bits(width):
    rng = np.random.default_rng(width)
    a, b = rng.integers(0, 256, (4, width)).astype(np.uint8), rng.integers(0, 256, (6, width)).astype(np.uint8)
    expected = np.unpackbits(a[:, None] ^ b[None], axis=2).sum(axis=2)
    np.testing.assert_array_equal(hamming(a, b), expected)


def test_table_sums_add_the_entries_of_the_digits():
    rng = np.random.default_rng(1)
    tables, digits = rng.standard_normal((3, 5, 16)).astype(np.float32), rng.integers(0, 16, (7, 5)).astype(np.uint8)
    expected = tables[:, np.arange(5), digits].sum(axis=2)
    np.testing.assert_allclose(table_sums(tables, digits), expected, atol=1e-5)


def test_bad_input():
    a = np.zeros((2, 4), np.uint8)
    with pytest.raises(DimensionMismatch, match="one width"):
        hamming(a, a[:, :3])
    with pytest.raises(DimensionMismatch, match="planes share"):
        plane_dots(a, a[:, :2], 1)
    with pytest.raises(DimensionMismatch, match="planes share"):
        plane_dots(a, a, 2)
    with pytest.raises(UnknownName, match="Unknown method"):
        plane_dots(a, a, 1, "magic")
    with pytest.raises(InputError, match="0 to 6"):
        plane_dots(a, a, 7)
    with pytest.raises(InputError, match="exceed exact float32"):
        plane_dots(np.zeros((1, 70000), np.uint8), np.zeros((1, 70000), np.uint8), 6)
