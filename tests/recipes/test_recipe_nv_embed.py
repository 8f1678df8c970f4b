"""The plan of nv-embed on any encoder: what it leaves out of the denominator for each kind of rows."""

import pytest
import torch

from isometry.errors import InputError
from isometry.recipes.nv_embed import plan
from isometry.training import Tuning

TEXTS = {
    "pairs": [["my card is lost", "what is the rate"], ["I lost my card", "which exchange rate"]],
    "triplets": [["my card is lost", "what is the rate"], ["I lost my card", "which rate"], ["a cat", "a dog"]],
    "labelled": [["my card is lost", "what is the rate"], ["I lost my card", "which exchange rate"]],
}


def tuning(minilm, kind):
    return Tuning(minilm.model, minilm.model, kind)


def loss_of(minilm, kind, columns, labels=None):
    features = [{**minilm.model.preprocess(column), "text": column} for column in columns]
    with torch.no_grad():
        return float(plan(tuning(minilm, kind)).loss(features, labels))


@pytest.mark.parametrize("kind", TEXTS)
def test_every_kind_of_rows_has_a_finite_loss(minilm, kind):
    labels = torch.tensor([0, 1]) if kind == "labelled" else None
    assert 0 < loss_of(minilm, kind, TEXTS[kind], labels) < 100


def test_rows_of_one_class_are_no_negatives(minilm):
    same = loss_of(minilm, "labelled", TEXTS["labelled"], torch.tensor([3, 3]))
    assert same == pytest.approx(0.0, abs=1e-6)  # nothing is left but the positives


def test_what_the_start_finds_too_close_is_no_negative(minilm):
    copies = [["my card is lost", "I lost my card"], ["lost my card", "my card is lost"]]
    assert loss_of(minilm, "pairs", copies) == pytest.approx(0.0, abs=1e-6)


def test_triplets_see_their_own_negative_alone(minilm):
    one = [[column[0]] for column in TEXTS["triplets"]]
    other = [[column[1]] for column in TEXTS["triplets"]]
    mean = (loss_of(minilm, "triplets", one) + loss_of(minilm, "triplets", other)) / 2
    assert loss_of(minilm, "triplets", TEXTS["triplets"]) == pytest.approx(mean, abs=1e-4)


def test_scored_pairs_are_refused(minilm):
    with pytest.raises(InputError, match="scored pairs"):
        plan(tuning(minilm, "sts"))
