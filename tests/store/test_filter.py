"""Filters: the language, its errors, and the agreement of SQL and predicate on anything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isometry.errors import FilterError, InputError, UnknownName
from isometry.store import And, Collection, Exists, Filter, Not, OneOf, Or, Range
from isometry.types import Document, Embeddings, Space, id_array

SPACE = Space("toy", 2)
BOOK = Document(
    "b1",
    "words",
    title="A book",
    source="b.md:1",
    payload={
        "year": 2020,
        "price": 9.5,
        "draft": False,
        "note": None,
        "tags": ["red", "blue"],
        "meta": {"author": "Ada", "editors": [{"name": "Bo"}, {"name": "Cy"}]},
        "it's odd": 1,
        "title": "inner",
    },
)
TRUE = [
    "year = 2020", "year == 2020.0", "year != 2019", "year < 2021 and year <= 2020", "year > 2019 and year >= 2020",
    "year in (1, 2020)", "year in [2020]", "year not in (1, 2)", "year between 2020 and 2021",
    "year not between 1 and 2", "price = 9.5", "price = 95e-1", "draft = false", "note = null", "tags = 'red'",
    "tags = \"blue\"", "meta.author = 'Ada'", "meta.editors.name = 'Cy'", "exists meta", "meta exists", "exists tags",
    "not exists tags or exists year", "missing not exists", "`it's odd` = 1", "id = 'b1' and title = 'A book'",
    "payload.title = 'inner'", "NOT (year = 1 OR year = 2)", "not not year = 2020", "source >= 'a' and source < 'c'",
    "year = 1 or year = 2020 and draft = false", "tags not in ('green')", "exists note",
]  # fmt: skip
FALSE = [
    "year = '2020'", "year = true", "draft = 0", "draft = 'false'", "note = 0", "missing = 1", "missing != 1",
    "missing < 1", "missing not in (1)", "missing not between 1 and 2", "missing = null", "tags != 'red'",
    "title = 'inner'", "year between 2021 and 2020", "title > 5", "year < 'a'", "tags = 'green'", "meta = null",
    "(year = 1 or year = 2020) and draft = true", "text = ''", "id in (1, null)",
]  # fmt: skip


def collection_of(folder, documents):
    made = Collection.create(folder, SPACE)
    made.upsert(documents, Embeddings(np.zeros((len(documents), 2)), id_array(d.id for d in documents), SPACE))
    return made


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    rest = Document("other", "x", payload={"missing": 1, "year": None})
    with collection_of(tmp_path_factory.mktemp("filter") / "c", [BOOK, rest]) as made:
        yield made


@pytest.mark.parametrize(("expression", "holds"), [(e, True) for e in TRUE] + [(e, False) for e in FALSE])
def test_predicate_and_sql_hold(book, expression, holds):
    assert Filter.parse(expression).matches(BOOK) is holds
    assert ("b1" in book.ids(expression)) is holds


@pytest.mark.parametrize(
    ("expression", "position"),
    [
        ("", 0), ("   ", 0), ("year", 4), ("year =", 6), ("year = de", 7), ("= 3", 0), ("year = 3 year = 4", 9),
        ("(year = 3", 9), ("year = 3)", 8), ("year in 3", 8), ("year in ()", 9), ("year in (1", 10),
        ("lang = 'de", 7), ("year < true", 7), ("year < null", 7), ("year between 1 or 2", 15), ("and", 0),
        ("year not 3", 9), ("year = 3 and", 12), ("year ; 3", 5), ("year = 3; drop table documents", 8),
        ("year between 1 and 'a'", 19), ("exists", 6), ("exists 'year'", 7), ("a = 1.2.3", 4), ("`` = 1", 0),
        ("(" * 200 + "a = 1" + ")" * 200, 101),
    ],
)  # fmt: skip
def test_errors_carry_the_position(expression, position):
    with pytest.raises(FilterError) as raised:
        Filter.parse(expression)
    assert raised.value.position == position


def test_quotes_are_data_not_syntax(book):
    nasty = "x'); DROP TABLE documents; --"
    quoted = nasty.replace("'", "''")
    assert book.ids(f"title = '{quoted}'") == []
    assert Filter.parse(f"title = '{quoted}'") == OneOf("title", (nasty,))
    assert book.ids(OneOf("year", (nasty,))) == []
    with pytest.raises(UnknownName):
        book.ids(Exists(nasty))
    assert len(book) == 2


def test_unknown_field_names_the_nearest(book):
    with pytest.raises(UnknownName, match="'year'") as raised:
        book.count("yaer = 3")
    assert raised.value.nearest[0] == "year"
    with pytest.raises(UnknownName):
        book.count("year = 3 or not (exists meta.autor)")
    assert book.count("payload.year = 2020") == 1
    assert book.count("payload.id exists") == 0


def test_empty_collection_knows_no_field_and_says_nothing(tmp_path):
    with Collection.create(tmp_path / "c", SPACE) as made:
        assert made.ids("anything = 1") == []


def test_filters_compose_and_compare():
    both = Filter.parse("year = 2020 and not tags = 'red'")
    assert both == And((OneOf("year", (2020,)), Not(OneOf("tags", ("red",)))))
    assert (OneOf("a", (1,)) | ~Exists("b")) == Or((OneOf("a", (1,)), Not(Exists("b"))))
    assert (OneOf("year", (2020,)) & Range("price", high=10)).matches(BOOK)
    assert both.fields() == {"year", "tags"}


@pytest.mark.parametrize(
    "make",
    [
        lambda: Range("a"),
        lambda: Range("a", low=True),
        lambda: Range("a", 1, "b"),
        lambda: Range("a", float("nan")),
        lambda: OneOf("a", (object(),)),
        lambda: OneOf("a", (float("nan"),)),
        lambda: OneOf("a", range(10_001)),
        lambda: OneOf("a\0", (1,)),
        lambda: OneOf("a", ("\ud800",)),
        lambda: And(()),
        lambda: Or(tuple(Exists("a") for _ in range(401))),
    ],
)
def test_bad_filters_are_refused(make):
    with pytest.raises(InputError):
        make()


def test_largest_filters_run(book):
    assert book.count(OneOf("year", range(10_000))) == 1
    assert book.count(Or(tuple(OneOf("year", (i,)) for i in range(1700, 2100)))) == 1
    assert book.count("(" * 100 + "year = 2020" + ")" * 100) == 1
    assert book.count("not " * 301 + "year = 2020") == 1
    assert book.count(OneOf("year", (10**400, -(10**400), 2**63))) == 0
    assert book.count("year < 1e999") == 1


NUMBERS = st.integers(-3, 3) | st.sampled_from([0.1, 1.0, 1 / 3, -0.0, 1e300, 5e-324, 2**63 - 1, -(2**63), 2**53 + 1])
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.sampled_from(["", "a", "b", "ä", "Z", "1", "true", "a'b", 'q"', "\\", "%", "😀", "\uffff"])
SCALARS = NUMBERS | FLOATS | TEXTS | st.booleans() | st.none()
NAMES = st.sampled_from(["a", "b", "c.d", "id", "title", "e f"])
VALUES = st.recursive(SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(NAMES, v, max_size=3), max_leaves=5)
PAYLOADS = st.dictionaries(NAMES, VALUES, max_size=4)
FIELDS = st.sampled_from(["a", "b", "a.b", "b.c.d", "c.d", "payload.id", "title", "id", "text", "e f", "a.a"])


def ranges():
    bounds = st.tuples(NUMBERS | FLOATS, NUMBERS) | st.tuples(TEXTS, TEXTS) | st.tuples(NUMBERS | TEXTS, st.none())
    return st.builds(
        lambda field, b, low, high: Range(field, *b, low, high), FIELDS, bounds, st.booleans(), st.booleans()
    )


LEAVES = st.builds(OneOf, FIELDS, st.lists(SCALARS, max_size=3).map(tuple)) | ranges() | st.builds(Exists, FIELDS)
FILTERS = st.recursive(
    LEAVES,
    lambda f: (
        st.builds(Not, f)
        | st.builds(And, st.lists(f, min_size=1, max_size=3).map(tuple))
        | st.builds(Or, st.lists(f, min_size=1, max_size=3).map(tuple))
    ),
    max_leaves=6,
)
EVERY_FIELD = {"a": {"b": 0, "a": 0}, "b": {"c.d": 0}, "c.d": 0, "e f": 0}


@given(st.lists(st.tuples(TEXTS, PAYLOADS), min_size=1, max_size=6), st.lists(FILTERS, min_size=1, max_size=6))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_sql_and_predicate_agree(tmp_path_factory, drawn, filters):
    documents = [Document(str(i), text, title=text, payload=p) for i, (text, p) in enumerate(drawn)]
    documents.append(Document("every field", "x", payload=EVERY_FIELD))
    with collection_of(tmp_path_factory.mktemp("agree") / "c", documents) as made:
        for condition in filters:
            expected = [d.id for d in documents if condition.matches(d)]
            assert made.ids(condition) == expected
            assert made.count(condition) == len(expected)


@given(st.text(max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_or_refused_with_a_place(text):
    position = 0
    try:
        Filter.parse(text).matches(BOOK)
    except FilterError as error:
        position = error.position
    assert 0 <= position <= len(text)
