"""Candidates from single tokens against a loop over their definition; recall of candidate lists."""

import numpy as np
import pytest

from isometry.errors import InputError, SpaceMismatch
from isometry.indexes import candidate_recall, ranked_candidates, token_candidates
from isometry.types import Embeddings, Space, id_array


def ragged(counts, seed=0, dim=8):
    x = np.random.default_rng(seed).standard_normal((sum(counts), dim))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    space = Space("made", dim, similarity="maxsim")
    return Embeddings(x, id_array(f"i{i}" for i in range(len(counts))), space, offsets=offsets)


def by_definition(query, documents, n, per_token):
    owner = np.repeat(np.arange(len(documents)), np.diff(documents.offsets))
    scores = documents.vectors @ query.T
    lists = [np.argsort(-column, kind="stable")[:per_token] for column in scores.T]
    found = []
    for rank in range(min(per_token, len(owner))):
        row = sorted(((-scores[tokens[rank], c], owner[tokens[rank]]) for c, tokens in enumerate(lists)))
        for _, document in row:
            if document not in found:
                found.append(document)
    return found[:n]


@pytest.mark.parametrize("per_token", [1, 3, 50, 1000])
def test_equals_the_definition(per_token):
    documents, queries = ragged(np.random.default_rng(1).integers(1, 6, 40)), ragged([3, 1, 5], seed=2)
    found = token_candidates(queries, documents, 12, per_token=per_token)
    for i in range(3):
        assert found[i].tolist() == by_definition(queries.item(i), documents, 12, per_token)


@pytest.mark.parametrize("n", [1, 7, 40, 100])
def test_as_many_as_there_are_unless_limited(n):
    documents, queries = ragged(np.random.default_rng(1).integers(1, 30, 40)), ragged([1, 4], seed=2)
    for i, found in enumerate(token_candidates(queries, documents, n)):
        assert len(found) == len(set(found.tolist())) == min(n, 40)
        assert found.tolist() == by_definition(queries.item(i), documents, n, len(documents.vectors))
    assert [len(f) for f in token_candidates(queries, ragged([]), n)] == [0, 0]


def test_ranked_candidates_and_recall():
    space = Space("made", 2, similarity="dot")
    documents = Embeddings(np.array([[1, 0], [3, 0], [2, 0]]), id_array("abc"), space)
    queries = Embeddings(np.array([[1, 0], [-1, 0]]), id_array("xy"), space)
    found = ranked_candidates(queries, documents, 5)
    assert [f.tolist() for f in found] == [[1, 2, 0], [0, 2, 1]]
    scores = candidate_recall([np.array([1, 0]), np.array([1, 2])], found, [1, 2, 3], system="dot")
    assert [scores.mean(f"candidates@{n}") for n in (1, 2, 3)] == [0.25, 0.5, 1.0]
    assert scores.by_unit("candidates@1") == {"0": 0.5, "1": 0.0}


def test_bad_input():
    documents, queries = ragged([3, 4]), ragged([2])
    for options in ({"n": 0}, {"n": 1, "per_token": 0}):
        with pytest.raises(InputError, match="at least 1"):
            token_candidates(queries, documents, **options)
    with pytest.raises(SpaceMismatch):
        token_candidates(queries, ragged([2], dim=4), 1)
    with pytest.raises(InputError, match="without a token"):
        token_candidates(ragged([0]), documents, 1)
