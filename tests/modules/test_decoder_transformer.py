"""A decoder as a sentence-transformers model: tokens, attention, prompts, saving and loading."""

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize
from sentence_transformers.sentence_transformer.modules import Pooling

from isometry.encoders.backbones import tiny_decoder
from isometry.errors import EmptyInput, InputError
from isometry.modules import DecoderTransformer, LatentAttention, TrainablePooling
from isometry.training.adapters import add_lora, merge_lora

TEXTS = ["a cat", "the dog sleeps on the old sofa", "rain"]


@pytest.fixture(scope="module")
def tokenizer(minilm):
    return minilm.model.tokenizer


def build(tokenizer, pooling, **options):
    body = DecoderTransformer(tiny_decoder(tokenizer.vocab_size, dim=16, heads=2), tokenizer, **options)
    return SentenceTransformer(modules=[body, pooling, Normalize()], device="cpu")


HEADS = {
    "latent attention": (lambda: LatentAttention(16, latents=4, heads=2, head_dim=8), {}),
    "last layer": (lambda: TrainablePooling(16, latents=4, heads=2, head_dim=8), {}),
    "layers": (
        lambda: TrainablePooling(16, layers=2, causal=True, latents=4, heads=2, head_dim=8),
        {"attention": "causal", "all_layers": True},
    ),
    "mean": (lambda: Pooling(16, "mean", include_prompt=False), {}),
}


@pytest.mark.parametrize("name", HEADS)
def test_save_and_load(name, tokenizer, tmp_path, capfd):
    make, options = HEADS[name]
    model = build(tokenizer, make(), max_seq_length=9, **options)
    model.save(str(tmp_path), create_model_card=False)
    back = SentenceTransformer(str(tmp_path), trust_remote_code=True, device="cpu")
    kwargs = {"prompt": "find: ", "show_progress_bar": False}
    assert np.array_equal(model.encode(TEXTS, **kwargs), back.encode(TEXTS, **kwargs))
    assert back[0].attention == model[0].attention
    assert (back.max_seq_length, back.get_embedding_dimension()) == (9, 16)
    assert "shards" not in capfd.readouterr().err


@pytest.mark.parametrize("name", HEADS)
def test_batching_and_padding_do_not_matter(name, tokenizer):
    make, options = HEADS[name]
    model = build(tokenizer, make(), **options)
    together, alone = (model.encode(TEXTS, batch_size=b, show_progress_bar=False) for b in (3, 1))
    assert np.allclose(together, alone, atol=1e-5)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


def test_every_text_ends_with_the_end_token_and_masks_come_from_lengths(tokenizer):
    body = DecoderTransformer(tiny_decoder(tokenizer.vocab_size, dim=16, heads=2), tokenizer, max_seq_length=5)
    body.tokenizer.pad_token_id, kept = tokenizer.sep_token_id, tokenizer.pad_token_id  # as in many decoders
    try:
        features = body.preprocess(["", "cat", "one two three four five six seven"])
    finally:
        tokenizer.pad_token_id = kept
    lengths = features["attention_mask"].sum(1)
    assert lengths.tolist() == [2, 3, 5]
    assert features["input_ids"][torch.arange(3), lengths - 1].eq(tokenizer.sep_token_id).all()


def test_prompt_length_counts_whole_tokens_of_the_prompt(tokenizer):
    body = DecoderTransformer(tiny_decoder(tokenizer.vocab_size, dim=16, heads=2), tokenizer)
    features = body.preprocess(["cat", "s and dogs"], prompt="find the pet")
    tokens = [tokenizer.convert_ids_to_tokens(row) for row in features["input_ids"].tolist()]
    # [CLS] find the pet ##cat, but [CLS] find the pets and dogs: there the last token is the text's as well
    assert features["prompt_length"].tolist() == [4, 3]
    assert [row[3] for row in tokens] == ["pet", "pets"]
    assert body.preprocess(["cat"], prompt="find: ")["prompt_length"].tolist() == [3]
    assert "prompt_length" not in body.preprocess(["cat"])


def test_instruction_is_seen_but_not_pooled(tokenizer):
    body = DecoderTransformer(tiny_decoder(tokenizer.vocab_size, dim=16, heads=2), tokenizer)
    features = body(body.preprocess(["cat"], prompt="find: "))
    states, length = features["token_embeddings"][0], int(features["prompt_length"][0])
    mean = SentenceTransformer(modules=[body, Pooling(16, "mean", include_prompt=False)], device="cpu")
    pooled = mean.encode(["cat"], prompt="find: ", show_progress_bar=False)[0]
    assert np.allclose(pooled, states[length:].mean(0).detach(), atol=1e-6)
    assert not np.allclose(pooled, mean.encode(["cat"], show_progress_bar=False)[0], atol=1e-4)


def test_instruction_that_fills_the_window_is_an_error(tokenizer):
    body = DecoderTransformer(tiny_decoder(tokenizer.vocab_size, dim=16, heads=2), tokenizer, max_seq_length=6)
    with pytest.raises(InputError, match=r"text 1: no tokens left to pool .*max_length=6, instruction=7 tokens"):
        body.preprocess(["", "cat"], prompt="one two three four five six ")


def test_bad_input(tokenizer):
    lm = tiny_decoder(tokenizer.vocab_size, dim=16, heads=2)
    with pytest.raises(InputError, match="attention must be"):
        DecoderTransformer(lm, tokenizer, attention="both")
    with pytest.raises(InputError, match="room"):
        DecoderTransformer(lm, tokenizer, max_seq_length=1)
    with pytest.raises(EmptyInput):
        DecoderTransformer(lm, tokenizer).preprocess([])


def test_adapters_are_merged_before_saving(tokenizer, tmp_path):
    pytest.importorskip("peft", reason="peft is not installed: pip install 'isometry[decoder]'")
    model = build(tokenizer, Pooling(16, "mean"))
    before = model.encode(TEXTS, show_progress_bar=False)
    add_lora(model, r=2)
    with pytest.raises(InputError, match="merge_lora"):
        model.save(str(tmp_path), create_model_card=False)
    assert np.allclose(model.encode(TEXTS, show_progress_bar=False), before, atol=1e-6)
    merge_lora(model).save(str(tmp_path), create_model_card=False)
