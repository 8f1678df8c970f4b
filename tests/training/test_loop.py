"""The training loop: closed forms, determinism, restarts, bad input."""

import pytest
import torch
from torch import nn

from isometry.errors import EmptyInput, InputError
from isometry.negatives.sampling import DistinctBatches
from isometry.objectives.info_nce import info_nce
from isometry.training.loop import seeded, train
from isometry.training.students import apply_head, mlp_head


def pairs(n: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    centre = torch.randn(n, 8, generator=rng)
    return tuple(torch.cat([centre, 2 * torch.randn(n, 8, generator=rng)], 1) for _ in range(2))


def fit(seed: int = 0, **options) -> tuple[nn.Module, list[float]]:
    q, p = pairs()
    head = nn.Sequential(nn.Dropout(0.1), mlp_head((16, 16, 8), seed=seed))
    batches = DistinctBatches([{i} for i in range(64)], 16, seed=seed)
    options = {"steps": 40, "lr": 1e-2, "seed": seed} | options
    history = train(head, batches, lambda m, rows: info_nce(m(q[rows]), m(p[rows])), **options)
    return head, history


def test_loss_falls_and_held_out_pairs_come_closer() -> None:
    head, history = fit(steps=120)
    assert len(history) == 120
    assert sum(history[-10:]) < 0.5 * sum(history[:10])
    rng = torch.Generator().manual_seed(9)
    centre = torch.randn(64, 8, generator=rng)
    q, p = (torch.cat([centre, 2 * torch.randn(64, 8, generator=rng)], 1) for _ in range(2))
    before = float(info_nce(q, p))
    assert float(info_nce(*(torch.from_numpy(apply_head(head, x.numpy())) for x in (q, p)))) < before


def test_deterministic_for_a_seed_and_leaves_no_trace() -> None:
    state = torch.random.get_rng_state()
    first, second, other = fit(0), fit(0), fit(1)
    assert first[1] == second[1] != other[1]
    assert all(torch.equal(a, b) for a, b in zip(first[0].parameters(), second[0].parameters(), strict=True))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_weights_decay_and_biases_do_not() -> None:
    module = nn.Linear(3, 2)
    weight, bias = module.weight.detach().clone(), module.bias.detach().clone()
    train(module, [0], lambda m, _: 0.0 * (m.weight.sum() + m.bias.sum()), steps=1, lr=0.1, weight_decay=0.5)
    torch.testing.assert_close(module.weight.detach(), weight * (1 - 0.1 * 0.5))
    torch.testing.assert_close(module.bias.detach(), bias)


def test_long_gradients_are_shortened() -> None:
    lengths = {}
    for clip in (None, 1.0):
        module = nn.Linear(4, 1, bias=False)
        train(module, [0], lambda m, _: 7 * m.weight.sum(), steps=1, lr=0.1, clip=clip)
        lengths[clip] = float(module.weight.grad.norm())
    assert lengths == {None: pytest.approx(14.0), 1.0: pytest.approx(1.0, abs=1e-4)}


def test_learning_rate_rises_then_falls() -> None:
    """The gradient of the module's one parameter is 1 at every step, so Adam moves it by the learning rate itself."""
    module, seen = nn.Linear(1, 1, bias=False), []

    def loss(m, _):
        seen.append(m.weight.item())
        return m.weight.sum()

    train(module, [0], loss, steps=10, lr=0.5, warmup=0.2)
    moves = torch.tensor([a - b for a, b in zip(seen, [*seen[1:], module.weight.item()], strict=True)])
    torch.testing.assert_close(moves / 0.5, torch.tensor([0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]))


def test_goes_through_batches_again_and_announces_each_pass() -> None:
    seen, epochs = [], []

    class Told(list):
        def set_epoch(self, epoch):
            epochs.append(epoch)

    train(nn.Linear(1, 1), Told("ab"), lambda m, b: (seen.append(b), m.weight.sum())[1], steps=5)
    assert "".join(seen) == "ababa"
    assert epochs == [0, 1, 2]


def test_mode_and_progress() -> None:
    module, calls, modes = nn.Dropout(0.5), [], []
    module.weight = nn.Parameter(torch.ones(1))
    module.eval()
    train(
        module,
        [1],
        lambda m, _: (modes.append(m.training), m.weight.sum())[1],
        steps=3,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert modes == [True] * 3
    assert not module.training
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_frozen_parameters_do_not_move() -> None:
    module = mlp_head((2, 2, 2))
    module[0].weight.requires_grad_(False)
    before = module[0].weight.clone()
    train(module, [torch.ones(3, 2)], lambda m, x: m(x).square().sum(), steps=3)
    assert torch.equal(module[0].weight, before)


@pytest.mark.parametrize(
    ("batches", "options", "error", "message"),
    [
        ([], {"steps": 2}, EmptyInput, "no batch"),
        (iter([1]), {"steps": 2}, EmptyInput, "ended after 1 pass"),
        ([1], {"steps": 0}, InputError, "steps >= 1"),
        ([1], {"steps": 2, "warmup": 1.0}, InputError, "warmup < 1"),
    ],
)
def test_bad_input(batches, options, error, message) -> None:
    with pytest.raises(error, match=message):
        train(nn.Linear(1, 1), batches, lambda m, _: m.weight.sum(), **options)


def test_a_loss_that_is_not_finite_stops_training() -> None:
    module = nn.Linear(1, 1)
    before = module.weight.clone()
    with pytest.raises(InputError, match="nan at step 0"):
        train(module, [1], lambda m, _: m.weight.sum() * float("nan"), steps=3)
    assert torch.equal(module.weight, before)
    with pytest.raises(InputError, match="0 parameters"):
        train(nn.ReLU(), [1], lambda m, _: torch.ones(1), steps=3)


def test_seeded_restores_even_after_an_error() -> None:
    state = torch.random.get_rng_state()
    with pytest.raises(KeyError), seeded(3):
        raise KeyError(str(torch.rand(1)))
    assert torch.equal(torch.random.get_rng_state(), state)
