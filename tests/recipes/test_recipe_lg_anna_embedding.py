"""LG-ANNA's plan for tuning: contrastive loss and soft labels of the start model, which agree at the start."""

import copy

import pytest
import torch

from isometry.errors import InputError
from isometry.objectives import InfoNCE
from isometry.recipes import lg_anna_embedding
from isometry.training import Tuning, keep_texts

COLUMNS = [["How do I reset my PIN?", "Where is my card?"], ["I forgot my PIN", "My card has not come"]]


def tuning(minilm, kind):
    return Tuning(copy.deepcopy(minilm.model), minilm.model, kind)


@pytest.mark.parametrize("kind", ["pairs", "labelled"])
def test_soft_labels_add_only_their_distance_from_the_start(minilm, kind):
    chosen = tuning(minilm, kind)
    chosen.model.eval()
    loss = lg_anna_embedding.plan(chosen).loss
    features = [keep_texts(chosen.model.preprocess)(column) for column in COLUMNS]
    labels = torch.tensor([0, 1]) if kind == "labelled" else None
    plain = InfoNCE(chosen.model)(features, labels)
    assert float((loss(features, labels) - plain).detach()) == pytest.approx(0, abs=1e-4)
    with torch.no_grad():
        for parameter in chosen.model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    assert float((loss(features, labels) - InfoNCE(chosen.model)(features, labels)).detach()) > 0
    loss(features, labels).backward()
    assert all(p.grad is None for p in minilm.model.parameters())


def test_graded_pairs_are_refused(minilm):
    with pytest.raises(InputError, match="what belongs together"):
        lg_anna_embedding.plan(tuning(minilm, "sts"))
