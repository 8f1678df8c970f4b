"""Listwise prompts keep the query whole; reranking permutes, windows agree with one pass, scores are cosines."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.encoders import load
from isometry.errors import InputError, UnknownName
from isometry.ranking import EmbeddingListwise, ListwisePrompt
from isometry.ranking.embedding_listwise import even_cap, tokens_read
from isometry.types import Hits, Queries

TEXTS = {f"d{i}": f"document {i} about {w} and more" for i, w in enumerate(
    ("tea", "rivers", "engines", "markets", "violins", "glaciers", "lawyers", "kitchens", "poems")
)}  # fmt: skip


@pytest.fixture(scope="module")
def encoder():
    return load("minilm", engine="torch")


@pytest.fixture(scope="module")
def vectors(encoder):
    return dict(zip(TEXTS, encoder.encode_document(list(TEXTS.values())), strict=True))


def hits_of(n=9):
    return Hits.build(["q"], [[(i, float(-row)) for row, i in enumerate(list(TEXTS)[:n])]])


def spans(text):
    return [(i, i + 1) for i, c in enumerate(text) if not c.isspace()]


@given(
    st.lists(st.text("abc de", max_size=40), max_size=6),
    st.text("xyz", min_size=1, max_size=9),
    st.integers(40, 200),
)
@settings(max_examples=60, deadline=None)
def test_a_cut_prompt_fits_and_holds_the_whole_query(documents, query, budget):
    prompt = ListwisePrompt("Sort", after="|")
    try:
        text = prompt.fit(query, documents, spans=spans, max_tokens=budget)
    except InputError:
        assert len(spans(prompt.text(query, ["" for _ in documents]))) + len(documents) > budget
        return
    assert len(spans(text)) <= budget
    assert text.endswith(f"Query: {query}|")
    if len(spans(prompt.text(query, documents))) <= budget:
        assert text == prompt.text(query, documents)


def test_long_documents_lose_alike_and_short_ones_nothing():
    prompt = ListwisePrompt("Sort")
    text = prompt.fit("why", ["z" * 50, "bb", "k" * 50], spans=spans, max_tokens=70)
    counts = [text.count(c) for c in "zk"]
    assert counts[0] == counts[1] < 50
    assert "[2] bb\n" in text


@given(st.lists(st.integers(0, 30), max_size=8), st.integers(0, 100))
def test_even_cap_is_the_largest_that_fits(lengths, room):
    cap = even_cap(lengths, room)
    assert sum(min(n, cap) for n in lengths) <= room
    assert cap == max(lengths, default=0) or sum(min(n, cap + 1) for n in lengths) > room


def test_choice_and_order_of_documents():
    assert ListwisePrompt(documents=3).choose(5) == [0, 1, 2]
    assert ListwisePrompt(documents=3, order="reversed").choose(5) == [2, 1, 0]
    assert ListwisePrompt(documents=0).choose(5) == []
    drawn = ListwisePrompt(documents=3, which="random", order="random", seed=1)
    assert drawn.choose(50) == drawn.choose(50) != [0, 1, 2]
    assert len(set(drawn.choose(50))) == 3
    assert ListwisePrompt("Rank", documents=0).text("q", []) == "Rank:\nQuery: q"


def test_prompt_is_a_turn_of_the_models_chat():
    class Chat:
        chat_template = "there is one"

        def apply_chat_template(self, messages, tokenize, add_generation_prompt):
            assert (tokenize, add_generation_prompt) == (False, True)
            return "".join(f"<{m['role']}>{m['content']}<end>" for m in messages) + "<assistant>"

    prompt = ListwisePrompt("Rank").in_chat(Chat())
    assert prompt.text("who?", ["Ann"]) == "<user>Rank:\nDocuments:\n[1] Ann\nQuery: who?<end><assistant>"
    assert ListwisePrompt("Rank").in_chat(object()).text("who?", []) == "Rank:\nQuery: who?\nAnswer:\n"


def test_scores_are_cosines_with_the_prompts_vector(encoder, vectors):
    stage = EmbeddingListwise(encoder, texts=TEXTS, vectors=lambda ids: np.stack([vectors[i] for i in ids]),
                              prompt=ListwisePrompt(documents=4), depth=7)  # fmt: skip
    queries = Queries.of({"q": "how is tea made"})
    found = stage(queries, hits_of())
    assert sorted(found.ids.tolist()) == sorted(list(TEXTS)[:7])
    prompt = ListwisePrompt().text("how is tea made", list(TEXTS.values())[:4])
    asked = encoder.encode_query([prompt])[0]
    wanted = {i: float(asked @ vectors[i]) for i in list(TEXTS)[:7]}
    assert dict(found.row(0)) == pytest.approx(wanted, abs=1e-5)
    assert (np.abs(found.scores) <= 1).all()
    alone = EmbeddingListwise(encoder, texts=TEXTS, vectors=vectors, prompt=ListwisePrompt("Find", documents=0))
    asked = encoder.encode_query(["Find:\nQuery: how is tea made"])[0]
    assert dict(alone(queries, hits_of()).row(0)) == pytest.approx(
        {i: float(asked @ v) for i, v in vectors.items()}, abs=1e-5
    )


def test_windows_agree_with_one_pass_where_they_hold_the_list(encoder, vectors):
    queries = Queries.of({"q": "tea"})
    parts = {"texts": TEXTS, "vectors": vectors}
    once = EmbeddingListwise(encoder, **parts)(queries, hits_of())
    wide = EmbeddingListwise(encoder, **parts, window=(9, 4))(queries, hits_of())
    assert once.row(0) == wide.row(0)
    slid = EmbeddingListwise(encoder, **parts, window=(4, 2), passes=2)(queries, hits_of())
    assert sorted(slid.ids.tolist()) == sorted(TEXTS)
    assert (np.diff(slid.scores) < 0).all()


def test_a_window_can_carry_the_last_to_the_front():
    """A scorer that loves the last document brings it up window by window."""

    class Loves:
        def encode_query(self, texts, prompt=None):
            return np.array([[1.0, 0.0]], np.float32)

        def token_spans(self, text):
            return spans(text)

        def room(self, role):
            return 10_000

    vectors = {i: np.array([float(i == "d8"), 1.0], np.float32) for i in TEXTS}
    stage = EmbeddingListwise(Loves(), texts=TEXTS, vectors=vectors, window=(3, 2))
    found = stage(Queries.of({"q": "x"}), hits_of())
    assert found.ids[0] == "d8"
    assert found.ids[1:].tolist() == list(TEXTS)[:8]  # ties keep the order of the first stage


def test_cost_in_tokens():
    assert tokens_read(8, [100] * 20) == {"listwise": 2008, "cross-encoder": 2160}


def test_bad_input(encoder, vectors):
    with pytest.raises(InputError, match="needs hits"):
        EmbeddingListwise(encoder, texts=TEXTS, vectors=vectors)(Queries.of({"q": "a"}))
    with pytest.raises(InputError, match="encode_query and token_spans"):
        EmbeddingListwise(object(), texts=TEXTS, vectors=vectors)
    with pytest.raises(InputError, match="A window needs"):
        EmbeddingListwise(encoder, texts=TEXTS, vectors=vectors, window=(3, 4))
    with pytest.raises(InputError, match="0 or more documents"):
        ListwisePrompt(documents=-1)
    with pytest.raises(UnknownName, match="order of documents"):
        ListwisePrompt(order="best")
    with pytest.raises(UnknownName, match="choice of documents"):
        ListwisePrompt(which="worst")
    with pytest.raises(InputError, match="leave no room for 3 documents in 5 tokens"):
        ListwisePrompt().fit("q", ["a", "b", "c"], spans=spans, max_tokens=5)
    short = {i: v[:3] for i, v in vectors.items()}
    with pytest.raises(InputError, match="prompt's vector has 384"):
        EmbeddingListwise(encoder, texts=TEXTS, vectors=short)(Queries.of({"q": "a"}), hits_of())
    empty = EmbeddingListwise(encoder, texts=TEXTS, vectors=vectors)(Queries.of({"q": "a"}), Hits.build(["q"], [[]]))
    assert len(empty.ids) == 0
