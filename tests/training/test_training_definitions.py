"""Definition training: the matrix of entries, rounds, what changes and what does not, masked models."""

import numpy as np
import pytest
import torch

from isometry.data import Dictionary
from isometry.encoders.backbones import tiny_encoder
from isometry.errors import DataWarning, InputError, UnknownName
from isometry.training import (
    DefinitionTraining,
    entry_vectors,
    prompt_vectors,
    raw_encoder,
    sentence_model,
    train_definitions,
    train_wordpiece,
)
from isometry.training.definitions import encode, isotropic_entries, pooler
from isometry.training.masked_language import masked_language_modelling, prediction_head

COLOURS = ["red", "green", "blue", "white", "black", "brown"]
THINGS = ["bird", "stone", "house", "river", "flower"]
TEXTS = [f"a {colour} {thing} that is seen in the {place}" for colour in COLOURS for thing in THINGS for place in
         ("north", "south")]  # fmt: skip
ROWS = [(f"{c} {t}", [x for x in TEXTS if f" {c} {t} " in x]) for c in COLOURS for t in THINGS]


@pytest.fixture(scope="module")
def start():
    return raw_encoder(TEXTS, vocab=120, dim=32, layers=1, steps=20).model


@pytest.fixture(scope="module")
def dictionary():
    return Dictionary.of(ROWS)


def test_entries_are_means_of_their_definitions():
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    owners = [(0,), (1, 2), (2,), (2,), (1,)]
    found = entry_vectors(x, owners, 3)
    np.testing.assert_allclose(found, [x[0], x[[1, 4]].mean(0), x[[1, 2, 3]].mean(0)], atol=1e-6)
    np.testing.assert_allclose(entry_vectors(x[::-1], owners[::-1], 3), found, atol=1e-6)
    with pytest.raises(InputError, match="Each of the 4 entries"):
        entry_vectors(x, owners, 4)
    with pytest.raises(InputError, match="each of the 4 vectors"):
        entry_vectors(x[:4], owners, 3)


def test_training_finds_entries_and_leaves_the_start_alone(start, dictionary):
    before = {name: value.clone() for name, value in start.state_dict().items()}
    settings = DefinitionTraining(steps=200, batch_size=12, lr=1e-2)
    targets = 3 * np.random.default_rng(0).normal(size=(len(dictionary.entries), 32)).astype(np.float32)
    run = train_definitions(start, dictionary, settings, entries=targets, seed=0)
    assert all(torch.equal(value, before[name]) for name, value in start.state_dict().items())
    assert np.mean(run.losses[0][-5:]) < 0.5 * run.losses[0][0]
    logits = run.project(encode(run.model, dictionary.definitions)) @ run.entries.T
    right = np.mean([row.argmax() in own for row, own in zip(logits, dictionary.owners, strict=True)])
    assert right > 0.5
    assert np.array_equal(run.entries, targets)
    again = train_definitions(start, dictionary, settings, entries=targets, seed=0)
    assert again.losses == run.losses


def test_rounds_begin_at_the_start_and_make_new_targets(start, dictionary):
    settings = DefinitionTraining(steps=8, batch_size=12, lr=3e-3, rounds=2)
    run = train_definitions(start, dictionary, settings)
    first = train_definitions(start, dictionary, DefinitionTraining(steps=8, batch_size=12, lr=3e-3))
    assert run.losses[0] == first.losses[0]
    expected = entry_vectors(encode(first.model, dictionary.definitions), dictionary.owners, len(dictionary.entries))
    np.testing.assert_allclose(run.entries, expected, atol=1e-5)
    second = train_definitions(start, dictionary, DefinitionTraining(steps=8, batch_size=12, lr=3e-3),
                               entries=expected, seed=1)  # fmt: skip
    np.testing.assert_allclose(second.losses[0][1:], run.losses[1][1:], rtol=0.3)  # only the pooler's seed differs


def test_rates_go_by_round_and_the_last_rounds_are_isotropic(start, dictionary):
    settings = DefinitionTraining(steps=8, batch_size=12, lr=(3e-3, 1e-9), rounds=2, ica_rounds=1, ica_scale=10.0)
    with pytest.warns(DataWarning, match="PCA whitening takes the place of ICA"):  # 30 entries are few
        run = train_definitions(start, dictionary, settings)
    for name, value in run.model.state_dict().items():  # the last round hardly moved, and began at the start
        torch.testing.assert_close(value, start.state_dict()[name], atol=1e-5, rtol=1e-5)
    first = train_definitions(start, dictionary, DefinitionTraining(steps=8, batch_size=12, lr=3e-3))
    assert run.losses[0] == first.losses[0]
    used = run.entries[:, run.entries.any(axis=0)]
    np.testing.assert_allclose(np.cov(used.T, bias=True), 100 * np.eye(used.shape[1]), atol=0.5)


