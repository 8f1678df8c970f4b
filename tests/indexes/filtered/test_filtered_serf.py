"""SeRF: every prefix is the plain graph, links stay within any range, leaps trade work for recall."""

import numpy as np
import pytest

from isometry.indexes.filtered import Attributes, Between, SeRF
from isometry.indexes.hnsw_graph import _build


def cloud(n, seed=0, d=12):
    x = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def plain(x, m, ef):
    """HNSW without upper layers, built in row order: the neighbours of each row."""
    links, counts = np.full((len(x), 1, 2 * m), -1, np.int32), np.zeros((len(x), 1), np.int32)
    _build(x, np.zeros(len(x), np.int32), m, ef, links, counts)
    return [set(links[i, 0, : counts[i, 0]].tolist()) for i in range(len(x))]


@pytest.mark.parametrize("leap", ["min", "mid", "max"])
def test_serf_of_a_prefix_is_the_plain_graph_built_in_that_order(leap):
    n, m, x = 260, 4, cloud(260)
    years = np.random.default_rng(0).permutation(n)
    index = SeRF.build(x, Attributes([{"year": int(y)} for y in years]), "year", m=m, ef_construction=30, leap=leap)
    assert index.order.tolist() == np.argsort(years).tolist()
    for high in (0, 1, 7, 40, 150, n - 1):
        graph = plain(index._sorted[: high + 1], m, 30)
        assert [set(index.neighbours(i, 0, high).tolist()) for i in range(high + 1)] == graph


@pytest.mark.parametrize("leap", ["min", "max"])
def test_serf_links_stay_within_any_range_and_reach_it(leap):
    n, rng = 300, np.random.default_rng(1)
    index = SeRF.build(
        cloud(n), Attributes([{"year": i} for i in range(n)]), "year", m=6, ef_construction=40, leap=leap
    )
    for _ in range(20):
        low, high = np.sort(rng.choice(n, 2, replace=False)).tolist()
        seen, front = {low}, [low]
        while front:
            near = index.neighbours(front.pop(), low, high)
            assert ((near >= low) & (near <= high)).all()
            front += [i for i in near.tolist() if i not in seen]
            seen |= set(near.tolist())
        assert len(seen) >= 0.98 * (high - low + 1)


def test_serf_without_leaps_over_bounds_finds_more_for_more_searches():
    x, items = cloud(600), Attributes([{"year": i} for i in range(600)])
    exact, fast = (SeRF.build(x, items, "year", m=6, ef_construction=40, leap=leap) for leap in ("min", "max"))
    assert exact.build_distances > fast.build_distances
    hits = {}
    for name, index in (("min", exact), ("max", fast)):
        hits[name] = 0
        for q in cloud(40, 3):
            truth = 100 + np.argsort(1 - x[100:400] @ q)[:10]
            hits[name] += len(
                set(index.search(q, Between("year", 100, 399), 10, 20).ids.tolist()) & set(truth.tolist())
            )
    assert hits["min"] >= 0.9 * 400
    assert hits["max"] >= 0.6 * 400


def test_serf_leaves_out_items_without_the_attribute():
    rows = [{"year": i} if i % 3 else {} for i in range(90)]
    index = SeRF.build(cloud(90), Attributes(rows), "year", m=4)
    found = index.search(cloud(1, 2)[0], Between("year"), 90, 90)
    assert sorted(found.ids.tolist()) == [i for i in range(90) if i % 3]
