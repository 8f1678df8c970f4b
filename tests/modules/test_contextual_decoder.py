"""Causal2Vec inside a SentenceTransformer: two tokenizers, saving and loading."""

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from isometry.encoders.backbones import tiny_decoder, tiny_encoder
from isometry.errors import InputError
from isometry.modules.contextual_decoder import ContextualDecoder
from isometry.modules.contextual_token import ContextualToken

WORDS = ["the", "cat", "sat", "on", "a", "mat", "while", "dogs", "ran", "away", "from", "it"]
TEXTS = ["the cat sat", "dogs ran away from the mat", "it"]


def tokenizer(shift, eos=None):
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "</s>": 2} | {w: i + 3 for i, w in enumerate(WORDS[shift:] + WORDS[:shift])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="[UNK]", pad_token="[PAD]", eos_token=eos, model_max_length=32
    )


@pytest.fixture(scope="module")
def model():
    parts = ContextualToken(tiny_encoder(20, dim=8, heads=2), tiny_decoder(20, dim=8, heads=2))
    return SentenceTransformer(modules=[ContextualDecoder(parts, tokenizer(4), tokenizer(0, "</s>"), max_seq_length=6)])


def test_save_and_load_give_the_same_vectors(model, tmp_path):
    model.save(str(tmp_path))
    again = SentenceTransformer(str(tmp_path), device="cpu", trust_remote_code=True)
    np.testing.assert_allclose(again.encode(TEXTS), model.encode(TEXTS), atol=1e-6)
    assert again.get_embedding_dimension() == 16
    assert not list(tmp_path.rglob("*.bin"))


def test_batching_does_not_matter(model):
    together = model.encode(TEXTS)
    np.testing.assert_allclose(np.stack([model.encode(text) for text in TEXTS]), together, atol=1e-5)


def test_every_text_ends_in_eos_however_long(model):
    features = model.preprocess(["the cat sat on a mat while dogs ran away", "it"])
    ids, mask = features["input_ids"], features["attention_mask"]
    assert mask.sum(1).tolist() == [6, 2]
    assert [int(row[m.bool()][-1]) for row, m in zip(ids, mask, strict=True)] == [2, 2]
    assert features["encoder_attention_mask"].sum(1).tolist() == [10, 1]


def test_a_prompt_reaches_the_decoder_only(model):
    plain, told = model[0].preprocess(["cat"]), model[0].preprocess(["cat"], prompt="the ")
    assert (plain["encoder_input_ids"] == told["encoder_input_ids"]).all()
    assert told["input_ids"].shape[1] == plain["input_ids"].shape[1] + 1


def test_bad_input(tmp_path):
    parts = ContextualToken(tiny_encoder(20, dim=8, heads=2), tiny_decoder(20, dim=8, heads=2))
    with pytest.raises(InputError, match="no end-of-sequence"):
        ContextualDecoder(parts, tokenizer(0), tokenizer(0))
    with pytest.raises(InputError, match=r"no contextual_decoder\.json"):
        ContextualDecoder.load(str(tmp_path))
