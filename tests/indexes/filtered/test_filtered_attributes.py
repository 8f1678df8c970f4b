"""Attributes and predicates: types, three-valued logic, estimates against counts, bad input."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.errors import InputError, UnknownName
from isometry.indexes.filtered import (
    And,
    Attributes,
    Between,
    Contains,
    Equals,
    Everything,
    Not,
    Or,
    Rows,
    contains_all,
    overlaps,
)

RECORDS = [
    {"lang": "de", "year": 2020, "tags": ["a", "b"], "day": "2020-05-01", "open": True},
    {"lang": "en", "year": 2024.5, "tags": ["b"], "day": "2024-01-31T12:00:00", "open": 1},
    {"lang": None, "year": math.nan, "tags": [], "day": None, "open": False},
    {"lang": "de", "year": 2024},
]


def test_kinds_are_recognised_and_missing_values_counted():
    items = Attributes(RECORDS)
    assert items.kinds == {"lang": "categorical", "year": "ordered", "tags": "set", "day": "ordered",
                           "open": "categorical"}  # fmt: skip
    assert items.missing() == {"lang": 1, "year": 1, "tags": 1, "day": 2, "open": 1}
    assert Attributes([{"year": 3}], kinds={"year": "categorical"}).kinds == {"year": "categorical"}
    assert len(Attributes([])) == 0


@pytest.mark.parametrize(
    ("predicate", "rows"),
    [
        (Equals("lang", "de"), [0, 3]),
        (Equals("lang", "fr"), []),
        (~Equals("lang", "de"), [1]),  # row 2 lacks it: neither true nor false
        (Equals("year", 2024), [3]),
        (Between("year", 2020, 2024), [0, 3]),
        (Between("year", None, 2024), [0, 3]),
        (Between("year", 2024.1), [1]),
        (~Between("year", 2020, 2024), [1]),
        (Between("year"), [0, 1, 3]),
        (Between("day", "2020-05-01", "2020-05-01"), [0]),
        (Between("day", "2024-01-31", "2024-02-01"), [1]),
        (Contains("tags", "b"), [0, 1]),
        (~Contains("tags", "b"), [2]),
        (contains_all("tags", ("a", "b")), [0]),
        (overlaps("tags", ("a", "b")), [0, 1]),
        (Equals("lang", "de") & Between("year", 2021), [3]),
        (Equals("lang", "en") | Between("year", None, 2020), [0, 1]),
        (Everything(), [0, 1, 2, 3]),
        (~Everything(), []),
        (Equals("open", True), [0]),
        (Equals("open", 1), [1]),
        (Rows(np.array([False, True, False, True])), [1, 3]),
    ],
)
def test_what_matches(predicate, rows):
    items = Attributes(RECORDS)
    assert np.flatnonzero(items.mask(predicate)).tolist() == rows


leaves = st.one_of(
    st.builds(Equals, st.just("lang"), st.sampled_from("abcx")),
    st.builds(Contains, st.just("tags"), st.integers(0, 4)),
    st.tuples(st.integers(-5, 5), st.integers(0, 6)).map(lambda p: Between("year", p[0], p[0] + p[1])),
)
trees = st.recursive(
    leaves,
    lambda part: st.one_of(
        st.builds(Not, part), st.lists(part, min_size=1, max_size=3).map(lambda p: And(tuple(p))),
        st.lists(part, min_size=1, max_size=3).map(lambda p: Or(tuple(p)))),
    max_leaves=6,
)  # fmt: skip
records = st.lists(
    st.fixed_dictionaries({}, optional={
        "lang": st.sampled_from("abc"), "tags": st.lists(st.integers(0, 4)), "year": st.integers(-5, 5)}),
    max_size=12,
)  # fmt: skip


def kleene(predicate, record):
    """Truth of one record: True, False or None."""
    if isinstance(predicate, Not):
        part = kleene(predicate.part, record)
        return None if part is None else not part
    if isinstance(predicate, And | Or):
        parts, winner = [kleene(p, record) for p in predicate.parts], isinstance(predicate, Or)
        return winner if winner in parts else None if None in parts else not winner
    value = record.get(predicate.field)
    if value is None:
        return None
    if isinstance(predicate, Between):
        return predicate.low <= value <= predicate.high
    return predicate.value in value if isinstance(predicate, Contains) else value == predicate.value


@settings(deadline=None, max_examples=150)
@given(predicate=trees, rows=records)
def test_masks_equal_a_row_by_row_evaluation(predicate, rows):
    full = [{"lang": "a", "tags": [0], "year": 0}, *rows]  # every column is there
    items = Attributes(full)
    yes, no = predicate.truth(items)
    truth = [kleene(predicate, record) for record in full]
    assert yes.tolist() == [t is True for t in truth]
    assert no.tolist() == [t is False for t in truth]
    assert 0 <= items.selectivity(predicate) <= 1
    if isinstance(predicate, Equals | Contains | Between):
        assert items.selectivity(predicate) == pytest.approx(yes.mean())


def test_estimates_of_several_fields_assume_independence():
    rng = np.random.default_rng(0)
    items = Attributes([{"a": int(a), "b": int(b)} for a, b in rng.integers(0, 10, (5000, 2))])
    both = Between("a", 0, 4) & Between("b", 0, 1)
    assert items.selectivity(both) == pytest.approx(items.mask(both).mean(), abs=0.02)
    assert items.selectivity(~both) == pytest.approx(1 - items.selectivity(both))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Between("year", 2024, 2020), "'year' is empty: swap"),
        (lambda: Between("year", "2020-01-01", 3), "mixes a number with text"),
        (lambda: Attributes([{"a": [1]}, {"a": 1}]), "'a' mixes lists"),
        (lambda: Attributes([{"a": "x"}], kinds={"a": "ordered"}), "no ISO 8601 date"),
        (lambda: Attributes([{"a": [{}]}]), "'a' cannot be read as set"),
        (lambda: Attributes(RECORDS).mask(Between("lang", 1, 2)), "'lang' has no order"),
        (lambda: Attributes(RECORDS).mask(Equals("tags", "a")), "'tags' is set-valued; ask Contains"),
        (lambda: Attributes(RECORDS).mask(Contains("year", 2020)), "'year' is ordered"),
        (lambda: Attributes(RECORDS).mask(Between("day", 3, 4)), "no ISO 8601 date"),
        (lambda: Attributes(RECORDS).mask(Between("year", "2020-01-01")), "no number"),
        (lambda: Attributes(RECORDS).mask(Rows(np.ones(3, bool))), "boolean array"),
        (lambda: And(()), "at least one condition"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_an_unknown_field_comes_with_the_nearest():
    with pytest.raises(UnknownName, match="Did you mean 'year'"):
        Attributes(RECORDS).mask(Between("yaer", 1, 2))
