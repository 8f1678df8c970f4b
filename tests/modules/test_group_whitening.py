"""Shuffled group whitening: what is white, what the permutation may change, gradients, evaluation, refusals."""

import numpy as np
import pytest
import torch

from isometry.errors import DimensionMismatch, InputError, NotFitted
from isometry.modules import GroupWhitening
from isometry.spaces import Whitening


def batch(n=96, d=12, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.eye(d, dtype=dtype) + 0.2 * torch.randn(d, d, generator=generator, dtype=dtype)
    return torch.randn(n, d, generator=generator, dtype=dtype) @ mix + 2


def permutation(d=12, seed=5):
    return torch.randperm(d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("groups", [1, 3, 6, 12])
@pytest.mark.parametrize("newton", [0, 30])
def test_every_group_is_white(groups, newton):
    dealt = permutation()
    y = GroupWhitening(12, groups, newton=newton)(batch(), dealt)[:, dealt].reshape(96, groups, -1)
    assert y.mean(0).abs().max() < 1e-5
    for g in range(groups):
        covariance = y[:, g].T @ y[:, g] / 96
        assert (covariance - torch.eye(12 // groups, dtype=y.dtype)).abs().max() < 1e-3


def test_limits_are_standardisation_and_full_whitening():
    x = batch()
    each = GroupWhitening(12, 12, eps=0)(x)
    torch.testing.assert_close(each, (x - x.mean(0)) / x.std(0, correction=0))
    whole = GroupWhitening(12, 1, eps=0)(x)
    np.testing.assert_allclose(whole.numpy(), Whitening().fit_transform(x.numpy()), atol=2e-3)


def test_the_permutation_matters_only_between_the_limits():
    x = batch()
    for groups, same in ((1, True), (12, True), (3, False)):
        layer = GroupWhitening(12, groups)
        a, b = layer(x, permutation(seed=1)), layer(x, permutation(seed=2))
        assert torch.allclose(a, b, atol=1e-8) == same


def test_calls_draw_another_permutation_each_and_follow_the_seed():
    x, layer = batch(), GroupWhitening(12, 3)
    torch.manual_seed(0)
    first, second = layer(x), layer(x)
    torch.manual_seed(0)
    assert torch.equal(layer(x), first)
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("newton", [0, 12])
def test_gradient_through_the_whitening(newton):
    layer = GroupWhitening(4, 2, stop_gradient=False, newton=newton)
    x, dealt = batch(n=9, d=4).requires_grad_(), permutation(4)
    assert torch.autograd.gradcheck(lambda rows: layer(rows, dealt), x, atol=1e-5)


def test_stopping_the_gradient_changes_it_but_not_the_output():
    dealt = permutation()
    results = []
    for stop in (True, False):
        x = batch().requires_grad_()
        y = GroupWhitening(12, 3, stop_gradient=stop)(x, dealt)
        y.pow(3).sum().backward()
        results.append((y.detach(), x.grad))
    torch.testing.assert_close(results[0][0], results[1][0])
    assert not torch.allclose(results[0][1], results[1][1])


def test_ties_of_eigenvalues_have_a_gradient_by_newton_schulz():
    x = torch.cat([torch.eye(4), -torch.eye(4)]).requires_grad_()  # covariance I / 4: all eigenvalues tie
    y = GroupWhitening(4, 1, stop_gradient=False, newton=8)(x)
    y.pow(3).sum().backward()
    assert torch.isfinite(x.grad).all()
    dead = torch.zeros(8, 4)  # a channel without variance stays finite too
    assert torch.isfinite(GroupWhitening(4, 2)(dead)).all()


def test_evaluation_uses_training_statistics_only():
    layer = GroupWhitening(12, 1, momentum=1.0)
    with pytest.raises(NotFitted, match="no statistics"):
        layer.eval()(batch())
    layer.train()(batch(seed=0))
    layer.eval()
    fresh = batch(seed=1)
    one, many = layer(fresh[:1]), layer(fresh)
    torch.testing.assert_close(one[0], many[0])  # a row does not depend on its company
    again = GroupWhitening(12, 1)
    again.load_state_dict(layer.state_dict())
    torch.testing.assert_close(again.eval()(fresh), many)
    torch.testing.assert_close(layer(batch(seed=0)), GroupWhitening(12, 1)(batch(seed=0)), atol=1e-3, rtol=1e-3)
    parts = GroupWhitening(12, 4, momentum=1.0)
    parts(batch(), torch.arange(12))
    torch.testing.assert_close(parts.eval()(batch()), parts.train()(batch(), torch.arange(12)), atol=1e-4, rtol=1e-4)


def test_groups_by_batch_size():
    assert [GroupWhitening(384).groups_for(n) for n in (64, 128, 1000, 2)] == [12, 6, 1, 384]
    assert GroupWhitening(768, 128).groups_for(12) == 128


def test_refusals():
    with pytest.raises(InputError, match="groups of 48 channels needs a batch of at least 96, got 32"):
        GroupWhitening(96, 2)(torch.randn(32, 96))
    with pytest.raises(InputError, match="divide the 12 channels, got 5"):
        GroupWhitening(12, 5)
    with pytest.raises(InputError, match="momentum"):
        GroupWhitening(12, momentum=0)
    with pytest.raises(DimensionMismatch, match=r"\[n, 12\]"):
        GroupWhitening(12)(torch.randn(32, 8))
