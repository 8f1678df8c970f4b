"""Weight difference: nothing where nothing moved, closed forms elsewhere, and the rank of what was added."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from isometry.diagnostics import compare_weights
from isometry.errors import DimensionMismatch, EmptyInput, InputError


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 40), nn.BatchNorm1d(40), nn.Linear(40, 12))


def test_identical_models_differ_by_nothing(model):
    found = compare_weights(model, copy.deepcopy(model))
    assert len(found) == 8  # the counter of BatchNorm is an integer and does not count
    assert all((t.relative, t.largest, t.cosine, t.rank or 0) == (0, 0, 1, 0) for t in found.tensors)
    assert found.share() == 0
    assert found.histogram() == []


def test_closed_forms(model):
    after = copy.deepcopy(model)
    with torch.no_grad():
        after[0].weight.mul_(1.5)
        after[2].bias.neg_()
    found = compare_weights(model, after)
    assert found["0.weight"].relative == pytest.approx(0.5)
    assert found["0.weight"].cosine == pytest.approx(1)
    assert found["0.weight"].rank == 24
    assert found["0.weight"].largest == pytest.approx(model[0].weight.abs().max().item() / 2)
    assert found["2.bias"].relative == pytest.approx(2)
    assert found["2.bias"].cosine == pytest.approx(-1)
    assert found["2.bias"].rank is None
    assert found.share() == 0.25
    assert found.share(above=1) == 0.125
    assert sum(count for _, count in found.histogram()) == 2
    assert found.to_arrow().num_rows == 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rank", [1, 4])
def test_rank_of_a_merged_low_rank_update(dtype, rank):
    torch.manual_seed(rank)
    w = torch.randn(200, 64).to(dtype)
    update = 0.5 * torch.randn(200, rank) @ torch.randn(rank, 64)
    found = compare_weights({"w": w, "v": w}, {"w": (w + update).to(dtype), "v": w})
    assert found["w"].rank == rank
    assert found["v"].rank == 0


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, raised inside peft
def test_merged_lora_moves_only_what_it_targets():
    peft = pytest.importorskip("peft")
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48)
    base = BertModel(config)
    lora = peft.get_peft_model(copy.deepcopy(base), peft.LoraConfig(r=3, target_modules=["query", "value"]))
    with torch.no_grad():
        for name, parameter in lora.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    found = compare_weights(base, lora.merge_and_unload())
    moved = {t.name for t in found.tensors if t.relative > 0}
    assert moved == {name for name, _ in base.named_parameters() if name.endswith(("query.weight", "value.weight"))}
    assert {found[name].rank for name in moved} == {3}


def test_new_rows_are_counted_apart():
    old = torch.randn(5, 3)
    found = compare_weights({"w": old}, {"w": torch.cat([old, torch.ones(2, 3)])})["w"]
    assert (found.added_rows, found.relative, found.shape) == (2, 0.0, (7, 3))


def test_zero_tensors():
    zero, one = torch.zeros(3), torch.ones(3)
    assert compare_weights({"b": zero}, {"b": zero})["b"].relative == 0
    assert np.isinf(compare_weights({"b": zero}, {"b": one})["b"].relative)


def test_bad_input():
    one = torch.ones(2, 2)
    with pytest.raises(InputError, match=r"differ in 2 tensors, the first is 'a'"):
        compare_weights({"a": one}, {"b": one})
    with pytest.raises(DimensionMismatch, match=r"'a' has shape \[2, 2\] before and \[2, 3\] after"):
        compare_weights({"a": one}, {"a": torch.ones(2, 3)})
    with pytest.raises(EmptyInput, match="no floating-point tensor"):
        compare_weights({"a": one.long()}, {"a": one.long()})
    with pytest.raises(InputError, match="'a' holds NaN"):
        compare_weights({"a": one}, {"a": one * float("nan")})
    with pytest.raises(InputError, match="No tensor 'z'"):
        compare_weights({"a": one}, {"a": one})["z"]
