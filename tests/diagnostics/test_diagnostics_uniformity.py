"""Uniformity and alignment: closed forms, invariance, refusals."""

import numpy as np
import pytest

from isometry.diagnostics import alignment, uniformity
from isometry.errors import InputError


def test_uniformity_is_the_log_mean_potential():
    x = np.random.default_rng(0).normal(size=(1500, 5))
    u = x / np.linalg.norm(x, axis=1, keepdims=True)
    squared = ((u[:, None] - u[None]) ** 2).sum(2)
    i, j = np.triu_indices(len(u), 1)
    assert uniformity(x) == pytest.approx(np.log(np.exp(-2 * squared[i, j]).mean()), abs=1e-9)
    assert uniformity(7 * x) == pytest.approx(uniformity(x))
    assert uniformity(np.ones((4, 3))) == pytest.approx(0)
    assert uniformity(x + 1) > uniformity(x)


def test_alignment_of_pairs():
    x = np.random.default_rng(0).normal(size=(20, 4))
    assert alignment(x, 3 * x) == pytest.approx(0)
    assert alignment(x, -x) == pytest.approx(4)
    assert alignment(x, -x, alpha=1) == pytest.approx(2)


def test_bad_input():
    with pytest.raises(InputError, match="at least two"):
        uniformity([[1.0, 2.0]])
    with pytest.raises(InputError, match="row i with row i"):
        alignment([[1.0, 2.0]], [[1.0, 2.0], [3.0, 4.0]])
