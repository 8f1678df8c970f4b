"""Late interaction: token vectors, masks, invariances, spaces, files."""

import copy
import json

import numpy as np
import pytest
import torch

from isometry.encoders import LateInteraction, load
from isometry.encoders.late_interaction import digest
from isometry.encoders.token_batches import TokenBatch
from isometry.errors import DataFormatError, EmptyInput, InputError, TextTooLong, Truncated, UnknownName
from isometry.modules.token_projection import TokenProjection
from isometry.modules.token_reduction import Clusters, Mean, Tail
from isometry.ranking.maxsim import MaxSim

TEXTS = ["A cat sat on the mat.", "late interaction", "x", "the quick brown fox, which jumps: over the lazy dog " * 3]


@pytest.fixture(scope="module")
def model():
    return LateInteraction.of("minilm", dim=16)


@pytest.fixture(scope="module")
def bare(model):
    return model.replace(head=None, normalize=False)


def test_vectors_are_the_last_hidden_states(model, bare):
    """Against sentence-transformers' own token embeddings."""
    peer = model.encoder.model.encode(TEXTS, output_value="token_embeddings", show_progress_bar=False)
    for ours, theirs in zip(bare.encode_document(TEXTS), peer, strict=True):
        theirs = theirs.numpy()[1:][: len(ours)]  # [CLS] first, then [SEP] and padding behind
        np.testing.assert_allclose(ours, theirs, atol=2e-5)
    whole = bare.replace(drop_special=False).encode_document(TEXTS[:1])[0]
    assert len(whole) == len(bare.encode_document(TEXTS[:1])[0]) + 2


def test_the_mean_of_all_states_is_the_sentence_vector(bare, minilm):
    whole = bare.replace(drop_special=False, reducer=Mean()).encode_query(TEXTS)
    means = np.concatenate(whole)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(means, minilm.encode_query(TEXTS), atol=1e-5)


def test_head_and_norm_are_applied_to_the_states(model, bare):
    states, vectors = bare.encode_query(TEXTS), model.encode_query(TEXTS)
    for x, y in zip(states, vectors, strict=True):
        wanted = x @ model.head.weight.detach().numpy().T
        np.testing.assert_allclose(y, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=1e-5)
        assert y.dtype == np.float32
        assert y.shape[1] == model.dim == 16


