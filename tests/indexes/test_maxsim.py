"""The fused product against a loop over the definition and against padded matrix products."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.errors import InputError, SpaceMismatch
from isometry.indexes import maxsim_scores
from isometry.indexes.maxsim import scan
from isometry.indexes.maxsim_tile import COLUMNS, LANES, TOKENS
from isometry.types import Embeddings, Space, id_array


def ragged(counts, dim=24, seed=0, scale=1.0):
    x = np.random.default_rng(seed).standard_normal((sum(counts), dim)) * scale
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    space = Space("made", dim, similarity="maxsim", normalized=False)
    return Embeddings(x, id_array(f"i{i}" for i in range(len(counts))), space, offsets=offsets)


def by_definition(queries, documents):
    out = np.zeros((len(queries), len(documents)))
    for i in range(len(queries)):
        for j in range(len(documents)):
            for q in queries.item(i).astype(np.float64):
                out[i, j] += max(float(q @ d) for d in documents.item(j).astype(np.float64))
    return out


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(1, 3 * TOKENS), min_size=1, max_size=5),
    st.lists(st.integers(1, COLUMNS + 3), min_size=1, max_size=4),
    st.integers(1, 2 * LANES + 1),
    st.integers(0, 100),
)
def test_three_ways_agree(held, asked, dim, seed):
    documents, queries = ragged(held, dim, seed), ragged(asked, dim, seed + 1)
    exact = by_definition(queries, documents)
    tolerance = 1e-5 * (1 + np.abs(exact).max())
    for how in ("ragged", "padded"):
        np.testing.assert_allclose(maxsim_scores(queries, documents, how=how), exact, atol=tolerance)


def test_negative_maxima_are_kept():
    """Padding of queries, documents and tiles must not count: every true maximum here is below zero."""
    documents, queries = ragged([1, 5, TOKENS + 1]), ragged([3])
    documents = Embeddings(-np.abs(documents.vectors), documents.ids, documents.space, offsets=documents.offsets)
    queries = Embeddings(np.abs(queries.vectors), queries.ids, queries.space, offsets=queries.offsets)
    for how in ("ragged", "padded"):
        scores = maxsim_scores(queries, documents, how=how)
        assert (scores < 0).all()
        np.testing.assert_allclose(scores, by_definition(queries, documents), rtol=1e-5)


def test_padded_by_parts(monkeypatch):
    documents, queries = ragged([1, 5, 20, 2, 2, 9]), ragged([3, 40])
    whole = maxsim_scores(queries, documents, how="padded")
    monkeypatch.setattr("isometry.indexes.maxsim.PADDED", 1)
    np.testing.assert_allclose(maxsim_scores(queries, documents, how="padded"), whole, atol=1e-4)


def test_scores_do_not_depend_on_what_else_is_asked():
    documents, queries = ragged(list(range(1, 40))), ragged([5, 33, 1, 64])
    whole = maxsim_scores(queries, documents)
    for i in range(4):
        np.testing.assert_array_equal(maxsim_scores(queries.take([i]), documents)[0], whole[i])
    np.testing.assert_array_equal(maxsim_scores(queries, documents.take([7, 3])), whole[:, [7, 3]])


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_coded_tokens_score_as_what_they_stand_for(dtype):
    documents, queries = ragged([4, 1, 17, 30], scale=3), ragged([9, 40], seed=2)
    x, none = documents.vectors, np.empty(0, np.float32)
    scale = np.abs(x).max(axis=1) / np.float32(127) if dtype == "int8" else none
    codes = np.rint(x / scale[:, None]).astype(np.int8) if dtype == "int8" else x.astype(np.float16)
    if dtype == "float16":
        codes[0, :4] = [6e-8, -6e-8, 65504, 0]  # smallest subnormals, largest number, zero
    decoded = codes.astype(np.float32) * (scale[:, None] if dtype == "int8" else 1)
    starts, counts = documents.offsets[:-1], np.diff(documents.offsets)
    args = (starts, counts, queries.vectors, queries.offsets)
    np.testing.assert_allclose(scan(codes, scale, *args), scan(decoded, none, *args), rtol=1e-6)


def test_documents_anywhere_in_the_array():
    documents, queries = ragged([4, 6, 5]), ragged([3], seed=1)
    starts, counts, none = np.array([10, 0]), np.array([5, 4]), np.empty(0, np.float32)
    found = scan(documents.vectors, none, starts, counts, queries.vectors, queries.offsets)
    np.testing.assert_array_equal(found, maxsim_scores(queries, documents)[:, [2, 0]])


def test_edges():
    documents, queries, nothing = ragged([4, 6]), ragged([3]), ragged([])
    for how in ("ragged", "padded"):
        assert maxsim_scores(nothing, documents, how=how).shape == (0, 2)
        assert maxsim_scores(queries, nothing, how=how).shape == (1, 0)
    with pytest.raises(InputError, match="queries hold 1 items without a token vector, first 'i1'"):
        maxsim_scores(ragged([2, 0]), documents)
    with pytest.raises(InputError, match="documents hold 1 items"):
        maxsim_scores(queries, ragged([0]))
    with pytest.raises(InputError, match="one vector per id"):
        maxsim_scores(queries, Embeddings(np.eye(24), id_array(map(str, range(24))), queries.space))
    with pytest.raises(SpaceMismatch):
        maxsim_scores(queries, ragged([4], dim=5))
    with pytest.raises(InputError, match=r"documents hold numbers as large as .*scale them down"):
        maxsim_scores(queries, ragged([2], scale=1e20))
