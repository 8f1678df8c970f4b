"""Rotations keep lengths; codes nest, estimate without bias and within their bound."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.codes.code import Code
from isometry.codes.rotated import RotatedCode, unpack_nibbles
from isometry.codes.rotation import Rotation
from isometry.errors import DimensionMismatch, InputError, NotFitted


def vectors(n, dim, seed=0):
    x = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@given(st.integers(1, 700), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_a_rotation_keeps_dot_products_and_is_undone(dim, seed):
    x = vectors(6, dim, seed)
    rotation = Rotation(dim, seed)
    y = rotation.apply(x)
    assert y.shape == (6, -(-dim // 128) * 128)
    np.testing.assert_allclose(y @ y.T, x @ x.T, atol=2e-6)
    np.testing.assert_allclose(rotation.undo(y), x, atol=2e-6)


def test_a_row_is_rotated_by_itself():
    x, rotation = vectors(9, 384), Rotation(384, 3)
    whole = rotation.apply(x)
    np.testing.assert_array_equal(whole[4:5], rotation.apply(x[4:5]))
    assert not np.allclose(whole, Rotation(384, 4).apply(x))


@pytest.mark.parametrize("dim", [128, 384, 768])
def test_a_rotation_spreads_a_single_coordinate(dim):
    """What makes codes sharp: no coordinate of a rotated vector dominates, whatever the vector."""
    y = Rotation(dim, 0).apply(np.eye(dim, dtype=np.float32)[:64])
    assert np.abs(y).max() < 6.5 / np.sqrt(dim)


@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize("bits", [1, 4, 8])
def test_estimates_are_unbiased_and_within_their_bound(bits, centre):
    x, q = vectors(400, 200) + 0.05, vectors(50, 200, 1)
    errors, inside = [], []
    for seed in range(8):
        code = RotatedCode(bits, seed=seed, centre=centre).fit(x)
        packed = code.transform(x)
        error = code.score(q, packed) - q @ x.T
        errors.append(error)
        inside.append(np.abs(error) <= code.bound(q, packed))
    mean = np.mean(errors, axis=0)
    assert abs(mean.mean()) < 4 * np.std(errors) / np.sqrt(np.size(errors))
    assert np.mean(inside) > 0.9
    step = {1: 0.2, 4: 0.03, 8: 0.002}[bits]
    assert np.abs(errors).max() < 3 * step


def test_fewer_bits_are_part_of_more():
    x = vectors(30, 256)
    four, eight = (RotatedCode(bits).fit(x) for bits in (4, 8))
    planes = eight.planes(x)
    np.testing.assert_array_equal(four.transform(x)[:, :128], planes.high)
    np.testing.assert_array_equal(eight.transform(x)[:, 128:256], planes.low)
    level = unpack_nibbles(planes.high) >= 8
    signs = np.unpackbits(planes.signs.view(np.uint8), axis=1, bitorder="little").astype(bool)
    assert (level == signs).mean() > 0.999  # a residual of exactly 0 has no sign


def test_code_bytes_are_what_is_stored(tmp_path):
    x = vectors(40, 100)
    for bits, size in ((1, 16), (4, 64), (8, 128)):
        code = RotatedCode(bits, seed=5).fit(x)
        assert code.transform(x).shape == (40, size + 8) == (40, code.code_bytes)
        code.save(tmp_path / "code")
        loaded = Code.load(tmp_path / "code")
        np.testing.assert_array_equal(loaded.transform(x), code.transform(x))
        assert loaded.fingerprint == code.fingerprint


def test_zero_and_equal_rows():
    x = np.zeros((3, 128), np.float32)
    for bits in (1, 4, 8):
        code = RotatedCode(bits).fit(x)
        assert np.abs(code.inverse_transform(code.transform(x))).max() == 0


def test_bad_input():
    with pytest.raises(InputError, match="bits must be"):
        RotatedCode(2)
    with pytest.raises(NotFitted):
        RotatedCode(4).transform(vectors(2, 8))
    with pytest.raises(DimensionMismatch):
        RotatedCode(4).fit(vectors(4, 8)).transform(vectors(2, 9))
