"""Exact neighbours equal brute force; distances on the sphere; the package's lazy names."""

import importlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import isometry.diagnostics as diagnostics
from isometry.diagnostics import knn
from isometry.diagnostics.sphere import DIAMETER, distances, mean_distances, unit_rows
from isometry.errors import DimensionMismatch, EmptyInput, InputError


def brute(points, queries, k, own):
    d = np.sqrt(((queries[:, None].astype(np.float64) - points[None].astype(np.float64)) ** 2).sum(-1))
    if own:
        np.fill_diagonal(d, np.inf)
    order = np.lexsort((np.broadcast_to(np.arange(len(points)), d.shape), d), axis=1)[:, :k]
    return np.take_along_axis(d, order, 1), order


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 90), d=st.integers(1, 9), k=st.integers(1, 20), seed=st.integers(0, 999), grid=st.booleans())
def test_own_neighbours_equal_brute_force_even_with_ties(n, d, k, seed, grid):
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 3, (n, d)).astype(float) if grid else rng.normal(size=(n, d))
    k = min(k, n - 1)
    found, rows = knn(points, k)
    expected, order = brute(points, points, k, own=True)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_array_equal(rows, order) if not grid else np.testing.assert_allclose(
        np.sqrt(((points[rows] - points[:, None]) ** 2).sum(-1)), expected, atol=1e-12
    )
    assert not (rows == np.arange(n)[:, None]).any()


def test_queries_and_a_common_offset_that_would_cost_float32_its_digits():
    rng = np.random.default_rng(0)
    points, queries = rng.normal(size=(2500, 12)) * 1e-3 + 100, rng.normal(size=(40, 12)) * 1e-3 + 100
    found, rows = knn(points, 15, queries=queries)
    expected, order = brute(points, queries, 15, own=False)
    np.testing.assert_array_equal(rows, order)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_neighbours_closer_than_float32_can_tell_are_still_in_order():
    # 200 points within 1e-9 of each other, among others far away
    rng = np.random.default_rng(1)
    points = np.concatenate([rng.normal(size=(300, 6)) * 10, 5 + rng.normal(size=(200, 6)) * 1e-9])
    found, rows = knn(points, 5)
    expected, order = brute(points, points, 5, own=True)
    np.testing.assert_allclose(found[300:], expected[300:], rtol=1e-3)
    assert (rows[300:] == order[300:]).mean() > 0.99


def test_more_duplicates_than_candidates_are_all_at_distance_zero():
    rng = np.random.default_rng(6)
    points = np.concatenate([rng.normal(size=(100, 20)), np.tile(rng.normal(size=(1, 20)), (60, 1))])
    found, rows = knn(points, 5)
    assert (found[100:] == 0).all()
    assert (rows[100:] >= 100).all()
    assert not (rows == np.arange(160)[:, None]).any()


def test_order_of_unit_rows_is_that_of_cosine():
    unit = unit_rows(np.random.default_rng(2).normal(size=(200, 10)))
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -2)
    np.testing.assert_array_equal(knn(unit, 7)[1], np.argsort(-cosines, axis=1)[:, :7])


@pytest.mark.parametrize("k", [0, 5, -1])
def test_k_out_of_range_is_refused(k):
    with pytest.raises(InputError, match="k must lie"):
        knn(np.eye(5), k)


def test_no_query_and_wrong_width():
    assert knn(np.eye(3), 2, queries=np.zeros((0, 3)))[0].shape == (0, 2)
    with pytest.raises(DimensionMismatch, match="3 wide"):
        knn(np.eye(3), 2, queries=np.zeros((1, 2)))
    with pytest.raises(DimensionMismatch, match="row 1"):
        knn([[0.0], [np.nan], [1.0]], 1)


@pytest.mark.parametrize("distance", ["cosine", "chord", "arc"])
def test_distances_equal_their_definitions_and_stay_within_the_diameter(distance):
    rng = np.random.default_rng(3)
    a, b = unit_rows(rng.normal(size=(30, 5))), unit_rows(rng.normal(size=(20, 5)))
    b[0], b[1] = a[0], -a[0]
    found = distances(a, b, distance)
    cosine = np.clip(a @ b.T, -1, 1)
    direct = {
        "cosine": 1 - cosine,
        "chord": np.linalg.norm(a[:, None] - b[None], axis=-1),
        "arc": np.arctan2(np.linalg.norm(a[:, None] - cosine[..., None] * b[None], axis=-1), cosine),
    }[distance]
    np.testing.assert_allclose(found, direct, atol=1e-7)
    assert found.min() >= 0
    assert found.max() == pytest.approx(DIAMETER[distance], abs=1e-7)


@pytest.mark.parametrize("in_sample", [True, False])
def test_blocked_means_equal_one_matrix(in_sample, monkeypatch):
    monkeypatch.setattr("isometry.diagnostics.sphere._BLOCK_VALUES", 700)
    unit = unit_rows(np.random.default_rng(4).normal(size=(101, 4)))
    matrix = distances(unit, unit, "chord")
    np.fill_diagonal(matrix, 0)
    expected = matrix.sum(1) / (100 if in_sample else 101)
    np.testing.assert_allclose(mean_distances(unit, unit, "chord", in_sample=in_sample), expected, atol=1e-7)


def test_zero_rows_are_named_and_nothing_is_nothing():
    with pytest.raises(InputError, match=r"2 zero vectors.*rows 1, 3"):
        unit_rows([[1.0, 0], [0, 0], [0, 1], [0, 0]])
    with pytest.raises(EmptyInput):
        unit_rows(np.zeros((0, 3)))


def test_every_public_name_resolves_and_none_is_shadowed_by_a_module():
    for name in diagnostics.__all__:
        for _ in range(2):
            assert not isinstance(getattr(diagnostics, name), type(importlib)), name
    with pytest.raises(AttributeError):
        diagnostics.no_such_thing  # noqa: B018
