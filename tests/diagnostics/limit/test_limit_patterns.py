"""Relevance and the patterns of LIMIT: sizes, structure, statistics of the query graph, bad input."""

import math
from itertools import combinations

import numpy as np
import pytest

from isometry.diagnostics.limit import Relevance, all_subsets, query_graph, relevance_pattern
from isometry.diagnostics.limit.density import densest_queries
from isometry.errors import EmptyInput, InputError, UnknownName


def answers(relevance):
    return [tuple(np.flatnonzero(row)) for row in relevance.dense()]


def test_all_subsets_are_all_of_them():
    assert answers(all_subsets(7, 3)) == list(combinations(range(7), 3))
    assert answers(all_subsets(7, 3, 5)) == list(combinations(range(7), 3))[:5]


def test_dense_uses_the_fewest_documents():
    for queries, k in ((1000, 2), (20, 3), (1, 1)):
        relevance = relevance_pattern("dense", queries, k)
        n = relevance.shape[1]
        assert math.comb(n, k) >= queries > (math.comb(n - 1, k) if n - 1 > k else 0)
        assert len(set(answers(relevance))) == queries


def test_random_is_distinct_and_seeded():
    one, two, again = (relevance_pattern("random", 60, 3, documents=20, seed=s) for s in (0, 1, 0))
    assert len(set(answers(one))) == 60
    assert (one.counts == 3).all()
    assert answers(one) == answers(again) != answers(two)


def test_cycle_and_disjoint():
    assert answers(relevance_pattern("cycle", 4, 2)) == [(0, 1), (1, 2), (2, 3), (0, 3)]
    disjoint = relevance_pattern("disjoint", 5, 2, documents=12)
    assert answers(disjoint) == [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]
    assert disjoint.shape == (5, 12)


def test_statistics_of_the_query_graph_are_the_published_ones_and_brute_force():
    dense = query_graph(relevance_pattern("dense", 1000))
    assert dense.density == pytest.approx(0.085481, abs=1e-6)
    assert dense.mean_strength == pytest.approx(28.4653, abs=1e-4)
    assert query_graph(relevance_pattern("disjoint", 50)).density == 0
    relevance = Relevance.of_sets([{0, 1}, {1, 2, 3}, {4}, {0, 1, 4}], 6)
    jaccard = {(0, 1): 1 / 4, (0, 3): 2 / 3, (1, 3): 1 / 5, (2, 3): 1 / 3}
    strength = [sum(v for pair, v in jaccard.items() if i in pair) for i in range(4)]
    found = query_graph(relevance)
    assert found.density == pytest.approx(4 / 6)
    assert found.mean_strength == pytest.approx(np.mean(strength))
    assert found.max_strength == pytest.approx(max(strength))
    assert (found.queries, found.documents, found.pairs, found.most_answers) == (4, 5, 9, 3)
    assert densest_queries(relevance, 2).tolist() == sorted(np.argsort(strength)[-2:].tolist())


def test_judgments_become_pairs_and_empty_queries_go():
    qrels = {"a": {"x": 2, "y": 0}, "b": {"y": -1}, "c": {"z": 1, "x": 1}}
    relevance = Relevance.of_qrels(qrels)
    assert relevance.shape == (2, 2)
    assert answers(relevance) == [(0,), (0, 1)]
    assert Relevance.of_qrels(qrels, ["y", "z", "x"]).dense().tolist() == [[False, False, True], [False, True, True]]
    part = relevance.take(np.asarray([0]))
    assert part.shape == (1, 1)


def test_bad_input():
    with pytest.raises(UnknownName, match="relevance pattern"):
        relevance_pattern("circle", 3)
    with pytest.raises(InputError, match="need at least 10 documents"):
        relevance_pattern("disjoint", 5, 2, documents=9)
    with pytest.raises(InputError, match="at least 1"):
        relevance_pattern("dense", 0)
    with pytest.raises(InputError, match="k must lie"):
        all_subsets(3, 3)
    with pytest.raises(EmptyInput, match="at least one relevant"):
        Relevance.of_sets([{1}, set()], 3)
    with pytest.raises(InputError, match=r"0\.\.2"):
        Relevance.of_sets([{3}], 3)
    with pytest.raises(InputError, match="'z'"):
        Relevance.of_qrels({"a": {"z": 1}}, ["x"])
