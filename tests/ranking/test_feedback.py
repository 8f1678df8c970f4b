"""Feedback searches with the query moved towards its first hits, and with none where beta is 0."""

import numpy as np
import pytest

from isometry.errors import InputError
from isometry.indexes import Exact
from isometry.ranking import Feedback
from isometry.ranking.feedback import rocchio
from isometry.types import Embeddings, Hits, Queries, Space

SPACE = Space("test", 8)


def unit(rng, n):
    x = rng.normal(size=(n, 8)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.fixture
def parts():
    rng = np.random.default_rng(0)
    docs = Embeddings(unit(rng, 40), [f"d{i:02}" for i in range(40)], SPACE)
    asked = Embeddings(unit(rng, 3), ["a", "b", "c"], SPACE, role="query")
    return docs, Queries(asked.ids, ["", "", ""], asked), Exact.of(docs)


def test_equals_a_search_with_the_moved_query(parts):
    docs, queries, index = parts
    known = dict(zip(docs.ids, docs.vectors, strict=True))
    first = index.search(queries.embeddings, 10)
    found = Feedback(None, index, vectors=known, documents=4, beta=0.7, k=6)(queries, first)
    for i, vector in enumerate(queries.embeddings.vectors):
        moved = vector + 0.7 * np.mean([known[j] for j in first.ids[first.span(i)][:4]], axis=0)
        scores = docs.vectors @ (moved / np.linalg.norm(moved))
        assert found.ids[found.span(i)].tolist() == docs.ids[np.argsort(-scores)[:6]].tolist()
    still = Feedback(None, index, vectors=known, beta=0.0, k=10)(queries, first)
    assert still.ids.tolist() == first.ids.tolist()


def test_a_query_without_hits_asks_as_before(parts):
    docs, queries, index = parts
    first = index.search(queries.embeddings, 5)
    known = dict(zip(docs.ids, docs.vectors, strict=True))
    found = Feedback(None, index, vectors=known, k=5)(queries, Hits.build(["a", "b", "c"], [[], [], []]))
    assert found.ids.tolist() == first.ids.tolist()


def test_bad_input(parts):
    _, queries, index = parts
    with pytest.raises(InputError, match="beta must be at least 0"):
        Feedback(None, index, vectors={}, beta=-1)
    with pytest.raises(InputError, match="needs the hits"):
        Feedback(None, index, vectors={})(queries)
    with pytest.raises(InputError, match="no encoder"):
        Feedback(None, index, vectors={})(Queries.of({"a": "x"}), Hits.build(["a"], [[]]))
    assert rocchio(np.array([3.0, 4.0]), np.empty((0, 2))).tolist() == pytest.approx([0.6, 0.8])
