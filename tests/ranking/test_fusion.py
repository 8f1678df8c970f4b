import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.errors import InputError, UnknownName
from isometry.ranking import fuse
from isometry.types import Hits, Queries

QUERIES = Queries.of(["q"])


def fixed(row):
    return lambda queries, hits=None: Hits.build(queries.ids, [row] * len(queries))


scores = st.floats(-100, 100, width=16)
runs = st.lists(
    st.dictionaries(st.sampled_from("abcdefgh"), scores, max_size=8).map(lambda d: list(d.items())),
    min_size=1,
    max_size=4,
)


@settings(max_examples=80, deadline=None)
@given(runs, st.sampled_from([0, 1, 60]), st.data())
def test_reciprocal_ranks_equal_the_closed_form(rows, k, data):
    weights = data.draw(st.none() | st.lists(st.floats(0, 5), min_size=len(rows), max_size=len(rows)))
    expected = {}
    for row, weight in zip(rows, weights or [1] * len(rows), strict=True):
        for rank, (identity, _) in enumerate(sorted(row, key=lambda p: (-p[1], p[0])), 1):
            expected[identity] = expected.get(identity, 0) + weight / (k + rank)
    hits = fuse(*map(fixed, rows), k=k, weights=weights)(QUERIES)
    assert dict(hits.row(0)) == pytest.approx(expected, rel=1e-6)
    assert hits.row(0) == sorted(hits.row(0), key=lambda p: (-p[1], p[0]))


@settings(max_examples=80, deadline=None)
@given(runs, st.sampled_from(["minmax", "zscore", "none"]))
def test_weighted_sums_equal_a_naive_loop(rows, normalise):
    weights = [1.0 + i for i in range(len(rows))]
    expected = dict.fromkeys({i for row in rows for i, _ in row}, 0.0)
    for row, weight in zip(rows, weights, strict=True):
        if not row:
            continue
        values = np.array([s for _, s in row])
        if normalise == "minmax":
            width = np.ptp(values)
            given = {i: (s - values.min()) / width if width else 1.0 for i, s in row}
            missing = 0.0
        elif normalise == "zscore":
            given = {i: (s - values.mean()) / values.std() if values.std() else 0.0 for i, s in row}
            missing = min(given.values())
        else:
            given, missing = dict(row), values.min()
        for identity in expected:
            expected[identity] += weight * given.get(identity, missing)
    hits = fuse(*map(fixed, rows), how="weighted", weights=weights, normalise=normalise)(QUERIES)
    assert dict(hits.row(0)) == pytest.approx(expected, rel=1e-5, abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(runs)
def test_order_of_stages_does_not_matter(rows):
    there, back = fuse(*map(fixed, rows))(QUERIES).row(0), fuse(*map(fixed, rows[::-1]))(QUERIES).row(0)
    assert dict(there) == pytest.approx(dict(back))


def test_min_max_is_blind_to_scale():
    row = [("a", 3.0), ("b", 2.0), ("c", -1.0)]
    other = [("b", 9.0), ("d", 1.0)]
    scaled = [(i, 100 * s - 7) for i, s in row]
    plain = fuse(fixed(row), fixed(other), how="weighted")(QUERIES).row(0)
    assert dict(fuse(fixed(scaled), fixed(other), how="weighted")(QUERIES).row(0)) == pytest.approx(dict(plain))


def test_hits_of_the_stage_before_reach_the_branches_once():
    def same(queries, hits=None):
        return hits

    same.name = "same"
    before = Hits.build(QUERIES.ids, [[("a", 2.0), ("b", 1.0)]])
    before = Hits(before.query_ids, before.offsets, before.ids, before.scores, {"first": before.scores})
    hits = fuse(same, same)(QUERIES, before)
    assert hits.row(0) == [("a", pytest.approx(2 / 61)), ("b", pytest.approx(2 / 62))]
    assert sorted(n for n in hits.contributions if "rank" not in n) == ["first", "rrf"]


def test_bad_arguments():
    one = fixed([("a", 1.0)])
    for bad in ({"how": "max"}, {"normalise": "l2"}):
        with pytest.raises(UnknownName):
            fuse(one, **bad)
    for weights in ([1, 2], [-1], [float("nan")]):
        with pytest.raises(InputError, match="weights"):
            fuse(one, weights=weights)
    for k in (-1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="constant k"):
            fuse(one, k=k)
    with pytest.raises(InputError, match="at least one stage"):
        fuse()
    with pytest.raises(InputError, match="at least one stage"):
        fuse(one, 3)
