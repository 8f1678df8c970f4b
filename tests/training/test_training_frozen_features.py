"""Features computed once."""

import numpy as np
import pytest

from isometry.encoders import load
from isometry.errors import InputError
from isometry.training import FrozenFeatures, decoder_embedder, layer_features


@pytest.fixture(scope="module")
def encoder():
    return load("minilm", engine="torch")


def test_features_are_those_of_the_layer_and_computed_once(encoder, monkeypatch) -> None:
    features = FrozenFeatures(encoder.model, layer=2)
    texts = ["one text", "another, longer text", "one text"]
    np.testing.assert_allclose(features(texts), layer_features(encoder.model, texts, layer=2), atol=1e-5)
    asked = []

    def compute(model, texts, *, layer):
        asked.extend(texts)
        return layer_features(model, texts, layer=layer)

    monkeypatch.setattr("isometry.training.frozen_features.layer_features", compute)
    assert features(["one text", "new"]).shape == (2, features.dim)
    assert asked == ["new"]
    np.testing.assert_array_equal(features(["new", "one text"])[1], features(texts)[0])


def test_a_tiny_decoder_embeds_both_ways_to_unit_vectors(encoder) -> None:
    model = decoder_embedder("tiny", layers=1, max_length=8, tokenizer=encoder.model.tokenizer)
    vectors = model.encode(["a", "a longer text than eight tokens can hold at all"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert model[0].attention == "bidirectional"
    with pytest.raises(InputError, match="no tokenizer"):
        decoder_embedder("tiny")