@pytest.mark.parametrize("reducer", [None, "C4x8"])
def test_neither_batch_size_nor_order_nor_company_change_vectors(model, reducer):
    model = model.replace(reducer=reducer)
    together = model.encode_document(TEXTS)
    for other in (
        model.encode_document(TEXTS, batch_size=1),
        model.encode_document(TEXTS[::-1])[::-1],
        [model.encode_document([text])[0] for text in TEXTS],
    ):
        for a, b in zip(together, other, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_padding_is_masked_whatever_it_holds(model):
    rows = model.reader.read(TEXTS, "document")
    batch = TokenBatch.of(rows)
    assert batch.keep.sum(1).tolist() == [len(v) for v in model.encode_document(TEXTS)]
    garbage = TokenBatch(torch.where(batch.attend, batch.ids, 1234), batch.attend, batch.keep)
    with torch.inference_mode():
        a, b = (model.project(model.states(x))[batch.keep] for x in (batch, garbage))
    torch.testing.assert_close(a, b)


def test_punctuation_is_left_out_of_documents_only(model):
    sparse = model.replace(drop_punctuation=True)
    text = ["Yes, it is: (a) 'word' -- is it not?!"]
    kept = len(sparse.encode_document(text)[0])
    assert kept == 8  # yes it is a word is it not
    assert len(model.encode_document(text)[0]) > kept
    assert len(sparse.encode_query(text)[0]) == len(model.encode_query(text)[0])


def test_prompts_by_role_are_read_but_may_be_left_out():
    kept = LateInteraction.of("minilm", prompts={"query": "search query: "})
    dropped = kept.replace(drop_prompt=True)
    plain = kept.encode_query(TEXTS[:1], prompt="")[0]
    with_prompt, without = kept.encode_query(TEXTS[:1])[0], dropped.encode_query(TEXTS[:1])[0]
    assert len(with_prompt) == len(plain) + 3
    np.testing.assert_allclose(with_prompt[3:], without, atol=1e-5)
    assert np.abs(without - plain).max() > 1e-3  # the text's tokens attended to the prompt
    np.testing.assert_array_equal(kept.encode_document(TEXTS[:1])[0], dropped.encode_document(TEXTS[:1])[0])
    assert kept.space.prompts == {"query": "search query: "}


def test_queries_are_filled_with_masks_up_to_a_length(model):
    filled = model.replace(query_expansion=16)
    short, long = filled.encode_query([TEXTS[1], TEXTS[3]])
    plain_short, plain_long = model.encode_query([TEXTS[1], TEXTS[3]])
    assert len(short) == 16 - 2  # [CLS] and [SEP] count, but keep no vector
    np.testing.assert_allclose(short[: len(plain_short)], plain_short, atol=1e-5)  # they do not attend to the masks
    np.testing.assert_allclose(long, plain_long, atol=1e-5)
    np.testing.assert_array_equal(filled.encode_document(TEXTS)[0], model.encode_document(TEXTS)[0])


def test_embed_counts_what_was_cut_and_says_so(model):
    short = LateInteraction.of("minilm", dim=16, max_tokens=8)
    with pytest.warns(Truncated, match="1 of 3 texts .* window of 8 tokens; 5 tokens"):
        found = short.embed(["a b", "one two three four five six seven eight nine ten eleven", "c"], ["p", "q", "r"])
    assert found.cut_tokens.tolist() == [0, 5, 0]
    assert np.diff(found.offsets).tolist() == [2, 6, 1]
    assert found.ids.tolist() == ["p", "q", "r"]
    assert short.embed([TEXTS[3]], on_truncate="ignore").cut_tokens[0] > 0
    with pytest.raises(TextTooLong, match=r"'0' is .* too long"):
        short.embed([TEXTS[3]], on_truncate="error")
    with pytest.raises(UnknownName, match="on_truncate"):
        short.embed([TEXTS[3]], on_truncate="chunk")


def test_the_whole_window_of_the_model_can_be_used():
    wide = LateInteraction.of("minilm", max_tokens=512)
    text = "word " * 400
    assert len(wide.encode_document([text])[0]) == 400
    assert wide.embed([text]).cut_tokens.tolist() == [0]


def test_embeddings_say_what_encode_says(model):
    found = model.embed(TEXTS, role="query", batch_size=2)
    for i, vectors in enumerate(model.encode_query(TEXTS)):
        np.testing.assert_allclose(found.item(i), vectors, atol=1e-5)
    assert found.role == "query"
    assert found.space == model.space
    assert len(model.embed([])) == 0


def test_a_text_without_tokens_is_named(model):
    with pytest.raises(EmptyInput, match=r"'doc7' \(row 1\) keeps no token"):
        model.embed(["a", " "], ["doc3", "doc7"])
    with pytest.raises(EmptyInput, match="Row 0"):
        model.encode_query([""])
    with pytest.raises(EmptyInput, match="Row 0"):
        model.replace(drop_punctuation=True).encode_document(["..."])
    found = model.embed(["a", "", "b"], allow_empty=True)
    assert np.diff(found.offsets).tolist() == [1, 0, 1]
    assert model.encode_query([""], allow_empty=True)[0].shape == (0, 16)
    assert model.replace(reducer="C4x8").encode_query(["", "a"], allow_empty=True)[0].shape == (0, 16)


def test_every_setting_is_a_space_of_its_own(model):
    others = [
        model.replace(head=TokenProjection(384, 16, seed=1)),
        model.replace(head=None),
        model.replace(drop_special=False),
        model.replace(drop_prompt=True),
        model.replace(drop_punctuation=True),
        model.replace(query_expansion=8),
        model.replace(reducer="C4x8"),
        model.replace(reducer=Tail(4)),
        model.replace(reducer={"document": Clusters(k=8)}),
        model.replace(head=TokenProjection(384, 16, normalize=False), normalize=False),
        LateInteraction.of("minilm", 16, prompts={"query": "q: "}),
    ]
    spaces = [model.space, *(other.space for other in others)]
    assert len({space.id for space in spaces}) == len(spaces)
    assert {space.similarity for space in spaces} == {"maxsim"}
    assert LateInteraction.of("minilm", 16).space == model.space
    assert model.space.normalized
    assert not others[6].space.normalized
    assert others[7].space.normalized
    assert not others[9].space.normalized


def test_it_serves_the_reranking_scorer(model):
    scores = MaxSim(model)("a cat on a mat", ["a cat sat on the mat", "quantum electrodynamics"])
    assert scores[0] > scores[1]


def test_reducers_by_role(model):
    reduced = model.replace(reducer="C4x8")
    assert [len(v) for v in reduced.encode_query([TEXTS[3], "x"])] == [4, 1]
    assert [len(v) for v in reduced.encode_document([TEXTS[3], "x"])] == [8, 1]
    with pytest.raises(UnknownName, match="role"):
        model.replace(reducer={"passage": Tail(3)})


@pytest.mark.parametrize("tuned", [False, True])
def test_saved_models_come_back(model, tmp_path, tuned):
    changed = model.replace(reducer="C4x8", query_expansion=12, drop_punctuation=True)
    if tuned:
        backbone = copy.deepcopy(model.backbone)
        with torch.no_grad():
            backbone.encoder.layer[-1].output.dense.weight.mul_(1.1)
        changed = changed.replace(backbone=backbone)
        assert changed.space.revision == digest(backbone) != model.space.revision
    changed.save(tmp_path / "m")
    back = LateInteraction.load(tmp_path / "m")
    assert back.space == changed.space
    for a, b in zip(changed.encode_query(TEXTS), back.encode_query(TEXTS), strict=True):
        np.testing.assert_array_equal(a, b)
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == [
        "late_interaction.json", "late_interaction.safetensors",
    ]  # fmt: skip


def test_broken_and_foreign_files_are_refused(model, tmp_path):
    with pytest.raises(DataFormatError, match="no readable"):
        LateInteraction.load(tmp_path)
    model.save(tmp_path)
    config, weights = tmp_path / "late_interaction.json", tmp_path / "late_interaction.safetensors"
    record = json.loads(config.read_text())
    for change, said in (
        ({"format": 2}, "format is 2"),
        ({"encoder": {**record["encoder"], "revision": "0" * 16}}, "have changed since"),
        ({"head": None, "sha256": "0"}, "not those that were written"),
        ({"reducers": {"query": {"kind": "Nothing"}, "document": {"kind": "Identity"}}}, "Nothing"),
    ):
        config.write_text(json.dumps({**record, **change}))
        with pytest.raises(InputError, match=said):
            LateInteraction.load(tmp_path)
    config.write_text(json.dumps(record))
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\1\1")
    with pytest.raises(DataFormatError, match="not those that were written"):
        LateInteraction.load(tmp_path)
    config.write_text("[")
    with pytest.raises(DataFormatError, match="no readable"):
        LateInteraction.load(tmp_path)


def test_wrong_settings_are_refused(model):
    with pytest.raises(InputError, match="width 8"):
        model.replace(head=TokenProjection(8, 4))
    with pytest.raises(InputError, match="query_expansion"):
        model.replace(query_expansion=-1)
    with pytest.raises(InputError, match="leaves no room"):
        model.encode_query(["a"], prompt="word " * 300)
    with pytest.raises(InputError, match="batch_size"):
        model.encode_query(["a"], batch_size=0)
    with pytest.raises(UnknownName, match="role"):
        model.embed(["a"], role="passage")
    with pytest.raises(InputError, match="2 texts need 2 ids"):
        model.embed(["a", "b"], ["1"])
    with pytest.raises(InputError, match="not one text"):
        model.encode_query("a")


def test_progress_counts_texts(model):
    seen = []
    model.embed(TEXTS, batch_size=1, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (4, 4)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_the_encoder_itself_stays_as_it_is(model):
    before = load("minilm", engine="torch").encode_query(TEXTS)
    model.encode_query(TEXTS)
    np.testing.assert_array_equal(model.encoder.encode_query(TEXTS), before)
