"""The witness ranks every subset; margins and accuracy are strict; rounding is told; the packing bound is a bound."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.diagnostics.limit import (
    Relevance,
    all_subsets,
    moment_curve,
    packing_bound,
    ranking_margins,
    strict_accuracy,
    subset_queries,
    train_free_embeddings,
)
from isometry.diagnostics.limit.free_embeddings import Training
from isometry.errors import DimensionMismatch, InputError


def witness(n, k):
    relevance = all_subsets(n, k)
    return subset_queries(relevance.documents.reshape(-1, k), n), moment_curve(n, k), relevance


@pytest.mark.parametrize(("n", "k"), [(10, 1), (40, 2), (100, 2), (30, 3), (14, 4)])
def test_every_subset_is_returned_in_twice_k_dimensions(n, k):
    q, d, relevance = witness(n, k)
    assert q.shape[1] == d.shape[1] == 2 * k
    np.testing.assert_allclose(np.linalg.norm(q, axis=1), 1)
    np.testing.assert_allclose(np.linalg.norm(d, axis=1), 1)
    assert ranking_margins(q, d, relevance).min() > 0


def test_a_witness_exists_where_free_optimisation_fails():
    """Critical n is a fact about the optimiser: at d = 4 it does not find what is there for 12 and for 100."""
    for n in (12, 100):
        q, d, relevance = witness(n, 2)
        assert (ranking_margins(q, d, relevance) > 0).all()
    found = train_free_embeddings(all_subsets(12, 2), 4, training=Training(iterations=20_000))
    assert not found.solved
    assert found.accuracy < 1


def test_the_margin_of_the_witness_vanishes():
    margins = [ranking_margins(*witness(n, 2)).min() for n in (10, 20, 40, 80)]
    slopes = np.diff(np.log(margins)) / np.log(2)
    assert (slopes < -3).all()
    assert slopes[-1] == pytest.approx(-4, abs=0.3)


@given(st.integers(2, 6), st.integers(1, 6), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_margins_and_accuracy_are_those_of_brute_force(n, m, seed):
    rng = np.random.default_rng(seed)
    relevance = Relevance.of_sets([rng.choice(n, rng.integers(1, n + 1), replace=False) for _ in range(m)], n)
    q, d = rng.integers(-2, 3, (m, 2)), rng.integers(-2, 3, (n, 2))  # whole numbers: many ties
    scores, mask = q @ d.T, relevance.dense()
    expected = [scores[i][mask[i]].min() - max(scores[i][~mask[i]], default=-np.inf) for i in range(m)]
    np.testing.assert_array_equal(ranking_margins(q, d, relevance, block=2), expected)
    hits = sum((scores[i] >= scores[i, j]).sum() <= mask[i].sum() for i, j in zip(*np.nonzero(mask), strict=True))
    assert strict_accuracy(scores, relevance) == pytest.approx(hits / mask.sum())


def test_ties_are_no_success():
    relevance = Relevance.of_sets([{0}], 3)
    assert strict_accuracy(np.ones((1, 3)), relevance) == 0
    assert ranking_margins(np.ones((1, 2)), np.ones((3, 2)), relevance).tolist() == [0.0]


def test_packing_bound():
    relevance = all_subsets(30, 2)
    for n in (10, 20, 40):
        q, d, subsets = witness(n, 2)
        assert packing_bound(subsets, ranking_margins(q, d, subsets).min()) <= 4
    assert packing_bound(relevance, 1.0) == pytest.approx(math.log(435) / math.log(3))
    assert packing_bound(relevance, 1.0) > packing_bound(relevance, 0.1) > packing_bound(all_subsets(10, 2), 0.1)
    with pytest.raises(InputError, match="margin"):
        packing_bound(relevance, 0)


def test_bad_input():
    with pytest.raises(InputError, match="distinct rows"):
        subset_queries(np.asarray([[1, 1]]), 5)
    with pytest.raises(InputError, match="distinct rows"):
        subset_queries(np.asarray([[1, 5]]), 5)
    with pytest.raises(InputError, match="at least 1"):
        moment_curve(0, 2)
    with pytest.raises(DimensionMismatch, match="does not fit"):
        ranking_margins(np.ones((1, 2)), np.ones((3, 3)), Relevance.of_sets([{0}], 3))
