"""The default encoder equals sentence-transformers; roles, windows, odd texts, other models, bad input."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.encoders import TextEncoder, embed, load
from isometry.encoders.engines import multiplies_bfloat16
from isometry.encoders.folders import locate
from isometry.errors import DataFormatError, EmptyInput, InputError, UnknownName

ODD = [
    "",
    "  ",
    "a",
    "😀🚀 emoji only 👩‍👩‍👧‍👦",
    "漢字とかな交じり文。これはテストです。",
    "line\nbreaks\tand   spaces",
    "word " * 2000,
    "x" * 3000,
    "Ünïcödé é é",
    "!!! ??? ...",
    "\u200b zero width \ufeff",
]


@pytest.fixture(scope="module")
def peer():
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(locate("minilm")[1]), device="cpu")


@pytest.fixture(scope="module")
def fast() -> TextEncoder:
    return load("minilm", engine="fast")


def real_texts(data_root: Path | None, n: int) -> list[str]:
    from isometry.data import load_set

    return [d.content for d in list(load_set("ir/adi", kind="retrieval", root=data_root).corpus)[:n]]


def test_reference_engine_equals_sentence_transformers(minilm, peer):
    texts = [*ODD, *(f"sentence number {i} " * (i % 30 + 1) for i in range(60))]
    np.testing.assert_allclose(minilm.encode_document(texts), peer.encode(texts, batch_size=16), atol=1e-5)


def test_reference_engine_equals_sentence_transformers_on_real_text(minilm, peer, data_root):
    texts = real_texts(data_root, 60)
    np.testing.assert_allclose(minilm.encode_document(texts), peer.encode(texts), atol=1e-5)


def test_fast_engine_is_faithful(minilm, fast):
    texts = [*ODD, *(f"sentence number {i} about topic {i % 7} " * (i % 20 + 1) for i in range(60))]
    cosine = (minilm.encode_document(texts) * fast.encode_document(texts)).sum(axis=1)
    assert cosine.mean() >= (0.999 if multiplies_bfloat16() else 0.99)
    assert cosine.min() >= 0.995
    assert fast.space == minilm.space


@settings(deadline=None, max_examples=15)
@given(st.lists(st.text(min_size=1, max_size=80).filter(str.strip), min_size=1, max_size=8), st.integers(0, 99))
def test_a_vector_does_not_depend_on_its_batch(minilm, texts, seed):
    together = minilm.encode_document(texts)
    alone = np.concatenate([minilm.encode_document([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    order = np.random.default_rng(seed).permutation(len(texts))
    np.testing.assert_allclose(minilm.encode_document([texts[i] for i in order]), together[order], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


def test_batch_size_changes_nothing_visible(minilm):
    texts = [f"text {i} " * (i % 9 + 1) for i in range(40)]
    for size in (1, 7, 512):
        np.testing.assert_allclose(minilm.encode_query(texts, batch_size=size), minilm.encode_query(texts), atol=1e-5)
    with pytest.raises(InputError, match="batch_size"):
        minilm.encode_query(texts, batch_size=0)


def test_nothing_in_nothing_out(minilm):
    assert minilm.encode_document([]).shape == (0, 384)


def test_bad_texts_are_named_by_row(minilm):
    with pytest.raises(EmptyInput, match="Row 1"):
        embed(minilm, ["fine", "  "], role="document")
    with pytest.raises(InputError, match="Row 0 is no text but float"):
        minilm.encode_document([1.5])
    with pytest.raises(InputError, match="Give a list"):
        minilm.encode_document("one text")


def test_spans_and_counts_agree(minilm):
    text = "The quick brown fox jumps over unbelievably lazy dogs."
    spans = minilm.token_spans(text)
    assert len(spans) == minilm.count_tokens([text])[0]
    assert text[slice(*spans[1])] == "quick"
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))


def test_prompts_and_roles_are_kept(tmp_path, peer):
    folder = tmp_path / "prompted"
    shutil.copytree(locate("minilm")[1], folder)
    file = folder / "config_sentence_transformers.json"
    file.write_text(
        json.dumps({**json.loads(file.read_text()), "prompts": {"query": "query: ", "document": "passage: "}})
    )
    model = load(folder, engine="torch")
    np.testing.assert_allclose(model.encode_query(["a cat"]), peer.encode(["query: a cat"]), atol=1e-5)
    np.testing.assert_allclose(model.encode_document(["a cat"]), peer.encode(["passage: a cat"]), atol=1e-5)
    np.testing.assert_allclose(model.encode_document(["a cat"], prompt=""), peer.encode(["a cat"]), atol=1e-5)
    assert model.space != load(engine="torch").space
    assert model.room("query") < load(engine="torch").room("query")


def test_a_plain_folder_needs_a_pooling_and_a_decoder_works(tmp_path):
    from transformers import AutoTokenizer, BertConfig, BertModel, GPT2Config, GPT2Model

    tokenizer = AutoTokenizer.from_pretrained(str(locate("minilm")[1]))
    encoder, decoder = tmp_path / "bert", tmp_path / "gpt"
    size = {"vocab_size": len(tokenizer)}
    BertModel(
        BertConfig(**size, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
    ).save_pretrained(encoder)
    GPT2Model(GPT2Config(**size, n_embd=32, n_layer=2, n_head=4, n_positions=64)).save_pretrained(decoder)
    for folder in (encoder, decoder):
        tokenizer.save_pretrained(folder)
    with pytest.raises(InputError, match="how to pool"):
        load(encoder)
    for folder, pooling in ((encoder, "mean"), (encoder, "cls"), (decoder, "last")):
        model = load(folder, engine="torch", pooling=pooling)
        vectors = model.encode_document(["a cat", "a much longer text about many things"])
        assert vectors.shape == (2, 32)
        np.testing.assert_allclose(vectors[:1], model.encode_document(["a cat"]), atol=1e-5)
        assert load(folder, pooling=pooling).encode_document(["a cat"]).shape == (1, 32)


def test_the_lean_forward_equals_transformers_for_a_random_bert(tmp_path):
    """Weights of another size, with biases that matter, against the library's own forward."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(str(locate("minilm")[1]))
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=48, num_hidden_layers=3, num_attention_heads=6, intermediate_size=100
    )
    model = BertModel(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    texts = ["a cat sleeps", "the diesel engine ignites fuel by compression", "yes"]
    with torch.no_grad():
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        states = model(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None]
        expected = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1).numpy()
    np.testing.assert_allclose(
        load(tmp_path, engine="torch", pooling="mean").encode_document(texts), expected, atol=1e-5
    )


