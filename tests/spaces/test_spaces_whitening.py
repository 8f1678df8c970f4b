"""Whitening and ICA: closed forms, optimality, round trips, files, what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.errors import CorruptStore, DataWarning, DimensionMismatch, InputError, NotFitted, UnknownName
from isometry.numerics.whitening import KINDS
from isometry.spaces import ICA, Whitening


def cloud(n=400, d=8, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + 3 * rng.normal(size=d)).astype(np.float32)


def covariance(x):
    return np.cov(x.T.astype(np.float64), bias=True)


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 20), d=st.sampled_from([2, 5, 8]))
@settings(max_examples=10, deadline=None)
def test_training_vectors_become_white(kind, seed, d):
    x = cloud(d=d, seed=seed)
    z = Whitening(kind).fit_transform(x)
    assert np.abs(z.mean(0)).max() < 1e-3
    np.testing.assert_allclose(covariance(z), np.eye(d), atol=5e-3)


def test_zca_agrees_with_the_singular_value_decomposition():
    x = cloud().astype(np.float64)
    centred = x - x.mean(0)
    u, _, v = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(Whitening().fit_transform(x), u @ v * np.sqrt(len(x)), atol=2e-3)


def test_pca_agrees_with_scikit_learn():
    from sklearn.decomposition import PCA

    x = cloud()
    theirs = PCA(3, whiten=True).fit_transform(x) * np.sqrt(len(x) / (len(x) - 1))  # it divides by n - 1
    np.testing.assert_allclose(np.abs(Whitening("pca", dim=3).fit_transform(x)), np.abs(theirs), atol=1e-3)


def test_zca_is_the_closest_whitening():
    x = cloud()
    centred = x - x.mean(0)
    away = {kind: np.linalg.norm(Whitening(kind).fit_transform(x) - centred) for kind in KINDS}
    assert away["zca"] == min(away.values())
    q = np.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))[0]  # any other whitening is ZCA, rotated
    assert np.linalg.norm(Whitening().fit_transform(x) @ q - centred) > away["zca"]


def test_whitening_is_idempotent():
    z = Whitening().fit_transform(cloud())
    np.testing.assert_allclose(Whitening().fit_transform(z), z, atol=1e-3)


def test_one_channel_a_group_standardises():
    x = cloud()
    np.testing.assert_allclose(Whitening(groups=8, seed=3).fit_transform(x), (x - x.mean(0)) / x.std(0), atol=1e-4)


def test_groups_are_white_each():
    z = Whitening(groups=4).fit_transform(cloud())
    c = covariance(z)
    for i in range(0, 8, 2):
        np.testing.assert_allclose(c[i : i + 2, i : i + 2], np.eye(2), atol=1e-3)
    assert np.abs(c - np.eye(8)).max() > 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_inverse_transform(kind):
    x = cloud()
    space = Whitening(kind).fit(x)
    np.testing.assert_allclose(space.inverse_transform(space.transform(x)), x, atol=1e-3)
    cut = Whitening("pca", dim=3).fit(x)
    back = cut.inverse_transform(cut.transform(x))
    np.testing.assert_allclose(cut.inverse_transform(cut.transform(back)), back, atol=1e-3)  # a projection


def test_shrinkage_makes_few_rows_suffice():
    few = cloud(n=6)
    with pytest.raises(InputError, match="singular"):
        Whitening().fit(few)
    assert np.isfinite(Whitening(shrinkage="auto").fit_transform(few)).all()
    x = cloud()
    whole = Whitening(shrinkage=1.0).fit_transform(x)  # only a shift and one scale are left
    centred = x - x.mean(0)
    np.testing.assert_allclose(whole, centred / np.sqrt((centred**2).mean()), atol=1e-3)
    assert Whitening("pca", dim=2).fit_transform(few).shape == (6, 2)
    with pytest.raises(InputError, match="fewer than dim=7"):
        Whitening("pca", dim=7).fit(few)


@pytest.mark.parametrize("space", [Whitening("pca", dim=3), Whitening(groups=2, seed=1), ICA(scale=100.0)])
def test_file(space, tmp_path):
    x = np.random.default_rng(0).laplace(size=(500, 8))
    z = space.fit_transform(x)
    space.save(tmp_path / "space.safetensors")
    again = type(space).load(tmp_path / "space.safetensors")
    assert again.get_params() == space.get_params()
    assert np.array_equal(again.transform(x), z)
    other = ICA if isinstance(space, Whitening) else Whitening
    with pytest.raises(CorruptStore, match="not a"):
        other.load(tmp_path / "space.safetensors")
    (tmp_path / "broken").write_bytes(b"nothing")
    with pytest.raises(CorruptStore, match="broken"):
        type(space).load(tmp_path / "broken")


def test_independent_components_of_mixed_sources():
    rng = np.random.default_rng(0)
    sources = rng.laplace(size=(4000, 4))
    mixed = sources @ rng.normal(size=(4, 4)) + 5
    space = ICA(scale=10.0).fit(mixed)
    z = space.transform(mixed)
    assert space.converged_
    np.testing.assert_allclose(z.std(0), 10, atol=1e-2)
    assert np.abs(np.corrcoef(z.T) - np.eye(4)).max() < 1e-3
    found = np.abs(np.corrcoef(z.T, sources.T)[:4, 4:])
    assert (found.max(axis=1) > 0.98).all()  # each is one source, in some order and sign
    np.testing.assert_allclose(space.inverse_transform(z), mixed, atol=1e-3)


def test_without_convergence_pca_whitening_takes_over():
    x = cloud()
    for space, rows, why in ((ICA(max_iter=1), x, "did not converge"), (ICA(), x[:12], "fewer than 2")):
        with pytest.warns(DataWarning, match=why):
            space.fit(rows)
        assert not space.converged_
        np.testing.assert_allclose(covariance(space.transform(rows)), np.eye(8), atol=5e-2 if len(rows) < 20 else 5e-3)


def test_directions_without_variance_are_left_out():
    x = np.random.default_rng(0).laplace(size=(400, 5))
    x = np.concatenate([x, -x.sum(1, keepdims=True)], axis=1).astype(np.float32)  # columns sum to 0
    z = ICA().fit_transform(x)
    assert z.shape == (400, 5)
    np.testing.assert_allclose(covariance(z), np.eye(5), atol=1e-3)


def test_parameters_can_be_set():
    space = Whitening().fit(cloud())
    assert space.set_params(kind="pca", dim=2).get_params()["dim"] == 2
    with pytest.raises(NotFitted, match="fit"):
        space.transform(cloud())


def test_bad_input():
    with pytest.raises(UnknownName, match="whitening 'zac'"):
        Whitening("zac")
    with pytest.raises(InputError, match="only principal axes"):
        Whitening("zca", dim=2)
    with pytest.raises(InputError, match="shrinkage in"):
        Whitening(shrinkage=2.0)
    with pytest.raises(InputError, match="cannot be whitened with groups=3"):
        Whitening(groups=3).fit(cloud())
    with pytest.raises(InputError, match="ICA needs"):
        ICA(scale=0)
    with pytest.raises(InputError, match="do not determine"):
        ICA().fit(np.ones((50, 3)))
    with pytest.raises(NotFitted, match="not fitted"):
        ICA().transform(cloud())
    with pytest.raises(DimensionMismatch, match="8 wide"):
        Whitening().fit(cloud()).transform(cloud(d=5))
    with pytest.raises(DimensionMismatch, match="NaN"):
        Whitening().fit([[np.nan, 1.0], [0.0, 1.0]])
