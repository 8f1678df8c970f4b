from __future__ import annotations

import pytest
import torch

from isometry.errors import DimensionMismatch, InputError
from isometry.objectives import pca_alignment, pca_target
from isometry.objectives.espresso import spectral_map

M = torch.randn(20, 12, generator=torch.Generator().manual_seed(0))


def test_target_is_the_formula_by_a_full_decomposition():
    a = (M.T @ M / 12**0.5).softmax(1)
    u, s, _ = torch.linalg.svd(a.double())
    expected = M.double() @ u[:, :5] @ s[:5].diag()
    found = pca_target(M, 5).double()
    signs = torch.sign((expected * found).sum(0))
    assert torch.allclose(found, expected * signs, atol=1e-4)


def test_an_orthogonal_matrix_gives_an_orthogonal_map():
    q = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(1)))[0]
    mapped = M @ spectral_map(q, 12)
    assert torch.allclose(mapped @ mapped.T, M @ M.T, atol=1e-4)


def test_the_target_is_stable_and_carries_no_gradient():
    x = M.clone().requires_grad_()
    assert not pca_target(x, 3).requires_grad
    assert torch.equal(pca_target(M, 3), pca_target(M, 3))
    assert torch.allclose(pca_target(M, 6)[:, :3], pca_target(M, 3), atol=1e-5)
    noisy = pca_target(M + 1e-4, 3)
    assert torch.allclose(noisy, pca_target(M, 3), atol=1e-2)  # signs do not flip


@pytest.mark.parametrize("divergence", ["kl", "mse"])
def test_alignment_is_not_negative_and_reaches_the_prefix_only(divergence):
    x = M.clone().requires_grad_()
    value = pca_alignment(x, 4, divergence=divergence)
    assert value >= 0
    (grad,) = torch.autograd.grad(value, x)
    assert grad[:, :4].abs().sum() > 0
    assert grad[:, 4:].abs().sum() == 0


def test_bad_input_is_refused():
    with pytest.raises(DimensionMismatch):
        pca_target(M, 13)
    with pytest.raises(InputError, match="NaN"):
        pca_target(M * torch.nan, 3)
