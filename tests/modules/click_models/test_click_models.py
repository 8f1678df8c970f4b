"""Click models: closed forms, shapes, gradients, bad input."""

import pytest
import torch
from torch import nn

from isometry.errors import DimensionMismatch
from isometry.modules.click_models import DCN, DLRM, DeepFM, WideDeep
from isometry.modules.embedding_tables import FullEmbedding

MODELS = (DLRM, WideDeep, DeepFM, DCN)
FIELDS = {"a": 5, "b": 7, "c": 3}


def made(kind, dense=0):
    torch.manual_seed(0)
    return kind(FullEmbedding(15, 4, fields=FIELDS), 3, 4, dense=dense, hidden=(8, 6))


IDS = torch.tensor([[0, 6, 2], [4, 0, 1], [0, 6, 2]])


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("dense", [0, 2])
def test_rows_are_scored_one_by_one_and_everything_learns(kind, dense):
    model = made(kind, dense)
    features = torch.randn(3, 2)[[0, 1, 0]] if dense else None
    logits = model(IDS, features)
    assert logits.shape == (3,)
    torch.testing.assert_close(logits[0], logits[2])
    torch.testing.assert_close(model(IDS[:1], None if features is None else features[:1])[0], logits[0])
    logits.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("kind", MODELS)
def test_dense_features_must_be_there(kind):
    with pytest.raises(DimensionMismatch, match=r"\[3, 2\], got \(3, 0\)"):
        made(kind, 2)(IDS)
    with pytest.raises(DimensionMismatch, match=r"\[3, 0\]"):
        made(kind)(IDS, torch.zeros(3, 1))


def silence(network):
    for parameter in network.parameters():
        nn.init.zeros_(parameter)


def test_deep_fm_without_its_linear_parts_is_the_sum_of_pairwise_products():
    model = made(DeepFM)
    silence(model.first)
    silence(model.deep)
    v = model.table(IDS)
    expected = (v[:, 0] * v[:, 1] + v[:, 0] * v[:, 2] + v[:, 1] * v[:, 2]).sum(1)
    torch.testing.assert_close(model(IDS), expected)


def test_dlrm_sees_every_pair_once():
    model = made(DLRM)
    seen = []
    model.top.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    model(IDS)
    v = model.table(IDS)
    pairs = torch.stack([(v[:, i] * v[:, j]).sum(1) for i, j in ((0, 1), (0, 2), (1, 2))], 1)
    torch.testing.assert_close(seen[0][:, :3], pairs)
    torch.testing.assert_close(seen[0][:, 3:], v.flatten(1))


def test_dcn_crosses_by_its_recurrence():
    model = made(DCN)
    start = crossed = model.table(IDS).flatten(1)
    for cross, bias in zip(model.crosses, model.biases, strict=True):
        crossed = start * (crossed @ cross.weight.T) + bias + crossed
    expected = model.head(torch.cat([crossed, torch.relu(model.deep(start))], 1)).squeeze(1)
    torch.testing.assert_close(model(IDS), expected)
