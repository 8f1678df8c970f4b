from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch

from isometry.modules import layer_embeddings
from isometry.objectives import CoSENT, FullOnly, Menu, Size, SizedLoss, align_coordinates
from isometry.objectives.sizes import Terms
from isometry.training import keep_texts
from isometry.training.fine_tuning import Settings
from isometry.training.masked_language import sentence_model
from isometry.training.rows import Rows
from isometry.training.sizes import embed_layers, tune_in_memory
from isometry.training.wordpiece import train_wordpiece

WORDS = ["red", "green", "blue", "one", "two", "three", "dog", "cat", "bird", "sings", "runs", "sleeps"]
RNG = np.random.default_rng(0)
TEXTS = [" ".join(RNG.choice(WORDS, RNG.integers(1, 20))) for _ in range(60)]
FULL = Size(2, 32)


@pytest.fixture(scope="module")
def model():
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(vocab_size=60, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
    tokenizer = train_wordpiece(TEXTS * 3, 60)
    config.vocab_size = len(tokenizer)
    return sentence_model(BertModel(config), tokenizer)


def rows() -> Rows:
    left, right = TEXTS[:30], TEXTS[30:]
    gold = [
        len(set(a.split()) & set(b.split())) / len(set(a.split()) | set(b.split()))
        for a, b in zip(left, right, strict=True)
    ]
    return Rows("sts", (left, right), gold)


def test_parts_of_like_length_give_the_same_embeddings(model):
    features = keep_texts(model.preprocess)(TEXTS[:12])
    with torch.no_grad():
        for a, b in zip(embed_layers(model, features), layer_embeddings(model, features), strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_training_lowers_the_loss_of_every_size_and_repeats(model):
    menu = (Size(1, 8), FULL)
    settings = Settings(40, 10, lr=1e-3, max_tokens=16)
    ends = []
    for _ in range(2):
        tuned = copy.deepcopy(model)
        loss = SizedLoss(tuned, embed_layers, CoSENT(), Menu(menu), full=FULL)
        history = tune_in_memory(tuned, rows(), loss, settings)
        assert loss.step == 40
        assert tuned.max_seq_length == model.max_seq_length
        assert not tuned.training
        ends.append(tuned.encode(TEXTS[:4], show_progress_bar=False))
    assert np.mean(history[-5:]) < np.mean(history[:5])
    np.testing.assert_array_equal(*ends)


def test_all_layers_at_once_is_the_adaptive_layer_loss_of_sentence_transformers(model):
    """That loss counts the token embeddings as its first layer, so it is written down as a schedule of its own."""
    from sentence_transformers.sentence_transformer.losses import AdaptiveLayerLoss, CoSENTLoss

    data, batch = rows(), list(range(8))
    features = [model.preprocess([column[row] for row in batch]) for column in data.columns]
    gold = torch.tensor([data.labels[row] for row in batch])
    tuned = copy.deepcopy(model)
    peer = AdaptiveLayerLoss(
        tuned, CoSENTLoss(tuned), n_layers_per_step=-1, layer_weighting="linear", kl_temperature=0.3
    )
    theirs = peer([dict(column) for column in features], gold)
    inner = range(FULL.layers)
    terms = Terms(
        {FULL: 1.0, **{Size(n, FULL.dims): 1 / (1 + n) / len(inner) for n in inner}},
        {Size(n, FULL.dims): 0.3 for n in inner},
    )
    align = partial(align_coordinates, temperature=0.3)
    ours = SizedLoss(tuned, layer_embeddings, CoSENT(scale=20.0), lambda step: terms, full=FULL, align=align)(
        features, gold
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_full_size_alone_is_training_on_the_loss_itself(model):
    states = []
    for wrap in (True, False):
        tuned = copy.deepcopy(model)
        loss = SizedLoss(tuned, layer_embeddings, CoSENT(), FullOnly(FULL), full=FULL) if wrap else CoSENT(tuned)
        tune_in_memory(tuned, rows(), loss, Settings(5, 8, lr=1e-3))
        states.append(tuned.encode(TEXTS[:4], show_progress_bar=False))
    np.testing.assert_allclose(*states, atol=1e-4)
