from __future__ import annotations

import csv
import io
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.data import serialize_table
from isometry.errors import EmptyInput, InputError, UnknownName

CELL = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r", exclude_categories=("Cs",)), max_size=8)
TABLES = st.integers(1, 3).flatmap(
    lambda n: st.tuples(
        st.lists(CELL, min_size=n, max_size=n), st.lists(st.lists(CELL, min_size=n, max_size=n), max_size=3)
    )
)


@settings(max_examples=60, deadline=None)
@given(TABLES)
def test_csv_is_read_back_by_the_standard_library(table):
    header, rows = table
    text = serialize_table(header, rows, style="csv")
    if len(header) > 1 or all(row != [""] for row in [header, *rows]):  # a lone empty cell is an empty line
        assert list(csv.reader(io.StringIO(text.text, newline=""))) == [header, *rows]


@settings(max_examples=60, deadline=None)
@given(TABLES, st.sampled_from(["markdown", "html", "markers", "csv"]))
def test_spans_lie_in_order_and_hold_every_cell(table, style):
    header, rows = table
    text = serialize_table(header, rows, style=style)
    places = [(r, c) for r in range(len(rows) + 1) for c in range(len(header))]
    assert [(r, c) for *_, r, c in text.spans] == places
    ends = [0]
    for (start, end, *_), cell in zip(text.spans, [c for row in [header, *rows] for c in row], strict=True):
        assert ends[-1] <= start <= end <= len(text.text)
        ends.append(end)
        if style in ("markdown", "markers"):
            assert text.text[start:end].replace("\\|", "|") == " ".join(cell.split())


def test_html_is_well_formed():
    class Reader(HTMLParser):
        found: list[str] = []  # noqa: RUF012

        def handle_data(self, data):
            self.found.append(data)

    reader = Reader()
    reader.feed(serialize_table(["a<b", "c"], [["x & y", "z"]], style="html").text)
    assert reader.found == ["a<b", "c", "x & y", "z"]


def test_formats():
    header, rows = ["n", "m"], [["1", "a|b"]]
    assert serialize_table(header, rows).text == "| n | m |\n| --- | --- |\n| 1 | a\\|b |"
    assert serialize_table(header, rows, style="markers", separator="</s>").text == "n | m </s> 1 | a|b"


def test_tokens_find_their_cells():
    table = serialize_table(["ab", "c"], [["d", "ef"]], style="markers")
    offsets = [(0, 0), (0, 1), (1, 2), (3, 4), (5, 6), (7, 12), (13, 14), (17, 19), (0, 0)]
    assert table.cells(offsets).tolist() == [
        [-1, -1], [0, 0], [0, 0], [-1, -1], [0, 1], [-1, -1], [1, 0], [1, 1], [-1, -1]
    ]  # fmt: skip


def test_bad_tables_are_refused():
    with pytest.raises(InputError, match="Row 1 of the table has 1 cells"):
        serialize_table(["a", "b"], [["1"]])
    with pytest.raises(EmptyInput):
        serialize_table([], [])
    with pytest.raises(UnknownName):
        serialize_table(["a"], [], style="latex")
