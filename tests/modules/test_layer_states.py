from __future__ import annotations

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    ModernBertConfig,
    ModernBertModel,
    Qwen3Config,
    Qwen3Model,
)

from isometry.errors import InputError
from isometry.modules import cut_layers, layer_embeddings, layer_readouts
from isometry.modules.layer_states import layer_states

TINY = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
IDS = torch.randint(0, 50, (3, 7), generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[1] * 7, [1] * 5 + [0] * 2, [1] * 7])


def body(kind: str):
    torch.manual_seed(0)
    if kind == "bert":
        return BertModel(BertConfig(**TINY)).eval()
    if kind == "modernbert":
        tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
        return ModernBertModel(ModernBertConfig(**TINY, **tokens)).eval()
    if kind == "qwen3":
        return Qwen3Model(Qwen3Config(**TINY, num_key_value_heads=2, head_dim=8)).eval()
    return (LlamaForCausalLM if kind == "causal" else LlamaModel)(LlamaConfig(**TINY)).eval()


@pytest.mark.parametrize("kind", ["bert", "llama", "causal", "qwen3", "modernbert"])
def test_cut_saved_and_loaded_is_the_readout_of_the_whole(kind, tmp_path):
    whole = body(kind)
    with torch.no_grad():
        readouts = layer_readouts(whole, input_ids=IDS, attention_mask=MASK)
        for n in (1, 3, 4):
            cut_layers(whole, n).save_pretrained(tmp_path / str(n))
            loaded = type(whole).from_pretrained(tmp_path / str(n)).eval()
            assert loaded.config.num_hidden_layers == n
            states = loaded(input_ids=IDS, attention_mask=MASK, output_hidden_states=True).hidden_states
            assert torch.equal(states[-1], readouts[n])
    assert len(readouts) == 5
    assert whole.config.num_hidden_layers == 4


def test_layer_states_are_those_of_the_library_and_index_zero_is_the_embedding_layer():
    whole = body("bert")
    with torch.no_grad():
        states = layer_states(whole, input_ids=IDS, attention_mask=MASK)
        expected = whole(input_ids=IDS, attention_mask=MASK, output_hidden_states=True).hidden_states
        assert torch.equal(states[0], whole.embeddings(IDS))
    assert all(torch.equal(a, b) for a, b in zip(states, expected, strict=True))


def test_states_before_the_final_norm_carry_gradient_and_accept_embeddings():
    whole = body("llama")
    embedded = whole.get_input_embeddings()(IDS)
    states = layer_states(whole, inputs_embeds=embedded, attention_mask=MASK)
    assert torch.equal(states[0], embedded)
    out = whole(input_ids=IDS, attention_mask=MASK).last_hidden_state
    assert not torch.allclose(states[-1], out)
    assert torch.allclose(whole.norm(states[-1]), out)
    states[2].sum().backward()
    assert whole.layers[1].self_attn.q_proj.weight.grad is not None
    assert whole.layers[2].self_attn.q_proj.weight.grad is None


def test_cut_copies_and_leaves_the_model_alone():
    whole = body("bert")
    cut = cut_layers(whole, 2)
    with torch.no_grad():
        cut.encoder.layer[0].attention.self.query.weight.zero_()
    assert len(whole.encoder.layer) == 4
    assert whole.encoder.layer[0].attention.self.query.weight.abs().sum() > 0
    assert sum(p.numel() for p in cut.parameters()) < sum(p.numel() for p in whole.parameters())


@pytest.fixture(scope="module")
def minilm():
    from isometry.encoders import load

    return load("minilm", engine="torch").model


def test_sentence_transformer_cut_saved_and_loaded_is_exact(minilm, tmp_path):
    from sentence_transformers import SentenceTransformer

    texts = ["A cat sits on the mat.", "Vectors of inner layers", "x"]
    features = minilm.preprocess(texts)
    with torch.no_grad():
        whole = layer_embeddings(minilm, features)
    assert len(whole) == 7
    for n, d in ((1, 32), (3, 96), (6, 384)):
        cut_layers(minilm, n).save(str(tmp_path / str(n)))
        cut = SentenceTransformer(str(tmp_path / str(n)), device="cpu")
        assert len(cut[0].auto_model.encoder.layer) == n
        vectors = torch.from_numpy(cut.encode(texts, truncate_dim=d, normalize_embeddings=True))
        expected = torch.nn.functional.normalize(whole[n][:, :d], dim=1)
        assert torch.allclose(vectors, expected, atol=1e-6)
        with torch.no_grad():
            pooled = layer_embeddings(cut, features)[-1]
        assert torch.equal(pooled, whole[n])


def test_layer_embeddings_do_not_touch_the_features(minilm):
    features = minilm.preprocess(["one", "two words"])
    before = set(features)
    layer_embeddings(minilm, features)
    assert set(features) == before


def test_first_token_of_a_causal_model_is_refused(tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "a": 2, "b": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(tmp_path)
    body("llama").save_pretrained(tmp_path)
    for pooling, fine in (("cls", False), ("mean", True)):
        model = SentenceTransformer(modules=[Transformer(str(tmp_path)), Pooling(32, pooling)], device="cpu")
        features = model.preprocess(["a b", "b"])
        if fine:
            assert layer_embeddings(model, features)[2].shape == (2, 32)
        else:
            with pytest.raises(InputError, match="first token of a causal model"):
                layer_embeddings(model, features)


@pytest.mark.parametrize("layers", [0, 5, -1])
def test_impossible_cuts_are_refused(layers):
    with pytest.raises(InputError, match=r"1\.\.4"):
        cut_layers(body("bert"), layers)


def test_a_module_without_blocks_is_refused():
    with pytest.raises(InputError, match="has no list of"):
        layer_states(torch.nn.Linear(2, 2), attention_mask=MASK)
