"""Rankings under exact and approximate search: places, tau, and hits of both from the same vectors."""

import numpy as np
import pytest
from scipy.stats import kendalltau

from isometry.diagnostics.index_study import Parameters
from isometry.diagnostics.ranking_shift import ranking_shift, search_both
from isometry.diagnostics.subspace import subspace_cloud
from isometry.errors import InputError, UnknownName


def test_places_moves_and_tau():
    exact = {"a": 0.5, "b": 0.4, "c": 0.3, "d": 0.2}
    found = ranking_shift(exact, {"a": 0.1, "b": 0.4, "c": 0.3, "d": 0.2})
    assert list(found.exact) == ["a", "b", "c", "d"]
    assert found.ranks == {"a": (1, 4), "b": (2, 1), "c": (3, 2), "d": (4, 3)}
    assert found.moved == {"a": 3, "b": -1, "c": -1, "d": -1}
    assert found.largest_move == 3
    assert found.tau == pytest.approx(kendalltau([4, 3, 2, 1], [1, 4, 3, 2])[0])
    same = ranking_shift(exact, {name: value / 2 for name, value in exact.items()})
    assert (same.moved, same.largest_move, same.tau) == ({}, 0, 1.0)
    assert ranking_shift({"a": 1.0, "b": 1.0}, {"a": 0.2, "b": 0.1}).tau is None


def test_hits_of_both():
    cloud = subspace_cloud(550, 32, 32, seed=0)
    x, q, ids, asked = cloud[50:], cloud[:50], [f"d{i}" for i in range(500)], [f"q{i}" for i in range(50)]
    grid = [Parameters(ef=ef) for ef in (10, 500)]
    exact, found = search_both(x, q, ids, asked, parameters=grid)
    order = np.argsort(-(q @ x.T), axis=1)[:, :10]
    assert [[i for i, _ in row] for _, row in exact] == [[f"d{j}" for j in row] for row in order.tolist()]
    assert exact.query_ids.tolist() == asked

    def overlap(hits):
        return np.mean([len(set(dict(a)) & set(dict(b))) / 10 for (_, a), (_, b) in zip(hits, exact, strict=True)])

    assert overlap(found[10]) < overlap(found[500]) == 1
    few, _ = search_both(x[:4], q, ids[:4], asked)
    assert all(len(row) == 4 for _, row in few)


def test_bad_input():
    with pytest.raises(InputError, match="same systems"):
        ranking_shift({"a": 1.0, "b": 2.0}, {"a": 1.0})
    x = subspace_cloud(20, 4, 4, seed=0)
    with pytest.raises(UnknownName, match="HNSW backend"):
        search_both(x, x, [""] * 20, [""] * 20, backend="tree")
    with pytest.raises(InputError, match="ef alone"):
        search_both(x, x, [""] * 20, [""] * 20, parameters=[Parameters(m=4), Parameters(m=8)])
