"""Borda count against brute force, with ties and missing results; means over tasks and kinds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from isometry.errors import EmptyInput, InputError, UnknownName
from isometry.stats import borda_points, standings

grids = st.tuples(st.integers(1, 6), st.integers(1, 6)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.sampled_from([0.1, 0.2, 0.3, 0.5]))
)


def brute(values, last=False):
    points = np.zeros(len(values))
    for column in values.T:
        for i, mine in enumerate(column):
            for j, other in enumerate(column):
                if i == j or (not last and np.isnan([mine, other]).any()):
                    continue
                a, b = (-np.inf if np.isnan(v) else v for v in (mine, other))
                points[i] += 1.0 if a > b else 0.5 if a == b else 0.0
    return points


@given(grids)
def test_points_are_those_of_counting_pairs(values):
    points = borda_points(values)
    np.testing.assert_allclose(points, brute(values))
    m, t = values.shape
    assert points.sum() == pytest.approx(t * m * (m - 1) / 2)


@given(grids, st.data())
def test_missing_results(values, data):
    values = values.copy()
    values[data.draw(arrays(bool, values.shape))] = np.nan
    points = borda_points(values, missing="among present")
    np.testing.assert_allclose(points, brute(values))
    present = (~np.isnan(values)).sum(0)
    assert points.sum() == pytest.approx((present * (present - 1) / 2).sum())
    np.testing.assert_allclose(borda_points(values, missing="last"), brute(values, last=True))
    if np.isnan(values).any():
        with pytest.raises(InputError, match="has no result of task"):
            borda_points(values)


@given(grids)
def test_only_the_order_counts(values):
    np.testing.assert_array_equal(borda_points(values), borda_points(np.exp(3 * values) - 7))


def test_standings():
    scores = {
        "one": {"sts a": 0.9, "sts b": 0.7, "search": 0.2},
        "two": {"sts a": 0.8, "sts b": 0.6, "search": 0.6},
        "three": {"sts a": 0.8, "sts b": 0.5, "search": 0.1},
    }
    types = {"sts a": "sts", "sts b": "sts", "search": "retrieval"}
    found = standings(scores, types)
    assert [(s.model, s.rank, s.borda) for s in found] == [("one", 1, 5.0), ("two", 2, 3.5), ("three", 3, 0.5)]
    two = found[1]
    assert two.mean_task == pytest.approx(2.0 / 3)
    assert two.mean_type == pytest.approx((0.7 + 0.6) / 2)
    assert two.borda_share == pytest.approx(3.5 / 6)
    assert standings(scores)[1].mean_type == pytest.approx(2.0 / 3)


def test_standings_with_missing_results():
    scores = {"a": {"x": 0.5, "y": 0.5}, "b": {"x": 0.4, "y": 0.6}, "c": {"x": 0.9}}
    found = {s.model: s for s in standings(scores, missing="among present")}
    assert (found["c"].borda, found["c"].borda_share, found["c"].tasks) == (2.0, 1.0, 1)
    assert found["c"].mean_task is found["c"].mean_type is None
    assert found["a"].mean_task == 0.5
    assert (found["a"].borda, found["a"].borda_share) == (1.0, 1 / 3)
    assert found["a"].rank == found["b"].rank == 2
    assert {s.model: s.borda for s in standings(scores, missing="last")} == {"a": 2.0, "b": 2.0, "c": 2.0}
    with pytest.raises(InputError, match="1 results are missing"):
        standings(scores)


def test_wrong_input():
    with pytest.raises(EmptyInput):
        standings({"a": {}})
    with pytest.raises(InputError, match=r"no kind: \['y'\]"):
        standings({"a": {"y": 1.0}}, {"x": "sts"})
    with pytest.raises(InputError, match="finite values"):
        borda_points(np.array([[np.inf]]))
    with pytest.raises(UnknownName, match="rule for missing"):
        borda_points(np.ones((1, 1)), missing="guess")
    assert standings({"only": {"x": 1.0}})[0].borda_share == 0.0
