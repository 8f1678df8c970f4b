"""Bounds of the rank that judgments need: closed forms, the theorem, the linear program, corpora, capacity."""

import numpy as np
import pytest

from isometry.diagnostics.limit import (
    Relevance,
    all_subsets,
    forster_bound,
    linear_separation,
    moment_curve,
    radon_bound,
    rank_bounds,
    rank_capacity,
    relevance_pattern,
    shattering_bound,
)
from isometry.diagnostics.limit.capacity import margin_price
from isometry.diagnostics.limit.free_embeddings import Training
from isometry.errors import DimensionMismatch, InputError

SHORT = Training(iterations=1500, patience=300)


def hadamard(power):
    matrix = np.ones((1, 1))
    for _ in range(power):
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix > 0


def sets(matrix):
    return Relevance.of_sets([np.flatnonzero(row) for row in matrix], matrix.shape[1])


def test_forster_bound_of_a_hadamard_matrix_is_the_root_of_its_size():
    assert forster_bound(hadamard(4)) == pytest.approx(4)
    assert forster_bound(np.ones((3, 5), bool)) == pytest.approx(1)


@pytest.mark.parametrize(("n", "k"), [(3, 1), (8, 1), (6, 2), (9, 2), (46, 2), (9, 3)])
def test_all_subsets_need_exactly_twice_k(n, k):
    """Radon's theorem from below meets the moment curve from above."""
    bounds = rank_bounds(all_subsets(n, k), search=False)
    assert bounds.lower == bounds.upper == 2 * k


def test_shattered_sets():
    cube = np.asarray([[(i >> j) & 1 for j in range(3)] for i in range(8)], bool)
    assert shattering_bound(cube.T) == 3  # three queries that cut eight documents in all ways
    assert radon_bound(cube) >= 2


def test_the_linear_program_decides_realisability():
    corners = np.asarray([[0, 0], [0, 1], [1, 0], [1, 1]])
    exclusive = [True, False, False, True]
    assert linear_separation(corners, exclusive)[0] == pytest.approx(0, abs=1e-9)
    eps, query = linear_separation(corners, [True, True, False, False])
    scores = corners @ query
    assert eps > 0.4
    assert scores[:2].min() - scores[2:].max() == pytest.approx(2 * eps)
    lifted = np.column_stack([corners, corners.prod(axis=1)])
    assert linear_separation(lifted, exclusive)[0] > 0
    with pytest.raises(DimensionMismatch, match="one truth value"):
        linear_separation(corners, [True])


def test_every_pair_on_the_moment_curve_is_realisable_and_not_on_a_line():
    relevance, curve = all_subsets(12, 2).dense(), moment_curve(12, 2)
    assert all(linear_separation(curve, row)[0] > 0 for row in relevance)
    assert min(linear_separation(curve[:, :1], row)[0] for row in relevance) <= 1e-9


def test_search_finds_an_upper_bound_between_the_bounds_and_lower_bounds_are_of_any_part():
    rng = np.random.default_rng(0)
    relevance = sets(rng.random((12, 12)) < 0.5)
    searched, plain = (rank_bounds(relevance, search=s, training=SHORT) for s in (True, False))
    assert plain.lower == searched.lower <= searched.upper <= plain.upper
    assert searched.upper < 11
    part = relevance.take(np.arange(6))
    assert rank_bounds(part, search=False).lower <= searched.upper


def test_nothing_to_separate():
    bounds = rank_bounds(Relevance.of_sets([{0, 1}, {0, 1}], 2))
    assert (bounds.lower, bounds.upper) == (1, 1)


def test_capacity_of_dense_and_of_easy_judgments():
    dense = rank_capacity(relevance_pattern("dense", 36), dim=3, training=SHORT)
    assert (dense.bounds.lower, dense.bounds.upper, dense.possible) == (4, 4, False)
    assert dense.trained_dim is not None
    assert dense.trained_dim >= 4
    assert "can never rank" in " ".join(dense.statements())
    assert next(t for t in dense.trials if t.dim == 3).solved is False
    easy = rank_capacity({f"q{i}": {f"d{i}": 1, "other": 0} for i in range(20)}, dim=64, training=SHORT)
    assert easy.possible is True
    assert easy.graph.density == 0
    assert easy.bounds.upper == 2
    assert "encoder's doing" in " ".join(easy.statements())
    assert "property of the optimiser" in easy.statements()[-1]


def test_capacity_samples_the_densest_queries_and_says_so():
    matrix = np.zeros((40, 60), bool)
    matrix[:15, :6] = all_subsets(6, 2).dense()
    matrix[range(15, 40), range(15, 40)] = True
    found = rank_capacity(sets(matrix), most_queries=15, training=SHORT)
    assert found.studied == (15, 6)
    assert found.bounds.lower == 4
    assert "15 densest queries" in " ".join(found.statements())
    assert found.to_dict()["graph"]["queries"] == 40
    with pytest.raises(InputError, match="at least 1"):
        rank_capacity(sets(matrix), dim=0)


def test_what_training_realises_is_an_upper_bound():
    rng = np.random.default_rng(1)
    found = rank_capacity(sets(rng.random((20, 20)) < 0.5), dim=16, training=SHORT)
    assert found.possible is True
    assert found.bounds.upper == found.trained_dim < 19
    assert found.bounds.because_upper == "trained vectors"


def test_a_margin_has_its_price():
    price = margin_price(all_subsets(46, 2))
    assert list(price.values()) == sorted(price.values(), reverse=True)
