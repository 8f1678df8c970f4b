"""Perplexity against the model's own loss, whatever the batches."""

import math

import numpy as np
import pytest
import torch

from isometry.encoders.backbones import tiny_decoder
from isometry.errors import EmptyInput, InputError
from isometry.tasks.perplexity import perplexity, text_losses

ROWS = [[1, 5, 3], [2, 2], [9, 8, 7, 6, 5, 4, 3], [0, 1, 2, 3]]


@pytest.fixture(scope="module")
def lm():
    return tiny_decoder(12, dim=8, heads=2)


def test_matches_transformers_own_loss(lm):
    losses, counts = text_losses(lm, ROWS, batch_size=3)
    for row, loss, count in zip(ROWS, losses, counts, strict=True):
        ids = torch.tensor([row])
        with torch.no_grad():
            expected = float(lm(ids, labels=ids).loss)
        assert count == len(row) - 1
        assert loss / count == pytest.approx(expected, rel=1e-5)


def test_batch_size_does_not_matter(lm):
    seen = []
    first, _ = text_losses(lm, ROWS, batch_size=1)
    second, _ = text_losses(lm, ROWS, batch_size=4, progress=lambda done, total: seen.append((done, total)))
    np.testing.assert_allclose(first, second, rtol=1e-5)
    assert seen == [(4, 4)]


def test_over_all_tokens_not_over_texts(lm):
    scores = perplexity(lm, ROWS)
    losses, counts = text_losses(lm, ROWS)
    assert scores.facts["all_tokens"] == pytest.approx(math.exp(losses.sum() / counts.sum()))
    assert scores.facts["tokens"] == 12
    assert scores.by_unit("perplexity")["1"] == pytest.approx(math.exp(losses[1]))


def test_vocabulary_mask_lowers_perplexity(lm):
    known = torch.arange(12) < 10
    assert perplexity(lm, ROWS, vocabulary=known).facts["all_tokens"] < perplexity(lm, ROWS).facts["all_tokens"]


def test_bad_input(lm):
    with pytest.raises(InputError, match=r"\[1\]"):
        text_losses(lm, [[1, 2], [3]])
    with pytest.raises(EmptyInput):
        perplexity(lm, [])
