"""QZhou-Embedding: its plan on any encoder gives each kind of rows its own loss."""

import pytest
import torch

from isometry.objectives import CoSENT, InfoNCE
from isometry.recipes.qzhou_embedding import loss_for, plan
from isometry.training import Tuning

PAIRS = [["my card is lost", "what is the rate", "a cat"], ["I lost my card", "which exchange rate", "the kitten"]]


def made(minilm, kind):
    return plan(Tuning(minilm.model, minilm.model, kind))


def value(minilm, kind, columns, labels=None):
    features = [{**minilm.model.preprocess(column), "text": column} for column in columns]
    with torch.no_grad():
        return float(made(minilm, kind).loss(features, labels))


def test_each_kind_has_its_loss(minilm):
    assert isinstance(made(minilm, "sts").loss, CoSENT)
    assert made(minilm, "pairs").loss.blocks == ("qd", "qq")
    assert isinstance(made(minilm, "triplets").loss, InfoNCE)
    assert made(minilm, "labelled").same_class_batches
    assert 0 < value(minilm, "pairs", PAIRS) < 100
    assert 0 < value(minilm, "triplets", [*PAIRS, ["a dog", "the sea", "a tree"]]) < 100


def test_rows_of_one_class_are_no_negatives_of_each_other(minilm):
    assert value(minilm, "labelled", PAIRS, torch.tensor([4, 4, 4])) == pytest.approx(0.0, abs=1e-6)
    assert value(minilm, "labelled", PAIRS, torch.tensor([0, 1, 2])) > 0


def test_graded_pairs_count_through_their_order(minilm):
    low, high = (value(minilm, "sts", PAIRS, torch.tensor(y)) for y in ([0.1, 0.5, 0.9], [0.1, 0.11, 1.0]))
    assert low == high
    assert value(minilm, "sts", PAIRS, torch.tensor([0.5, 0.5, 0.5])) == 0.0


def test_kinds_of_the_system():
    assert isinstance(loss_for("scored"), CoSENT)
    assert loss_for("scored", temperature=0.02).scale == pytest.approx(50)
    assert loss_for("class").mask is not loss_for("retrieval").mask
