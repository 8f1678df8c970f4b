import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.errors import InputError
from isometry.ranking import BM25
from isometry.ranking.bm25 import words
from isometry.types import Document, Queries


def closed_form(texts, query, k1=1.5, b=0.75):
    """The formula of the docstring, summed word by word."""
    tokens = {i: words(t) for i, t in texts.items()}
    mean = sum(map(len, tokens.values())) / len(tokens)
    scores = dict.fromkeys(texts, 0.0)
    for word in words(query):
        n = sum(word in set(t) for t in tokens.values())
        idf = math.log(1 + (len(texts) - n + 0.5) / (n + 0.5))
        for i, t in tokens.items():
            f = Counter(t)[word]
            if f:
                scores[i] += idf * f / (f + k1 * (1 - b + b * len(t) / mean))
    return {i: s for i, s in scores.items() if s > 0}


alphabet = st.lists(st.sampled_from(["ab", "cd", "ef", "gh"]), max_size=7).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.sampled_from([f"d{i}" for i in range(12)]), alphabet, min_size=1),
    alphabet,
    st.sampled_from([(1.5, 0.75), (1.2, 0.0), (0.9, 1.0), (0.0, 0.5)]),
)
def test_equals_the_closed_form(texts, query, parameters):
    k1, b = parameters
    if not any(words(t) for t in texts.values()):
        assert BM25(texts)(Queries.of([query])).row(0) == []
        return
    got = dict(BM25(texts, k=20, k1=k1, b=b)(Queries.of([query])).row(0))
    expected = closed_form(texts, query, k1, b)
    assert set(got) == set(expected)
    assert got == pytest.approx(expected, rel=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.lists(alphabet, min_size=1, max_size=15), alphabet, st.integers(1, 20), st.randoms(use_true_random=False))
def test_order_of_documents_and_words_is_irrelevant_and_k_cuts(texts, query, k, random):
    documents = [Document(f"d{i:02d}", t) for i, t in enumerate(texts)]
    shuffled, asked = random.sample(documents, len(documents)), query.split()
    random.shuffle(asked)
    whole = BM25(documents, k=50)(Queries.of([query])).row(0)
    got = BM25(shuffled, k=k)(Queries.of([" ".join(asked)])).row(0)
    assert [i for i, _ in got] == [i for i, _ in whole][:k]
    assert [s for _, s in got] == pytest.approx([s for _, s in whole][:k])
    assert whole == sorted(whole, key=lambda p: (-p[1], p[0]))


def test_nothing_to_find():
    bm25 = BM25({"a": "one two", "b": "", "c": "..."}, k=5)
    hits = bm25(Queries.of(["", "   ", "?!", "zzz", "two zzz"]))
    assert [[i for i, _ in hits.row(j)] for j in range(5)] == [[], [], [], [], ["a"]]
    for empty in ({}, {"a": ""}, []):
        assert BM25(empty)(Queries.of(["one"])).row(0) == []


def test_ties_break_by_id_beyond_k():
    texts = {f"{i:03d}": "same words" for i in np.random.default_rng(0).permutation(200)}
    assert BM25(texts, k=7)(Queries.of(["words"])).ids.tolist() == [f"{i:03d}" for i in range(7)]


def test_unicode_title_stop_words_and_tokenizer():
    documents = [
        Document("a", "Die STRASSE am Café"),
        Document("b", "nothing", title="Привет мир"),
        Document("c", "日本"),
    ]
    bm25 = BM25(documents)
    found = bm25(Queries.of(["straße", "CAFÉ", "ПРИВЕТ", "日本", "caf"]))
    assert [[i for i, _ in found.row(j)] for j in range(5)] == [["a"], ["a"], ["b"], ["c"], []]
    assert BM25(documents, stop_words=["am"])(Queries.of(["am"])).row(0) == []
    letters = BM25({"x": "abc"}, tokenize=list)
    assert letters(Queries.of(["c"])).ids.tolist() == ["x"]


def test_bad_arguments():
    with pytest.raises(InputError, match="same id"):
        BM25([Document("a", "x"), Document("a", "y")])
    for bad in ({"k1": -1}, {"b": 1.1}, {"k1": math.nan}):
        with pytest.raises(InputError, match="k1 >= 0"):
            BM25({"a": "x"}, **bad)
    with pytest.raises(InputError, match="k must be"):
        BM25({"a": "x"}, k=0)
