"""Top-layer pooling: shapes, CLS left out, padding without influence, no layer changed in place."""

import numpy as np
import pytest
import torch

from isometry.encoders import load
from isometry.errors import InputError, UnknownName
from isometry.modules.pooling import top_layers_pool, with_top_layers
from isometry.modules.pooling.top_layers import without_first

STATES = [torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(i)) for i in range(4)]
MASK = torch.tensor([[1, 1, 1, 1, 0], [0, 1, 1, 1, 1]])


@pytest.mark.parametrize("over", ["mean", "max", "sum_sqrt", "first"])
@pytest.mark.parametrize("join", ["concat", "mean"])
def test_equals_a_loop_over_texts(join, over):
    kept = without_first(MASK)
    before = [state.clone() for state in STATES]
    found = top_layers_pool(STATES, kept, last=3, join=join, over=over)
    for i in range(2):
        rows = [state[i][kept[i]].numpy() for state in STATES[1:]]
        joined = np.concatenate(rows, 1) if join == "concat" else np.mean(rows, 0)
        wanted = {"mean": joined.mean(0), "max": joined.max(0), "sum_sqrt": joined.sum(0) / np.sqrt(len(joined)),
                  "first": joined[0]}[over]  # fmt: skip
        np.testing.assert_allclose(found[i].numpy(), wanted, atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(before, STATES, strict=True))


def test_cls_and_padding_have_no_influence():
    kept = without_first(MASK)
    other = [torch.where(kept[..., None], state, torch.full_like(state, torch.nan)) for state in STATES]
    for over in ("mean", "max", "sum_sqrt"):
        found = top_layers_pool(other, kept, over=over)
        assert torch.allclose(found, top_layers_pool(STATES, kept, over=over))


def test_model_pools_the_layers_of_the_transformer(tmp_path):
    encoder = load("minilm", engine="torch").model
    model = with_top_layers(encoder, last=2)
    assert model.get_embedding_dimension() == 768
    assert not encoder[0].auto_model.config.output_hidden_states  # a copy was changed
    texts = ["a cat", "a very small cat on a mat"]
    features = encoder.preprocess(texts)
    with torch.no_grad():
        inputs = {k: features[k] for k in ("input_ids", "attention_mask", "token_type_ids")}
        states = encoder[0].auto_model(**inputs, output_hidden_states=True).hidden_states
    wanted = top_layers_pool(states, without_first(features["attention_mask"]), last=2)
    np.testing.assert_allclose(model.encode(texts, show_progress_bar=False), wanted, atol=1e-5)
    model.save(str(tmp_path))
    again = load(tmp_path, engine="torch").model
    np.testing.assert_allclose(again.encode(texts, show_progress_bar=False), wanted, atol=1e-5)


def test_cls_may_be_kept_or_be_all_there_is(tmp_path):
    encoder = load("minilm", engine="torch").model
    features = encoder.preprocess(["a cat", "a very small cat on a mat"])
    with torch.no_grad():
        inputs = {k: features[k] for k in ("input_ids", "attention_mask", "token_type_ids")}
        last = encoder[0].auto_model(**inputs).last_hidden_state
        kept = with_top_layers(encoder, last=1, cls=True)(dict(features))["sentence_embedding"]
        first = with_top_layers(encoder, last=1, over="first", cls=True)(dict(features))["sentence_embedding"]
    real = features["attention_mask"][..., None]
    torch.testing.assert_close(kept, (last * real).sum(1) / real.sum(1))
    torch.testing.assert_close(first, last[:, 0])
    narrow = with_top_layers(encoder, last=2, width=16)
    narrow.save(str(tmp_path))
    again = load(tmp_path, engine="torch").model.encode(["a cat"], show_progress_bar=False)
    np.testing.assert_allclose(again, narrow.encode(["a cat"], show_progress_bar=False), atol=1e-6)
    assert again.shape == (1, 16)


def test_bad_input():
    with pytest.raises(InputError, match="last must be between 1 and the 4"):
        top_layers_pool(STATES, MASK, last=5)
    with pytest.raises(UnknownName, match="way to join"):
        top_layers_pool(STATES, MASK, join="sum")
    with pytest.raises(UnknownName, match="pooling over tokens"):
        top_layers_pool(STATES, MASK, over="sum")
    with pytest.raises(InputError, match="no token"):
        top_layers_pool(STATES, without_first(torch.tensor([[1, 0, 0, 0, 0], [1, 1, 0, 0, 0]])))
