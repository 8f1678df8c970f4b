"""Scalar codes: the error bound, ranges, and bad parameters."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.codes import ScalarCode
from isometry.errors import InputError


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1, 2, 4, 8]), st.sampled_from([1e-3, 1.0, 1e3]))
def test_error_bound_of_rows(seed, bits, size):
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((20, 16)) * size).astype(np.float32)
    q = rng.standard_normal((5, 16)).astype(np.float32)
    code = ScalarCode(bits, ranges="row").fit(x)
    codes = code.transform(x)
    step = 2 * np.abs(x).max(axis=1) / 2**bits
    bound = np.abs(q).sum(axis=1)[:, None] * step / 2
    assert (np.abs(q @ x.T - code.score(q, codes)) <= bound * (1 + 1e-4) + 1e-6 * size).all()
    assert (np.abs(x - code.inverse_transform(codes)) <= step[:, None] / 2 * (1 + 1e-4)).all()


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_error_bound_of_dimensions(bits):
    rng = np.random.default_rng(1)
    x = (rng.standard_normal((500, 16)) * np.linspace(0.1, 3, 16)).astype(np.float32)
    code = ScalarCode(bits, tail=0.0).fit(x)
    decoded = code.inverse_transform(code.transform(x))
    assert (np.abs(decoded - x) <= code.step_ / 2 * (1 + 1e-4)).all()
    q = rng.standard_normal((4, 16)).astype(np.float32)
    bound = (np.abs(q) @ code.step_)[:, None] / 2
    assert (np.abs(q @ x.T - code.score(q, code.transform(x))) <= bound * (1 + 1e-4)).all()


def test_default_tails_are_the_best_for_normal_values():
    x = np.random.default_rng(0).standard_normal((20000, 8)).astype(np.float32)
    for bits, distortion in {1: 0.3634, 2: 0.1188, 4: 0.01154}.items():  # Max 1960, table II
        code = ScalarCode(bits).fit(x)
        error = float(np.mean((code.inverse_transform(code.transform(x)) - x) ** 2))
        assert abs(error / distortion - 1) < 0.03


def test_values_beyond_the_range_go_to_its_border():
    code = ScalarCode(2, tail=0.0).fit([[0.0] * 8, [4.0] * 8])
    np.testing.assert_allclose(code.inverse_transform(code.transform([[-9.0] * 8, [9.0] * 8]))[:, 0], [0.5, 3.5])


def test_constant_dimensions_and_zero_rows_survive():
    x = np.zeros((4, 8), np.float32)
    for ranges in ("row", "dimension"):
        code = ScalarCode(4, ranges=ranges).fit(x)
        np.testing.assert_array_equal(code.inverse_transform(code.transform(x)), x)


def test_bad_parameters():
    for wrong in ({"bits": 3}, {"ranges": "all"}, {"tail": 0.5}, {"tail": -0.1}):
        with pytest.raises(InputError):
            ScalarCode(**wrong)
    with pytest.raises(InputError, match="at least one byte"):
        ScalarCode(2).fit(np.ones((3, 3)))
