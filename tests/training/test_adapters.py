"""Low-rank adapters: nothing changes at first, they alone are trained, merging keeps the function."""

import pytest
import torch

from isometry.encoders.backbones import tiny_decoder, tiny_encoder
from isometry.errors import InputError
from isometry.training import add_lora, merge_lora, train

pytest.importorskip("peft", reason="peft is not installed: pip install 'isometry[decoder]'")
IDS = torch.arange(12).reshape(2, 6)


def states(model):
    with torch.no_grad():
        return model.base_model(input_ids=IDS).last_hidden_state


@pytest.mark.parametrize("make", [tiny_decoder, tiny_encoder])
def test_added_trained_merged(make):
    model = make(40, dim=16, heads=2)
    before, frozen = states(model), {k: v.clone() for k, v in model.state_dict().items()}
    assert add_lora(model, r=2) is model
    assert torch.equal(states(model), before)
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable
    assert all("lora_" in name for name in trainable)
    train(model, [IDS], lambda m, ids: m.base_model(input_ids=ids).last_hidden_state.pow(2).mean(), steps=5, lr=1e-2)
    model.eval()
    trained = states(model)
    assert not torch.allclose(trained, before, atol=1e-3)
    for name, value in model.state_dict().items():
        if "lora_" not in name:
            assert torch.equal(value, frozen[name.replace("base_layer.", "")]), name
    merge_lora(model)
    assert torch.allclose(states(model), trained, atol=1e-5)
    assert model.state_dict().keys() == frozen.keys()
    assert all(p.requires_grad for p in model.parameters())


def test_update_is_alpha_over_r_times_b_a():
    model = add_lora(tiny_decoder(40, dim=16, heads=2), r=2, alpha=8, targets=["q_proj"])
    layer = model.base_model.layers[0].self_attn.q_proj
    torch.nn.init.normal_(layer.lora_B["default"].weight)
    expected = layer.base_layer.weight + 8 / 2 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    merge_lora(model)
    assert torch.allclose(model.base_model.layers[0].self_attn.q_proj.weight, expected, atol=1e-6)


def test_targets_and_seed():
    models = [add_lora(tiny_decoder(40, dim=16, heads=2), r=2, targets=["q_proj"], seed=s) for s in (0, 0, 1)]
    firsts = [next(p for p in m.parameters() if p.requires_grad) for m in models]
    assert torch.equal(firsts[0], firsts[1])
    assert not torch.equal(firsts[0], firsts[2])
    assert sum("lora_A" in name for name, _ in models[0].named_parameters()) == 2
    everything = add_lora(tiny_decoder(40, dim=16, heads=2))
    assert sum("lora_A" in name for name, _ in everything.named_parameters()) == 2 * 7
    assert not any("lm_head" in name and "lora" in name for name, _ in everything.named_parameters())


def test_bad_input():
    model = tiny_decoder(40, dim=16, heads=2)
    with pytest.raises(InputError, match="no linear layer named"):
        add_lora(model, targets=["nothing"])
    with pytest.raises(InputError, match="r >= 1"):
        add_lora(model, r=0)
    with pytest.raises(InputError, match="to merge"):
        merge_lora(model)
    add_lora(model)
    with pytest.raises(InputError, match="already"):
        add_lora(model)
