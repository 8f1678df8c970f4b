"""KaLM-Embedding-V2: its plan on any encoder, and the errors it plants."""

import numpy as np
import pytest
import torch

from isometry.errors import InputError
from isometry.lab.paraphrases import Paraphrases
from isometry.objectives import InfoNCE, Matryoshka
from isometry.recipes.kalm_embedding_v2 import fact_table, plan, plant
from isometry.training import Tuning

PAIRS = [["my card is lost", "what is the rate", "a cat"], ["I lost my card", "which exchange rate", "the kitten"]]
TEXTS = {"pairs": PAIRS, "triplets": [*PAIRS, ["a dog", "the sea", "a tree"]], "labelled": PAIRS}


def tuning(minilm, kind):
    return Tuning(minilm.model, minilm.model, kind)


@pytest.mark.parametrize("kind", TEXTS)
def test_every_kind_of_rows_has_a_loss_with_gradient(minilm, kind):
    features = [{**minilm.model.preprocess(column), "text": column} for column in TEXTS[kind]]
    labels = torch.tensor([0, 1, 2]) if kind == "labelled" else None
    made = plan(tuning(minilm, kind))
    embedded = [minilm.model(column)["sentence_embedding"].detach().requires_grad_() for column in features]
    value = made.loss.compute_loss_from_embeddings(embedded, labels, TEXTS[kind])
    value.backward()
    assert 0 < value.item() < 100
    assert all(column.grad.abs().sum() > 0 for column in embedded)
    assert isinstance(made.loss, Matryoshka)
    assert isinstance(made.loss.loss, InfoNCE)
    assert made.loss.dims == (384, 192, 96, 48)


def test_scored_pairs_are_refused(minilm):
    with pytest.raises(InputError, match="scored pairs"):
        plan(tuning(minilm, "sts"))


def test_planted_errors_are_exactly_the_flagged_rows():
    right = [f"text {i % 150}" for i in range(200)]
    data = Paraphrases([""] * 200, right, ([], []), None)
    planted, wrong = plant(data, 0)
    assert [a != b for a, b in zip(planted, right, strict=True)] == wrong.tolist()
    assert 0.1 < wrong.mean() < 0.3


def test_hard_negatives_of_facts_are_their_siblings_and_never_the_positive():
    family = np.array([0, 0, 0, 1, 1, 1, -1, -1])
    table = fact_table(family, 0.0, 0)
    assert table[:, 0].tolist() == list(range(8))
    for row in range(6):
        assert set(table[row, 1:]) <= set(np.flatnonzero(family == family[row])) - {row}
