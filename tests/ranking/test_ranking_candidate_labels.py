"""Soft labels of a pipeline: the positive first, hardest candidates after it, each query on its own scale."""

import numpy as np
import pytest

from isometry.errors import EmptyInput, InputError
from isometry.ranking import BM25, Rerank, fuse, label_candidates
from isometry.types import Hits, Queries

TEXTS = {"a": "red apple", "b": "red wine", "c": "green pear", "d": "red red red", "e": "apple wine"}
OPINION = {"a": 3.0, "b": 1.0, "c": -2.0, "d": 4.0, "e": 0.5}
QUERIES = Queries.of({"q1": "red apple", "q2": "green"})


def scorer(depth=10):
    places = {text: OPINION[name] for name, text in TEXTS.items()}
    return Rerank(lambda query, texts: np.array([places[t] * (1 if query != "green" else 100) for t in texts]),
                  depth=depth, texts=TEXTS)  # fmt: skip


@pytest.fixture
def first():
    return fuse(BM25(TEXTS, k=5, k1=1.2), how="weighted")


def test_positive_first_then_the_retrievers_order(first):
    labels = label_candidates(QUERIES, ["b", "a"], first, scorer(), negatives=3)
    ranked = [identity for identity, _ in first(QUERIES).row(0) if identity != "b"][:3]
    assert labels.ids[0].tolist() == ["b", *ranked]
    assert labels.ids[1].tolist() == [
        "a",
        "c",
        "",
        "",
    ]  # "a" was not found by the first stage, and is scored all the same
    assert labels.keep[1].tolist() == [True, True, False, False]
    for row in range(2):
        factor = (1, 100)[row]
        expected = [OPINION[i] * factor if i else 0 for i in labels.ids[row]]
        assert labels.scores[row].tolist() == pytest.approx(expected)


def test_probabilities_are_a_softmax_within_each_query(first):
    labels = label_candidates(QUERIES, ["b", "a"], first, scorer(), negatives=3)
    found = labels.probabilities(2.0)
    assert np.allclose(found.sum(1), 1)
    assert not found[~labels.keep].any()
    for row in range(2):
        kept = labels.keep[row]
        expected = np.exp(labels.scores[row][kept].astype(float) / 2)
        assert np.allclose(found[row][kept], expected / expected.sum(), atol=1e-6)
    shifted = type(labels)(labels.query_ids, labels.ids, labels.scores + 7, labels.keep)
    assert np.allclose(shifted.probabilities(), labels.probabilities(), atol=1e-6)


def test_disagreement(first):
    labels = label_candidates(QUERIES, ["b", "a"], first, scorer(), negatives=3)
    assert labels.agrees.tolist() == [False, True]
    assert labels.disagreement == 0.5
    assert labels.agreeing().query_ids.tolist() == ["q2"]


def test_margin_discards_what_the_scorer_thinks_relevant_and_next_ranks_follow(first):
    labels = label_candidates(QUERIES, ["a", "c"], first, scorer(), negatives=2, margin=0.0)
    assert "d" not in labels.ids[0]  # scored 4, the positive 3
    assert labels.keep[0].all()
    strict = label_candidates(QUERIES, ["a", "c"], first, scorer(), negatives=4, margin=2.2)
    assert set(strict.ids[0]) == {"a", "e", ""}


def test_related_documents_are_no_negatives(first):
    labels = label_candidates(QUERIES, ["a", "c"], first, scorer(), negatives=4, related={"q1": {"d", "e"}})
    assert set(labels.ids[0]) == {"a", "b", ""}


def test_bad_input(first):
    with pytest.raises(InputError, match="one positive; got 1 for 2"):
        label_candidates(QUERIES, ["a"], first, scorer())
    with pytest.raises(InputError, match="'q1' no score"):
        label_candidates(QUERIES, ["b", "a"], first, scorer(depth=1))
    with pytest.raises(EmptyInput, match="no query"):
        label_candidates(Queries.of([]), [], lambda queries, hits: Hits.build([], []), scorer())
    with pytest.raises(InputError, match="temperature"):
        label_candidates(QUERIES, ["b", "a"], first, scorer()).probabilities(0)
