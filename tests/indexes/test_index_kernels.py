import numpy as np
import pytest

from isometry.indexes.kernels import dots, widen


@pytest.mark.parametrize("count", [0, 1, 2, 7])
@pytest.mark.parametrize("queries", [1, 3, 4, 5, 16])
@pytest.mark.parametrize("dtype", [np.float32, np.int8])
def test_dots_are_the_matrix_product(count, queries, dtype):
    rng = np.random.default_rng(0)
    codes = rng.integers(-127, 128, size=(9, 33)).astype(dtype)
    q = rng.integers(-8, 9, size=(queries, 33)).astype(np.float32)  # whole numbers: no rounding to forgive
    expected = codes.astype(np.float32) @ q.T
    np.testing.assert_array_equal(dots(codes, slice(1, 1 + count), q), expected[1 : 1 + count])
    picked = rng.integers(0, 9, size=count)
    np.testing.assert_array_equal(dots(codes, picked, q), expected[picked])


def test_every_finite_float16_is_widened_exactly():
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)].reshape(-1, 2)
    np.testing.assert_array_equal(widen(finite, slice(0, len(finite))), finite.astype(np.float32))
    np.testing.assert_array_equal(widen(finite, np.array([5, 0, 5])), finite[[5, 0, 5]].astype(np.float32))
