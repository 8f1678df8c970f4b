"""The recurrent binarisation network and its straight-through sign."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from isometry.codes.recurrent_binary import Binariser, straight_through_sign
from isometry.errors import InputError


def unit(n, d, seed=0):
    return normalize(torch.from_numpy(np.random.default_rng(seed).standard_normal((n, d), dtype=np.float32)), dim=-1)


def test_straight_through_does_not_touch_shared_gradients():
    z = torch.tensor([-3.0, 0.5, 2.0], requires_grad=True)
    w = torch.tensor([1.0, 1.0, 1.0], requires_grad=True)
    (straight_through_sign(z) + w).sum().backward()  # an in-place edit of the gradient would reach w
    assert z.grad.tolist() == [0, 1, 0]
    assert w.grad.tolist() == [1, 1, 1]


def test_recurrence_by_hand():
    net = Binariser(12, 16, 2, hidden=20, init="paper", seed=3).eval()
    x = unit(9, 12)
    s0 = torch.where(net.first(x) >= 0, 1.0, -1.0)
    s1 = torch.where(net.residuals[0](x - normalize(net.decoders[0](s0), dim=-1)) >= 0, 1.0, -1.0)
    b1 = s0 + s1 / 2
    s2 = torch.where(net.residuals[1](x - normalize(net.decoders[1](b1), dim=-1)) >= 0, 1.0, -1.0)
    torch.testing.assert_close(net(x), b1 + s2 / 4)
    assert set(np.unique(net(x).detach().numpy() * 4).tolist()) <= {-7, -5, -3, -1, 1, 3, 5, 7}


def test_no_rounds_is_a_plain_hash_and_no_signs_a_float_head():
    x = unit(5, 12)
    net, head = (Binariser(12, 16, 0, init="paper", binary=binary).eval() for binary in (True, False))
    assert net(x).abs().eq(1).all()
    torch.testing.assert_close(net(x), torch.sign(head(x)))


def test_rotation_skip_starts_as_rotated_signs():
    x = unit(50, 24)
    net = Binariser(24, 48, 1, seed=5).eval()
    axes = net.first.skip
    torch.testing.assert_close(net.planes(x)[0], torch.where(x @ axes.T >= 0, 1.0, -1.0))
    torch.testing.assert_close(axes[:24] @ axes[:24].T, 48 * torch.eye(24), atol=1e-4, rtol=0)


@pytest.mark.parametrize("rounds", [0, 1, 3, 6])
def test_with_identity_maps_it_is_a_uniform_scalar_quantiser(monkeypatch, rounds):
    """Where every map is the identity and reconstructions keep their length, [-2, 2] is halved again and again."""
    monkeypatch.setattr("isometry.codes.recurrent_binary.network.normalize", lambda x, dim: x)
    net = Binariser(8, 8, rounds, hidden=4, init="paper").eval()
    net.first = torch.nn.Identity()
    net.decoders, net.residuals = (torch.nn.ModuleList(torch.nn.Identity() for _ in range(rounds)) for _ in range(2))
    x = 3.8 * torch.rand(50, 8, generator=torch.Generator().manual_seed(0)) - 1.9
    step = 2.0 ** (1 - rounds)
    closed = (torch.floor((x + 2) / step) + 0.5) * step - 2
    torch.testing.assert_close(net(x), closed, atol=1e-6, rtol=0)
    assert (net(x) - x).abs().max() <= step / 2 + 1e-6


def test_refinement_approaches_the_vector():
    x = unit(400, 32)
    errors = []
    for rounds in range(4):
        net = Binariser(32, 32, rounds, seed=1).eval()
        decoded = normalize(net(x) @ net.first.skip, dim=-1)
        errors.append(float((x - decoded).square().sum(dim=1).mean().detach()))
    assert errors == sorted(errors, reverse=True)
    assert errors[1] < 0.75 * errors[0]


def test_weights_round_trip():
    one, two = Binariser(12, 16, 1, seed=0, hidden=8), Binariser(12, 16, 1, seed=1, hidden=8)
    one.train()(unit(30, 12))  # moves the running statistics
    two.set_weights(one.weights())
    x = unit(7, 12, 2)
    torch.testing.assert_close(one.eval()(x), two.eval()(x))
    with pytest.raises(KeyError, match="where the network has"):
        two.set_weights(one.weights()[:-1])


@pytest.mark.parametrize(
    "wrong",
    [{"bits": 12}, {"bits": 0}, {"rounds": 7}, {"rounds": -1}, {"init": "zero"}, {"hidden": 0}, {"binary": False}],
)
def test_bad_parameters(wrong):
    with pytest.raises(InputError):
        Binariser(**({"dim": 8, "bits": 16} | wrong))
