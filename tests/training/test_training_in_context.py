"""A small causal transformer learns to read examples; documents do not depend on them."""

import numpy as np
import pytest
import torch

from isometry.data import AttributeExamples
from isometry.encoders import tiny_decoder
from isometry.training import accuracy_in_context, train_in_context
from isometry.training.in_context import embed_last


@pytest.fixture(scope="module")
def task():
    return AttributeExamples(attributes=3, values=4)


@pytest.fixture(scope="module")
def trained(task):
    model = tiny_decoder(task.vocabulary, dim=32, layers=2, heads=2, seed=0)
    losses = train_in_context(model, task, steps=150, batch_size=32, most=3, lr=5e-3)
    assert losses[-1] < losses[0]
    return model


def test_examples_tell_the_task_and_nothing_else_does(task, trained):
    without, with_two = (accuracy_in_context(trained, task, count, queries=300, seed=1) for count in (0, 2))
    assert without == pytest.approx(task.chance, abs=0.1)
    assert with_two > 0.8


def test_padding_on_the_left_changes_nothing(task, trained):
    batch = task.batch(np.array([0, 3, 1]), np.random.default_rng(0))
    with torch.no_grad():
        together = embed_last(trained.base_model, batch.ids, batch.mask)
        for row, mask in enumerate(batch.mask):
            alone = embed_last(trained.base_model, batch.ids[row : row + 1, mask == 1])
            torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-5)


def test_training_is_deterministic(task):
    states = []
    for _ in range(2):
        model = tiny_decoder(task.vocabulary, dim=8, layers=1, heads=2)
        train_in_context(model, task, steps=3, batch_size=4, seed=5)
        states.append(torch.cat([parameter.flatten() for parameter in model.parameters()]))
    assert torch.equal(*states)
