import numpy as np
import pytest

from isometry.errors import DimensionMismatch, InputError, UnknownName
from isometry.ranking.affinity import affinity, categorical, gaussian, kernel

X = np.random.default_rng(0).standard_normal((12, 6)) + 3  # a common direction: all cosines are large


@pytest.mark.parametrize("how", ["clipped", "shifted", "centred", "rbf", "fisher-rao"])
def test_symmetric_in_the_unit_interval_and_one_with_itself(how):
    s = affinity(X, how)
    assert s.shape == (12, 12)
    assert (s == s.T).all()
    assert s.min() >= 0
    assert s.max() <= 1
    assert s.diagonal() == pytest.approx(1)


def test_centring_and_bandwidth_undo_a_common_direction():
    off = ~np.eye(12, dtype=bool)
    assert affinity(X, "shifted")[off].min() > 0.85
    assert affinity(X, "centred")[off].mean() < 0.35
    assert np.median(affinity(X, "rbf")[off]) == pytest.approx(np.exp(-0.5), abs=1e-6)
    assert affinity(X + 100, "rbf")[off] == pytest.approx(affinity(X, "rbf")[off], abs=1e-3)


def test_fisher_rao_of_gaussians_in_closed_form():
    same_mean = gaussian(np.array([[2.0, 0.0], [2.0, 1.5]]))[0, 1]
    assert same_mean == pytest.approx(np.sqrt(2) * 1.5)
    # Equal deviations s and means 2 m apart: 2 sqrt(2) asinh(m / (sqrt(2) s))
    m, s = 0.7, 1.3
    same_s = gaussian(np.array([[-m, np.log(s)], [m, np.log(s)]]))[0, 1]
    assert same_s == pytest.approx(2 * np.sqrt(2) * np.arcsinh(m / (np.sqrt(2) * s)))
    two = gaussian(np.array([[0.0, 5.0, 0.0, 0.0], [1.0, 3.0, 0.2, 0.4]]))[0, 1]
    ones = [gaussian(np.array([[a, b], [c, d]]))[0, 1] for a, b, c, d in [(0, 0, 1, 0.2), (5, 0, 3, 0.4)]]
    assert two == pytest.approx(np.hypot(*ones))


def test_fisher_rao_of_categorical_distributions():
    p = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    assert categorical(p)[0] == pytest.approx([0, np.pi, np.pi / 2])
    assert affinity(p, "fisher-rao-categorical")[0, 2] > affinity(p, "fisher-rao-categorical")[0, 1]
    with pytest.raises(DimensionMismatch, match="sum to 1"):
        affinity([[0.5, 0.6]], "fisher-rao-categorical")


def test_a_function_of_ones_own_and_bad_input():
    assert (affinity(X, lambda x: np.eye(len(x))) == np.eye(12)).all()
    with pytest.raises(InputError, match="monotone"):
        affinity(X, lambda x: -np.eye(len(x)))
    with pytest.raises(DimensionMismatch, match="12"):
        affinity(X, lambda x: np.ones((2, 2)))
    with pytest.raises(UnknownName, match="similarity"):
        affinity(X, "jaccard")
    with pytest.raises(DimensionMismatch, match="log deviations"):
        affinity([[1.0, 2.0, 3.0]], "fisher-rao")
    with pytest.raises(InputError, match="bandwidth"):
        affinity(X, "rbf", bandwidth=0)
    assert kernel(np.zeros((3, 3))).tolist() == np.ones((3, 3)).tolist()
    assert affinity(np.zeros((2, 3))).tolist() == [[0, 0], [0, 0]]  # a zero vector is like nothing
