"""Whitening matrices: what defines each kind, numpy and torch alike."""

import numpy as np
import pytest
import torch

from isometry.numerics.whitening import KINDS, newton_schulz, whitening_matrix


def covariance(d=6, seed=0):
    a = np.random.default_rng(seed).normal(size=(d, d))
    return a @ a.T + 0.1 * np.eye(d)


@pytest.mark.parametrize("kind", KINDS)
def test_the_covariance_becomes_the_identity(kind):
    c = covariance()
    w = whitening_matrix(c, kind, linalg=np.linalg)
    np.testing.assert_allclose(w.T @ c @ w, np.eye(6), atol=1e-10)
    other = whitening_matrix(torch.from_numpy(c), kind, linalg=torch.linalg).numpy()
    np.testing.assert_allclose(np.abs(w), np.abs(other), atol=1e-10)


def test_kinds_are_what_they_are_called():
    c = covariance()
    zca, pca, cholesky = (whitening_matrix(c, kind, linalg=np.linalg) for kind in KINDS)
    np.testing.assert_allclose(zca, zca.T, atol=1e-12)
    np.testing.assert_allclose(cholesky, np.tril(cholesky), atol=1e-12)
    rotated = pca.T @ c @ pca
    np.testing.assert_allclose(rotated, np.eye(6), atol=1e-10)
    lengths = np.linalg.norm(pca, axis=0)  # 1 / deviation of each axis: rises as the variance falls
    assert (np.diff(lengths) > 0).all()


def test_newton_schulz_finds_the_symmetric_root():
    c = np.stack([covariance(seed=s) for s in range(3)])
    found = newton_schulz(c, np.eye(6), 25)
    np.testing.assert_allclose(found, whitening_matrix(c, "zca", linalg=np.linalg), atol=1e-6)
