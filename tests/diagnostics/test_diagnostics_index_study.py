"""The study of indexes: every backend is exact when wide enough, recall counts ties, seeds and orders are applied."""

import numpy as np
import pytest

from isometry.diagnostics.index_study import (
    Parameters,
    exact_neighbours,
    index_study,
    installed_backends,
    mean_over_seeds,
    recall_per_query,
)
from isometry.diagnostics.subspace import subspace_cloud
from isometry.errors import EmptyInput, UnknownName

CLOUD = subspace_cloud(440, 24, 24, seed=0)
Q, X = CLOUD[:40], CLOUD[40:]


@pytest.mark.parametrize("backend", installed_backends())
def test_recall_rises_with_the_width_to_one(backend):
    grid = [Parameters(ef=ef) for ef in (10, 40, 400)]
    found = [row.recall.mean("recall") for row in index_study(X, Q, backends=(backend,), parameters=grid)]
    assert found[0] < found[1] <= found[2] == 1


def test_exact_neighbours_are_brute_force():
    rows, similarity = exact_neighbours(X, Q, 5)
    np.testing.assert_array_equal(rows, np.argsort(-(Q @ X.T), axis=1)[:, :5])
    np.testing.assert_allclose(similarity, -np.sort(-(Q @ X.T), axis=1)[:, :5], rtol=1e-5)


def test_a_duplicate_counts_as_well_as_the_row_it_repeats():
    twice = np.concatenate([X, X[:3]])
    rows, similarity = exact_neighbours(twice, X[:3], 1)
    other = np.where(rows == np.arange(3)[:, None], np.arange(3)[:, None] + len(X), np.arange(3)[:, None])
    assert recall_per_query(other, twice, X[:3], similarity[:, -1]).tolist() == [1, 1, 1]
    nothing = np.full((3, 1), -1)
    assert recall_per_query(nothing, twice, X[:3], similarity[:, -1]).tolist() == [0, 0, 0]


def test_the_grid_is_complete_and_seeds_are_averaged():
    seen = []
    grid = [Parameters(ef=10), Parameters(ef=20)]
    rows = index_study(X, Q, orders=("random", "curve"), seeds=(0, 1), parameters=grid,
                       progress=lambda done, total: seen.append((done, total)))  # fmt: skip
    assert len(rows) == 8
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    pair = [row for row in rows if row.order == "random" and row.parameters.ef == 10]
    mean = mean_over_seeds(pair)
    assert mean.mean("recall") == pytest.approx(np.mean([row.recall.mean("recall") for row in pair]))
    assert len(mean) == len(Q)


def test_unknown_backend():
    with pytest.raises(UnknownName, match="HNSW backend"):
        index_study(X, Q, backends=("tree",))


def test_fewer_vectors_than_answers():
    with pytest.raises(EmptyInput, match="recall@10 needs at least 10 vectors, got 5"):
        index_study(X[:5], Q)
