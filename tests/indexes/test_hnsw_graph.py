"""The HNSW graph: recall 1 when the search is as wide as the set, degree bounds, reachability, determinism."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.errors import InputError
from isometry.indexes.hnsw_graph import HNSWGraph


def cloud(n, d=16, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def recall(found, x, q, k):
    exact = np.argsort(-(q @ x.T), axis=1)[:, :k]
    return np.mean([len(set(f) & set(e)) / k for f, e in zip(found.tolist(), exact.tolist(), strict=True)])


@settings(deadline=None, max_examples=15)
@given(n=st.integers(1, 300), m=st.integers(2, 16), seed=st.integers(0, 99))
def test_search_as_wide_as_the_set_is_exact_where_all_is_reachable(n, m, seed):
    x, q = cloud(n, seed=seed), cloud(8, seed=seed + 1)
    graph = HNSWGraph.build(x, m=m, ef_construction=64, seed=seed)
    k = min(5, n)
    found, computed = graph.search(q, k, ef=n)
    if not len(graph.unreachable()):
        assert recall(found, x, q, k) == 1.0
    assert (computed >= min(n, k)).all()
    assert (graph.counts[:, 0] <= 2 * m).all()
    assert (graph.counts[:, 1:] <= m).all()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_recall_rises_with_ef_and_costs_more(seed):
    x, q = cloud(3000, 32, seed), cloud(100, 32, seed + 9)
    graph = HNSWGraph.build(x, m=8, ef_construction=64, seed=seed)
    assert not len(graph.unreachable())
    recalls, costs = zip(
        *((recall(f, x, q, 10), c.mean()) for f, c in (graph.search(q, 10, ef=e) for e in (10, 40, 160))), strict=True
    )
    assert recalls[0] < recalls[1] < recalls[2]
    assert recalls[2] > 0.9
    assert costs[0] < costs[1] < costs[2] < 3000


def test_links_are_mutual_or_pruned_and_never_loops():
    graph = HNSWGraph.build(cloud(500), m=8, ef_construction=50)
    for i in range(500):
        mine = graph.links[i, 0, : graph.counts[i, 0]]
        assert i not in mine
        assert len(set(mine.tolist())) == len(mine)
    assert (graph.links[graph.counts[:, 0] > 0, 0, 0] >= 0).all()


def test_same_seed_same_graph_and_order_matters():
    x = cloud(400)
    a, b = HNSWGraph.build(x, seed=3), HNSWGraph.build(x, seed=3)
    np.testing.assert_array_equal(a.links, b.links)
    assert a.build_distances == b.build_distances
    assert (HNSWGraph.build(x[::-1].copy(), seed=3).links != a.links).any()


def test_levels_follow_the_geometric_law():
    levels = HNSWGraph.build(cloud(4000, 4), m=16, ef_construction=8).levels
    assert abs((levels >= 1).mean() - 1 / 16) < 0.015


def test_recall_is_close_to_hnswlib_at_equal_settings():
    hnswlib = pytest.importorskip("hnswlib")
    x, q = cloud(3000, 32), cloud(200, 32, 5)
    peer = hnswlib.Index("cosine", 32)
    peer.init_index(3000, M=16, ef_construction=128, random_seed=1)
    peer.add_items(x, num_threads=1)
    peer.set_ef(20)
    theirs = recall(peer.knn_query(q, 10, num_threads=1)[0], x, q, 10)
    ours = recall(HNSWGraph.build(x, seed=1).search(q, 10, ef=20)[0], x, q, 10)
    assert abs(ours - theirs) < 0.03


def test_bad_settings_and_empty_sets():
    with pytest.raises(InputError, match="m >= 2"):
        HNSWGraph.build(cloud(3), m=1)
    empty = HNSWGraph.build(np.empty((0, 4), np.float32))
    assert empty.search(cloud(2, 4), 3, ef=5)[0].tolist() == [[-1] * 3] * 2
    assert len(empty.unreachable()) == 0
