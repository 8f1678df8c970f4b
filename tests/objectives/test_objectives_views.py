"""Multi-positive contrastive loss over views: value, equivalences, masks, the loss object."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from isometry.errors import DimensionMismatch, InputError
from isometry.modules import GroupWhitening
from isometry.negatives import same_text
from isometry.objectives import MultiView, multi_view
from isometry.objectives.info_nce import info_nce


def views(count=3, n=8, d=5):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in range(count)]


def test_is_the_sum_of_cross_entropies_against_the_anchor_view():
    a, b, c = views()
    expected = sum(cross_entropy(normalize(a) @ normalize(v).T / 0.1, torch.arange(8)) for v in (b, c))
    torch.testing.assert_close(multi_view([a, b, c], temperature=0.1), expected)
    torch.testing.assert_close(multi_view([a, b]), info_nce(a, b))


def test_order_of_the_positives_does_not_matter_but_the_anchor_does():
    a, b, c = views()
    torch.testing.assert_close(multi_view([a, b, c]), multi_view([a, c, b]))
    assert not torch.isclose(multi_view([a, b, c]), multi_view([b, a, c]))


class Dropping(nn.Module):
    """A model whose only randomness is dropout."""

    def __init__(self):
        super().__init__()
        self.linear, self.dropout = nn.Linear(6, 6), nn.Dropout(0.3)

    def forward(self, column):
        return {"sentence_embedding": self.linear(self.dropout(column["x"]))}


def test_views_of_a_model_differ_by_dropout_alone():
    model = Dropping()
    column = {"x": torch.randn(16, 6), "text": [str(i) for i in range(16)]}
    loss = MultiView(model, views=3, whitening=GroupWhitening(6, 3), head=nn.Linear(6, 6))
    torch.manual_seed(0)
    value = loss([column, {"x": None}])  # a second column is not looked at
    torch.manual_seed(0)
    embeddings = [model(column)["sentence_embedding"] for _ in range(3)]
    assert not torch.equal(embeddings[0], embeddings[1])
    assert value > 0
    value.backward()
    assert model.linear.weight.grad.abs().sum() > 0
    model.eval()
    same = [model(column)["sentence_embedding"] for _ in range(2)]
    assert torch.equal(*same)


def test_each_view_is_whitened_by_itself():
    a, b, c = views(n=16)
    loss = MultiView(whitening=GroupWhitening(5, 1))  # one group: whatever the permutation
    moved = loss.compute_loss_from_embeddings([a, b + 5, c])  # whitened together, the views would be torn apart
    torch.testing.assert_close(moved, loss.compute_loss_from_embeddings([a, b, c]))
    assert not torch.isclose(multi_view([a, b + 5, c]), multi_view([a, b, c]))


def test_a_repeated_text_is_no_negative():
    a, b = (view[:2].clone() for view in views(2))
    loss = MultiView(mask=same_text)
    assert float(loss.compute_loss_from_embeddings([a, b], texts=[["x", "X "], ["x", "X "]])) == 0.0
    assert float(loss.compute_loss_from_embeddings([a, b], texts=[["x", "y"], ["x", "y"]])) > 0.0


def test_bad_input():
    with pytest.raises(InputError, match="at least two, got 1"):
        multi_view(views(1))
    with pytest.raises(DimensionMismatch, match="one shape"):
        multi_view([torch.ones(2, 3), torch.ones(3, 3)])
    with pytest.raises(InputError, match="at least two are needed"):
        MultiView(views=1)
    with pytest.raises(InputError, match="no model"):
        MultiView()([{}])
    assert MultiView(views=3).get_config_dict()["views"] == 3