def test_unknown_and_broken_models(tmp_path):
    with pytest.raises(UnknownName, match="Did you mean 'minilm'"):
        load("minilmm")
    with pytest.raises(UnknownName, match="no such folder"):
        load(tmp_path / "gone")
    with pytest.raises(DataFormatError, match="neither modules"):
        load(tmp_path)
    with pytest.raises(UnknownName, match="engine"):
        load(engine="warp")
    with pytest.raises(UnknownName, match="pooling"):
        load(pooling="sum")
    with pytest.raises(InputError, match="max_tokens"):
        load(max_tokens=100_000)
    folder = tmp_path / "broken"
    shutil.copytree(locate("minilm")[1], folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(DataFormatError, match="weights"):
        load(folder)


def test_the_space_names_the_content_of_the_model(tmp_path, minilm):
    folder = tmp_path / "all-minilm"
    shutil.copytree(locate("minilm")[1], folder)
    assert load(folder, engine="torch").space.revision == minilm.space.revision
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(bytes(weights))
    assert load(folder, engine="torch").space.revision != minilm.space.revision


def test_loading_the_default_imports_neither_transformers_nor_sentence_transformers():
    import subprocess
    import sys

    code = (
        "import sys, isometry; isometry.load().encode_query(['a']);"
        "print(sorted({'transformers', 'sentence_transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_sentence_transformers_object_is_at_hand(minilm, peer):
    np.testing.assert_allclose(minilm.model.encode(["a cat"]), peer.encode(["a cat"]), atol=1e-6)


def test_a_roberta_and_a_last_token_pooling_go_the_lean_way(tmp_path):
    import torch
    from transformers import AutoTokenizer, RobertaConfig, RobertaModel

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(str(locate("minilm")[1]))
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=48, num_hidden_layers=2, num_attention_heads=6, intermediate_size=96,
        pad_token_id=0, max_position_embeddings=66, type_vocab_size=1,
    )  # fmt: skip
    model = RobertaModel(config).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    batch = tokenizer(["a cat sleeps all day"], return_tensors="pt")
    with torch.no_grad():
        states = model(batch["input_ids"], batch["attention_mask"]).last_hidden_state[:, -1]
    encoder = load(tmp_path, engine="torch", pooling="last")
    expected = torch.nn.functional.normalize(states, dim=-1).numpy()
    np.testing.assert_allclose(encoder.encode_document(["a cat sleeps all day"]), expected, atol=1e-5)
    assert encoder.max_tokens == 65


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A random BERT as this release of sentence-transformers saves it, with a window of 24 tokens."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(0)
    bare, folder = tmp_path_factory.mktemp("bare"), tmp_path_factory.mktemp("small")
    tokenizer = AutoTokenizer.from_pretrained(str(locate("minilm")[1]))
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(tokenizer), **size)).save_pretrained(bare)
    tokenizer.save_pretrained(bare)
    body = Transformer(str(bare), max_seq_length=24)
    SentenceTransformer(modules=[body, Pooling(32, "mean"), Normalize()], device="cpu").save(str(folder))
    return folder


def variation(small: Path, folder: Path, file: str, **changes) -> Path:
    shutil.copytree(small, folder)
    (folder / file).write_text(json.dumps({**json.loads((folder / file).read_text()), **changes}))
    return folder


TEXTS = ["A Cat In PARIS", "many more words than the window of this model can hold " * 5, "x"]


