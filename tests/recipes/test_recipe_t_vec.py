"""T-VEC's plan for tuning: a loss of triplets whatever the rows are, and none for graded pairs."""

import copy

import pytest
import torch

from isometry.errors import InputError
from isometry.negatives import BatchTriplet
from isometry.objectives import TripletLoss
from isometry.recipes import t_vec
from isometry.training import Tuning, keep_texts

COLUMNS = [
    ["How do I reset my PIN?", "Where is my card?", "Is there a fee?"],
    ["I forgot my PIN", "My card has not come", "What do you charge?"],
    ["Change my address", "Block my card", "Close my account"],
]


def tuning(minilm, kind):
    model = copy.deepcopy(minilm.model)
    return Tuning(model, minilm.model, kind)


@pytest.mark.parametrize(("kind", "columns"), [("pairs", 2), ("triplets", 3), ("labelled", 2)])
def test_the_loss_is_a_triplet_loss_that_trains(minilm, kind, columns):
    chosen = tuning(minilm, kind)
    plan = t_vec.plan(chosen)
    assert isinstance(plan.loss, TripletLoss if kind == "triplets" else BatchTriplet)
    features = [keep_texts(chosen.model.preprocess)(column) for column in COLUMNS[:columns]]
    value = plan.loss(features, torch.tensor([0, 1, 1]) if kind == "labelled" else None)
    value.backward()
    assert 0 < value < 1.3
    assert any(p.grad is not None and p.grad.any() for p in chosen.model.parameters())


def test_graded_pairs_are_refused(minilm):
    with pytest.raises(InputError, match="scored pairs do not"):
        t_vec.plan(tuning(minilm, "sts"))
