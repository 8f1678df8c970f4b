"""Intrinsic dimension: against scikit-dimension on the same data, known manifolds, duplicates."""

import numpy as np
import pytest
import skdim

from isometry.diagnostics import knn, lid, lid_of_distances, mle_dimension, two_nn
from isometry.errors import InputError


def subspace_sphere(k, n, ambient=40, seed=0):
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(ambient, k)))[0].T
    points = rng.normal(size=(n, k)) @ basis
    return points / np.linalg.norm(points, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def cloud():
    return subspace_sphere(6, 1200)


def test_two_nn_agrees_with_scikit_dimension(cloud):
    assert two_nn(cloud) == pytest.approx(skdim.id.TwoNN(discard_fraction=0.1).fit(cloud).dimension_, rel=0.01)


def test_pointwise_likelihood_agrees_with_scikit_dimension(cloud):
    found = lid(cloud, k=20)
    peer = np.asarray(skdim.id.MLE(K=20).fit(cloud, n_neighbors=20).dimension_pw_)
    # the peer divides by another constant at most; the points' estimates are proportional
    ratio = found / peer
    assert np.ptp(ratio) / ratio.mean() < 1e-6
    assert 0.9 < ratio.mean() < 1.12


def test_pointwise_likelihood_equals_its_formula(cloud):
    r = knn(cloud, 15)[0]
    logs = np.log(r[:, -1:] / r)
    np.testing.assert_allclose(lid_of_distances(r), 14 / logs.sum(1))
    np.testing.assert_allclose(lid_of_distances(r, bias_corrected=False), 15 / logs.sum(1))


@pytest.mark.parametrize("k", [3, 6, 11])
def test_dimension_of_a_sphere_within_15_percent(k):
    # a sphere in k dimensions is a manifold of k - 1
    points = subspace_sphere(k, 3000)
    assert mle_dimension(lid(points, k=30)) == pytest.approx(k - 1, rel=0.15)
    assert two_nn(points) == pytest.approx(k - 1, rel=0.2)


def test_ambient_dimension_and_scale_do_not_matter():
    small, large = subspace_sphere(5, 400, ambient=5), None
    large = np.concatenate([small, np.zeros((400, 20))], axis=1) * 1e3
    np.testing.assert_allclose(lid(small, 10), lid(large, 10), rtol=1e-6)


def test_duplicates_are_dropped_not_logged(cloud):
    doubled = np.concatenate([cloud[:200], cloud[:50]])
    local = lid(doubled, k=10)
    assert np.isfinite(local).all()
    assert two_nn(doubled) == pytest.approx(two_nn(cloud[:200]), rel=1e-9)


def test_zero_distances_count_as_absent():
    np.testing.assert_allclose(lid_of_distances([[0, 0, 1.0, 2.0, 3.0]]), lid_of_distances([[1.0, 2.0, 3.0]]))


def test_degenerate_rows_are_nan_or_infinite_and_averages_survive():
    local = lid_of_distances([[0.0, 0, 1], [1, 1, 1], [0.25, 0.5, 1]])
    assert np.isnan(local[0])
    assert np.isinf(local[1])
    value = 2 / np.log(8)
    assert local[2] == pytest.approx(value)
    assert mle_dimension(local) == pytest.approx(2 * value)  # harmonic: infinity adds an inverse of 0
    assert mle_dimension(local, "mean") == pytest.approx(value)


def test_harmonic_is_below_the_arithmetic_mean(cloud):
    local = lid(cloud)
    assert mle_dimension(local) < mle_dimension(local, "mean")


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="ascending"):
        lid_of_distances([[2.0, 1.0]])
    with pytest.raises(InputError, match="three distinct"):
        two_nn(np.ones((10, 3)))
    with pytest.raises(InputError, match="duplicates"):
        mle_dimension(lid(np.ones((10, 3)), 3))
    with pytest.raises(InputError, match="discard"):
        two_nn(np.eye(5), discard=1.0)
    with pytest.raises(InputError, match="nearest neighbours"):
        two_nn(np.eye(5))
