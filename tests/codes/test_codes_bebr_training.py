"""Training of the binariser: pairs, queue, backward compatibility, determinism."""

import copy

import numpy as np
import pytest
import torch

from isometry.codes.recurrent_binary import Binariser, CodeQueue, Old, Training, both_ways, train_binariser
from isometry.codes.recurrent_binary.training import batch_loss, near_neighbours
from isometry.errors import InputError


def unit(n, d=16, seed=0):
    x = np.random.default_rng(seed).standard_normal((n, d), dtype=np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def net(seed=0, **options):
    return Binariser(16, 32, 1, hidden=24, seed=seed, **options)


NCE = Training("nce", epochs=2, batch=32, lr=1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        Training(epochs=6, batch=32, lr=1e-3),
        Training("nce", epochs=6, batch=32, lr=1e-3),
        Training("nce", epochs=6, batch=32, lr=1e-3, copies="noise", queue=64),
        Training("nce", 6, 32, "sgd", 0.05, 1e-3),
    ],
    ids=["distill", "neighbour", "noise and queue", "sgd"],
)
def test_loss_falls_and_seeds_decide(settings):
    x, runs = unit(200), []
    for _ in range(2):
        network = net(init="paper")
        history = train_binariser(network, x, settings=settings, seed=4)
        runs.append(network.weights())
        assert np.mean(history[-2:]) < history[0]
        assert not network.training
    np.testing.assert_array_equal(*runs)


def test_pairs_learn_a_map_between_two_views():
    x = unit(600)
    turned = x @ np.linalg.qr(np.random.default_rng(9).standard_normal((16, 16)))[0].astype(np.float32) * 0.5 + x * 0.5
    turned /= np.linalg.norm(turned, axis=1, keepdims=True)
    network = net(init="paper")

    def found():
        with torch.no_grad():
            q, d = (
                torch.nn.functional.normalize(network.eval()(torch.from_numpy(s[500:])), dim=1) for s in (x, turned)
            )
        return float(((q @ d.T).argmax(1) == torch.arange(100)).float().mean())

    before = found()
    train_binariser(network, x[:500], turned[:500], settings=Training("nce", 10, 64, lr=2e-3), seed=0)
    assert found() > before + 0.1  # on held-out rows


def test_compatible_loss_of_itself_is_twice_the_plain_one():
    network, x = net().eval(), torch.from_numpy(unit(20))
    y, ids = torch.from_numpy(unit(20, seed=1)), (torch.arange(20), torch.arange(20))
    plain = batch_loss(network, (x, y), ids, None, NCE)
    twice = batch_loss(network, (x, y), ids, network(y).detach(), NCE)
    torch.testing.assert_close(twice, 2 * plain)


def test_old_codes_are_frozen_and_reached():
    x, old = unit(300), net(seed=7).eval()
    with torch.no_grad():
        codes = old(torch.from_numpy(x)).numpy()
    before = old.weights()

    def cross(network):
        with torch.no_grad():
            return float(both_ways(network.eval()(torch.from_numpy(x)), torch.from_numpy(codes)))

    plain, compatible = net(init="paper"), net(init="paper")
    settings = Training("nce", 8, 50, lr=2e-3)
    train_binariser(plain, x, settings=settings)
    train_binariser(compatible, x, settings=settings, old=Old(codes))
    assert cross(compatible) < 0.75 * cross(plain)
    np.testing.assert_array_equal(old.weights(), before)


def test_queue_follows_and_forgets():
    network = net()
    queue = CodeQueue(network, 5, momentum=0.9)
    start = copy.deepcopy(network)
    with torch.no_grad():
        for p in network.parameters():
            p += 1
    a, b = torch.from_numpy(unit(3)), torch.from_numpy(unit(3, seed=1))
    for step in range(3):
        ids = torch.arange(3 * step, 3 * step + 3)
        queue.push(network, (a, b), (ids, ids + 100))
    assert queue.ids[0].tolist() == [4, 5, 6, 7, 8]
    assert queue.ids[1].tolist() == [104, 105, 106, 107, 108]
    assert queue.codes[0].shape == (5, 32)
    expected = torch.cat([queue.follower(a)] * 2)[-3:]
    torch.testing.assert_close(queue.codes[0][-3:], expected)
    for slow, first in zip(queue.follower.parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(slow, first + (1 - 0.9**3))
    assert not queue.codes[0].requires_grad


def test_near_neighbours_in_one_chunk_are_exact():
    x = unit(50)
    cosines = x @ x.T
    np.fill_diagonal(cosines, -1)
    np.testing.assert_array_equal(near_neighbours(x, np.random.default_rng(0)), cosines.argmax(axis=1))
    found = near_neighbours(x, np.random.default_rng(0), chunk=10)
    assert (found != np.arange(50)).all()


def test_progress_counts_steps():
    seen = []
    train_binariser(net(), unit(70), settings=Training(epochs=2, batch=32), progress=lambda *done: seen.append(done))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_rest_of_one_row_is_left_out():
    train_binariser(net(), unit(65), settings=Training(epochs=1, batch=64))


def test_bad_input():
    for wrong in ({"objective": "x"}, {"optimizer": "x"}, {"copies": "x"}, {"epochs": -1}, {"batch": 1}, {"lr": 0}):
        with pytest.raises(InputError):
            Training(**wrong)
    with pytest.raises(InputError, match="at least two rows"):
        train_binariser(net(), unit(1), settings=NCE)
    with pytest.raises(InputError, match="as many of every kind"):
        train_binariser(net(), unit(9), unit(8), settings=NCE)
    broken = net()
    with torch.no_grad():
        broken.first.mlp[0].weight[0, 0] = float("nan")
    with pytest.raises(InputError, match="The loss is"):
        train_binariser(broken, unit(64), settings=NCE)