def test_isotropic_entries_keep_their_width():
    x = np.random.default_rng(0).laplace(size=(300, 6)).astype(np.float32)
    x[:, 5] = -x[:, :5].sum(1)
    parts = isotropic_entries(x, scale=100.0)
    assert parts.shape == (300, 6)
    assert not parts[:, 5].any()
    np.testing.assert_allclose(np.cov(parts[:, :5].T, bias=True) / 1e4, np.eye(5), atol=1e-3)


def test_pooler_takes_the_models_own_weights():
    from transformers import BertConfig, BertModel

    texts = ["one two three four"] * 3
    tokenizer = train_wordpiece(texts, 40)
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=16)  # fmt: skip
    body = BertModel(config)
    head = pooler(sentence_model(body, tokenizer))
    assert torch.equal(head[0].weight, body.pooler.dense.weight)
    assert isinstance(head[1], torch.nn.Tanh)


def test_pooler_begins_with_the_weights_given():
    dense = torch.nn.Linear(32, 32)
    model = sentence_model(tiny_encoder(50, dim=32, layers=1), train_wordpiece(TEXTS, 120))
    assert model[0].auto_model.pooler is None  # none was there, so none may be made up
    head = pooler(model, "gelu", dense=dense)
    assert torch.equal(head[0].weight, dense.weight)
    assert head[0].weight is not dense.weight
    assert torch.equal(pooler(model, seed=1)[0].weight, pooler(model, seed=1)[0].weight)


def test_a_prediction_head_brings_the_weights_of_a_pooler(tmp_path):
    from transformers import RobertaConfig, RobertaForMaskedLM

    mlm = RobertaForMaskedLM(RobertaConfig(vocab_size=40, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
                                           intermediate_size=16))  # fmt: skip
    mlm.save_pretrained(tmp_path)
    assert torch.equal(prediction_head(str(tmp_path)).dense.weight, mlm.lm_head.dense.weight)


def test_entries_may_be_pooled_otherwise_than_sentences(start, dictionary):
    settings = DefinitionTraining(steps=1, batch_size=4, targets="cls")
    run = train_definitions(start, dictionary, settings)
    features = start.preprocess(list(dictionary.definitions))
    inputs = {name: features[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        first = start[0].auto_model.eval()(**inputs).last_hidden_state[:, 0].numpy()
    expected = entry_vectors(first, dictionary.owners, len(dictionary.entries))
    np.testing.assert_allclose(run.entries, expected, atol=1e-5)
    assert run.model[1].pooling_mode == "mean"


def test_masked_language_modelling_learns_and_keeps_the_head_apart():
    tokenizer = train_wordpiece(TEXTS, 120)
    model = sentence_model(tiny_encoder(len(tokenizer), dim=32, layers=1), tokenizer)
    raw = masked_language_modelling(model, TEXTS, steps=60, batch_size=20, lr=5e-3)
    assert np.mean(raw.losses[-5:]) < 0.8 * np.mean(raw.losses[:5])
    assert raw.model is model
    body = model[0].auto_model
    assert not body.training
    assert raw.head.last.weight is body.get_input_embeddings().weight
    states = torch.randn(3, 32)
    assert raw.head(states).shape == (3, len(tokenizer))
    assert raw.head.dense.weight.shape == (32, 32)
    again = sentence_model(tiny_encoder(len(tokenizer), dim=32, layers=1), tokenizer)
    assert masked_language_modelling(again, TEXTS, steps=60, batch_size=20, lr=5e-3).losses == raw.losses


def test_prompted_vectors_are_the_masks_states(start):
    vectors = prompt_vectors(start, ["a red bird", "a blue stone"])
    assert vectors.shape == (2, 32)
    assert not np.allclose(vectors[0], vectors[1])
    with pytest.raises(InputError, match="template with"):
        prompt_vectors(start, ["x"], template="no mask {text}")
    with pytest.raises(InputError, match="too long for the model's window"):
        prompt_vectors(start, ["a red bird " * 50])


def test_a_sentence_model_saves_and_loads(start, tmp_path):
    from isometry.encoders import load

    start.save(str(tmp_path / "model"))
    again = load(tmp_path / "model", engine="torch").model
    np.testing.assert_allclose(again.encode(["a red bird"]), start.encode(["a red bird"]), atol=1e-5)


def test_bad_settings():
    with pytest.raises(InputError, match="ica_rounds <= rounds"):
        DefinitionTraining(steps=1, ica_rounds=2)
    with pytest.raises(UnknownName, match="activation 'relu'"):
        DefinitionTraining(steps=1, activation="relu")
    with pytest.raises(InputError, match="first round"):
        DefinitionTraining(steps=1, lr=())
