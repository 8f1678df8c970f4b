"""A weighted sum is the sum, embeds once, and leaves out what weighs nothing."""

import pytest
import torch
from torch import nn

from isometry.errors import EmptyInput, InputError
from isometry.objectives import Distillation, InfoNCE, WeightedSum


class Counting(nn.Module):
    """A model that counts its calls."""

    calls = 0

    def forward(self, features):
        self.calls += 1
        return {"sentence_embedding": features["x"]}


def test_sum_and_single_pass():
    torch.manual_seed(0)
    columns, labels = list(torch.randn(3, 4, 5)), torch.rand(4, 2)
    first, second, model = InfoNCE(), Distillation(), Counting()
    both = WeightedSum(model, parts=[(1.0, first), (0.3, second)])
    values = [part.compute_loss_from_embeddings(columns, labels) for part in (first, second)]
    torch.testing.assert_close(both([{"x": column} for column in columns], labels), values[0] + 0.3 * values[1])
    assert model.calls == 3


def test_weight_zero_is_the_other_loss_alone():
    columns = list(torch.randn(2, 4, 5))
    alone = InfoNCE()
    both = WeightedSum(parts=[(1.0, alone), (0.0, Distillation())])  # which would ask for labels
    assert both.compute_loss_from_embeddings(columns) == alone.compute_loss_from_embeddings(columns)


def test_learned_temperatures_are_parameters():
    both = WeightedSum(parts=[(1.0, InfoNCE(learn=True))])
    assert [name for name, _ in both.named_parameters()] == ["losses.0.log_temperature"]


def test_bad_input():
    with pytest.raises(EmptyInput, match="needs a loss"):
        WeightedSum(parts=[(0.0, InfoNCE())])
    with pytest.raises(InputError, match=">= 0"):
        WeightedSum(parts=[(1.0, InfoNCE()), (-1.0, InfoNCE())])
