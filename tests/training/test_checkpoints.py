"""An interrupted loop goes on as if it had never stopped."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from isometry.errors import InputError
from isometry.training import Checkpoints, train


def _model() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 2))


def _batches() -> list[Tensor]:
    return list(torch.randn(7, 5, 4, generator=torch.Generator().manual_seed(0)))


def _loss(module: nn.Module, batch: Tensor) -> Tensor:
    return module(batch).square().mean()


class _Killed(Exception):
    pass


@pytest.mark.parametrize("stop", [3, 4, 9, 11])
def test_resumed_run_equals_uninterrupted(tmp_path, stop):
    whole = _model()
    expected = train(whole, _batches(), _loss, steps=12, lr=0.05)
    model = _model()

    def killer(done: int, total: int | None) -> None:
        if done == stop:
            raise _Killed

    with pytest.raises(_Killed):
        train(model, _batches(), _loss, steps=12, lr=0.05, progress=killer, keep=Checkpoints(tmp_path / "c", every=2))
    again = _model()
    found = train(again, _batches(), _loss, steps=12, lr=0.05, keep=Checkpoints(tmp_path / "c", every=2))
    assert found == expected
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_half_written_state_is_passed_over(tmp_path):
    keep = Checkpoints(tmp_path, every=2)
    train(_model(), _batches(), _loss, steps=4, keep=keep)
    whole = tmp_path / "step-4"
    (tmp_path / "step-9").mkdir()
    (tmp_path / "step-9" / "state.json").write_text('{"losses": [')
    (tmp_path / "part-x").mkdir()
    model = _model()
    assert len(keep.restore(model, torch.optim.AdamW(model.parameters()))) == 4
    assert [path.name for path in tmp_path.iterdir()] == [whole.name]


def test_state_of_another_run_is_refused(tmp_path):
    train(_model(), _batches(), _loss, steps=2, keep=Checkpoints(tmp_path, every=1, about={"lr": 1, "data": "a"}))
    with pytest.raises(InputError, match="other lr; repeat"):
        train(_model(), _batches(), _loss, steps=2, keep=Checkpoints(tmp_path, every=1, about={"lr": 2, "data": "a"}))


def test_finished_run_gives_its_losses_again(tmp_path):
    first = train(_model(), _batches(), _loss, steps=4, keep=Checkpoints(tmp_path, every=4))
    again = train(_model(), _batches(), _loss, steps=4, keep=Checkpoints(tmp_path, every=4))
    assert first == again


def test_bad_interval(tmp_path):
    with pytest.raises(InputError, match="every"):
        Checkpoints(tmp_path, every=0)
