"""Pseudo-queries: sentences leave their documents, and nothing else changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isometry.errors import EmptyInput, InputError
from isometry.tasks import inverse_cloze, synthetic_retrieval
from isometry.types import Document

words = st.lists(st.sampled_from(["alpha", "beta", "gamma", "delta", "zeta", "eta", "theta"]), min_size=3, max_size=9)
texts = st.lists(words.map(lambda w: " ".join(w).capitalize() + "."), max_size=5).map(" ".join)


@given(st.lists(texts, max_size=8), st.integers(0, 3), st.integers(1, 9))
def test_what_must_hold_for_any_corpus(rows, seed, n):
    documents = [Document(f"d{i}", text, title="T", payload={"i": i}) for i, text in enumerate(rows)]
    try:
        corpus, queries, qrels = inverse_cloze(documents, n, seed=seed)
    except EmptyInput:
        return
    assert [d.id for d in corpus] == [d.id for d in documents]
    assert 1 <= len(queries) == len(qrels) <= n
    everything = " ".join(rows)
    asked = {next(iter(grades)): queries[q] for q, grades in qrels.items()}
    for before, after in zip(documents, corpus, strict=True):
        assert (after.title, after.payload) == (before.title, before.payload)
        if before.id in asked:
            sentence = asked[before.id]
            assert 20 <= len(sentence) <= 300
            assert everything.count(sentence) >= 1
            assert sentence in before.text
            assert after.text.strip()
            assert after.text.split() == before.text.replace(sentence, "", 1).split()
        else:
            assert after == before
    assert all(list(grades.values()) == [1] for grades in qrels.values())
    assert inverse_cloze(documents, n, seed=seed) == (corpus, queries, qrels)


def test_which_sentences_may_become_queries():
    boiler = "All rights are reserved by the company."
    documents = [
        Document("single", "There is only this one sentence here."),
        Document("boiler", f"Too short. {boiler}"),
        Document("good", f"A wing sheds vortices behind it. {boiler}"),
        Document("long", "Yes. " + "word " * 80 + "end."),
        Document("empty", ""),
    ]
    corpus, queries, qrels = inverse_cloze(documents)
    assert queries == {"q-good": "A wing sheds vortices behind it."}
    assert qrels == {"q-good": {"good": 1}}
    assert corpus[2].text == boiler
    assert corpus[:2] + corpus[3:] == documents[:2] + documents[3:]


def test_seeds_and_sizes():
    documents = [
        Document(f"d{i}", " ".join(f"Document {i} says thing number {j} here." for j in range(6))) for i in range(30)
    ]
    some = inverse_cloze(documents, 10, seed=1)
    assert len(some[1]) == 10
    assert some != inverse_cloze(documents, 10, seed=2)
    assert len(inverse_cloze(documents, 99)[1]) == len(inverse_cloze(documents)[1]) == 30


def test_task_says_that_it_is_synthetic():
    documents = [Document(c, f"The letter {c} opens this line. And another sentence about {c}.") for c in "abc"]
    task = synthetic_retrieval(documents, "letters", 2, metrics=["mrr"])
    assert task.name == "letters (synthetic)"
    assert task.facts == {"synthetic": True}
    assert len(task.queries) == 2


def test_impossible_requests_are_refused():
    with pytest.raises(EmptyInput, match="None of the 1 documents"):
        inverse_cloze([Document("a", "One sentence of a fair length.")])
    with pytest.raises(EmptyInput, match="None of the 0 documents"):
        inverse_cloze([])
    with pytest.raises(InputError, match="'a' occurs more than once"):
        inverse_cloze([Document("a", "x"), Document("a", "y")])
    with pytest.raises(InputError, match="n must be"):
        inverse_cloze([Document("a", "x")], 0)