def test_a_saved_model_keeps_its_window(small):
    from sentence_transformers import SentenceTransformer

    encoder = load(small, engine="torch")
    assert encoder.max_tokens == encoder.model.max_seq_length == 24
    expected = SentenceTransformer(str(small), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(encoder.encode_document(TEXTS), expected, atol=1e-5)
    narrow = load(small, engine="torch", max_tokens=9)
    np.testing.assert_allclose(narrow.model.encode(TEXTS), narrow.encode_document(TEXTS), atol=1e-5)


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("config_sentence_transformers.json", {"truncate_dim": 8}),
        ("tokenizer_config.json", {"do_lower_case": False}),
        ("sentence_bert_config.json", {"do_lower_case": True}),
        ("1_Pooling/config.json", {"pooling_mode": "max"}),
        ("1_Pooling/config.json", {"pooling_mode": ["cls", "mean"]}),
        ("config.json", {"hidden_act": "relu"}),
        ("config_sentence_transformers.json", {"prompts": {"passage": "passage: ", "other": "o"}}),
        ("config_sentence_transformers.json", {"prompts": {"all": "text: "}, "default_prompt_name": "all"}),
    ],
    ids=str,
)
def test_what_a_folder_says_is_heeded(small, tmp_path, file, changes):
    from sentence_transformers import SentenceTransformer

    folder = variation(small, tmp_path / "varied", file, **changes)
    encoder, model = load(folder, engine="torch"), SentenceTransformer(str(folder), device="cpu")
    for ours, theirs in ((encoder.encode_document, model.encode_document), (encoder.encode_query, model.encode_query)):
        expected = theirs(TEXTS, normalize_embeddings=True)
        np.testing.assert_allclose(ours(TEXTS), expected, atol=1e-5)
    assert encoder.space.dim == expected.shape[1]


def test_a_table_of_word_vectors_has_no_window(tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(locate("minilm")[1] / "tokenizer.json"))
    table = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=16)], device="cpu")
    table.save(str(tmp_path))
    emb = embed(load(tmp_path, engine="torch"), TEXTS, role="document", on_truncate="error")
    np.testing.assert_allclose(emb.vectors, table.encode(TEXTS), atol=1e-5)


def test_the_object_behind_a_plain_folder_pools_alike(small, tmp_path):
    shutil.copytree(small, tmp_path / "plain")
    for name in ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"):
        (tmp_path / "plain" / name).unlink()
    for pooling in ("mean", "cls", "last"):
        encoder = load(tmp_path / "plain", engine="torch", pooling=pooling)
        np.testing.assert_allclose(encoder.model.encode(TEXTS), encoder.encode_document(TEXTS), atol=1e-5)


def test_prompts_are_replaced_by_role(small, tmp_path):
    own = {"prompts": {"query": "q: ", "document": "d: "}}
    folder = variation(small, tmp_path / "prompted", "config_sentence_transformers.json", **own)
    assert dict(load(folder, prompts={"query": ""}).space.prompts) == {"document": "d: "}
    assert dict(load(folder, prompts={"query": "ask: "}).space.prompts) == {"query": "ask: ", "document": "d: "}
    with pytest.raises(UnknownName, match="Did you mean 'query'"):
        load(folder, prompts={"queries": "q: "})
    with pytest.raises(InputError, match="no room"):
        load(folder, prompts={"query": "word " * 30})
    with pytest.raises(UnknownName, match="role"):
        load(folder).encode(["a"], role="quer")


def test_what_does_not_fit_the_folder_is_refused(small, tmp_path):
    with pytest.raises(InputError, match="says itself how to pool"):
        load(small, pooling="cls")
    with pytest.raises(InputError, match="manhattan"):
        load(variation(small, tmp_path / "m", "config_sentence_transformers.json", similarity_fn_name="manhattan"))
    with pytest.raises(DataFormatError, match="tokenizer"):
        load(variation(small, tmp_path / "t", "tokenizer.json", model=None))
    with pytest.raises(InputError, match="Row 1 holds half of a surrogate pair"):
        load(small).encode_document(["fine 漢", "broken \ud83d"])


def test_eight_bit_products_stand_in_where_there_is_no_bfloat16(minilm, monkeypatch):
    from isometry.encoders import engines

    monkeypatch.setattr(engines, "multiplies_bfloat16", lambda: False)
    monkeypatch.setattr(engines, "multiplies_int8", lambda: True)
    encoder = load("minilm", engine="fast")
    assert encoder.precision == "int8"
    texts = [*filter(str.strip, ODD), *(f"sentence number {i} about topic {i % 7} " * (i % 20 + 1) for i in range(60))]
    cosine = (minilm.encode_document(texts) * encoder.encode_document(texts)).sum(axis=1)
    assert cosine.mean() >= 0.99
    assert cosine.min() >= 0.98
    together, alone = encoder.encode_document(texts[:4]), encoder.encode_document(texts[2:3])
    np.testing.assert_allclose(together[2:3], alone, atol=1e-5)  # a token's scale is its own
    monkeypatch.setattr(engines, "multiplies_int8", lambda: False)
    assert load("minilm", engine="fast").precision == "float32"
