import numpy as np
import pytest

from isometry.diagnostics import contrast_by_dimension, relative_contrast
from isometry.errors import DimensionMismatch, InputError


def test_is_the_definition_by_brute_force():
    rng = np.random.default_rng(0)
    x, q = rng.standard_normal((50, 7)) + 5, rng.standard_normal((9, 7)) + 5
    d = np.linalg.norm(q[:, None].astype(np.float32) - x.astype(np.float32), axis=-1)
    assert relative_contrast(x, q) == pytest.approx((d.max(axis=1) - d.min(axis=1)) / d.min(axis=1), rel=1e-5)


def test_scale_place_and_rotation_do_not_matter():
    rng = np.random.default_rng(1)
    x, q = rng.standard_normal((60, 8)).astype(np.float32), rng.standard_normal((5, 8)).astype(np.float32)
    plain = relative_contrast(x, q)
    assert relative_contrast(3 * x + 2, 3 * q + 2) == pytest.approx(plain, rel=1e-3)
    whole = contrast_by_dimension(x, q, [8], seed=4)
    assert whole[0] == pytest.approx(plain, rel=1e-3)


def test_falls_with_the_dimension_of_independent_coordinates_only():
    rng = np.random.default_rng(2)
    x, q = rng.random((2000, 256)).astype(np.float32), rng.random((50, 256)).astype(np.float32)
    medians = np.median(contrast_by_dimension(x, q, [2, 8, 32, 128, 256], rotate=False), axis=1)
    assert (np.diff(medians) < 0).all()
    thin = rng.standard_normal((2050, 4)) @ rng.standard_normal((4, 256))  # four dimensions, spread over 256
    thin = thin.astype(np.float32)
    spread = np.median(contrast_by_dimension(thin[50:], thin[:50], [32, 256]), axis=1)
    assert spread[1] > 0.8 * spread[0]
    assert spread[1] > 5 * medians[-1]


def test_a_query_among_the_vectors_has_infinite_contrast():
    assert relative_contrast([[0.0], [1.0]], [[1.0]]).tolist() == [np.inf]


def test_bad_input():
    with pytest.raises(InputError, match="two vectors"):
        relative_contrast([[1.0]], [[1.0]])
    with pytest.raises(DimensionMismatch, match="queries"):
        relative_contrast(np.ones((3, 2)), np.ones((1, 3)))
    with pytest.raises(InputError, match="between 1 and 2"):
        contrast_by_dimension(np.ones((3, 2)), np.ones((1, 2)), [3])
