"""Tables as text, with the place of every cell kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isometry.errors import EmptyInput, InputError, UnknownName

TableStyle = Literal["csv", "markdown", "html", "markers"]


@dataclass(frozen=True)
class TableText:
    """A serialised table.

    Parameters
    ----------
    text
        The whole table.
    spans
        For each cell (start, end, row, column): characters of the text, row 0 being the header.
    """

    text: str
    spans: tuple[tuple[int, int, int, int], ...]

    def cells(self, offsets: ArrayLike) -> NDArray[np.int64]:
        """Return the row and column of each token's cell ``[t, 2]``, -1 where there is none.

        Parameters
        ----------
        offsets
            Characters (start, end) of each token ``[t, 2]``, as fast tokenizers give; empty for special tokens.
        """
        places = np.asarray(offsets, np.int64)
        found = np.full((len(places), 2), -1, np.int64)
        for start, end, row, column in self.spans:
            inside = (places[:, 0] >= start) & (places[:, 1] <= end) & (places[:, 1] > places[:, 0])
            found[inside] = row, column
        return found


def serialize_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, style: TableStyle = "markdown", separator: str = "[SEP]"
) -> TableText:
    r"""Serialise a table as CSV, Markdown, HTML or with markers, header first, and note where every cell went.

    Parameters
    ----------
    header, rows
        Column names, and rows of as many cells.
    style
        Text format; ``"markers"`` is ``a | b [SEP] 1 | 2 [SEP] 3 | 4``.
    separator
        Between rows in the style ``"markers"``: the tokenizer's own separator.

    Raises
    ------
    EmptyInput
        If there is no column.
    InputError
        If a row has another number of cells.

    Examples
    --------
    >>> table = serialize_table(["name", "n"], [["a,b", "1"]], style="csv")
    >>> table.text
    'name,n\n"a,b",1'
    >>> [table.text[start:end] for start, end, *_ in table.spans]
    ['name', 'n', 'a,b', '1']
    """
    if style not in get_args(TableStyle):
        raise UnknownName("table style", style, get_args(TableStyle))
    if not header:
        raise EmptyInput("A table needs at least one column.")
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise InputError(f"Row {number} of the table has {len(row)} cells, its header {len(header)}.")
    text, spans = "", list[tuple[int, int, int, int]]()
    for piece, place in _pieces([header, *rows], style, separator):
        if place is not None:
            spans.append((len(text), len(text) + len(piece), *place))
        text += piece
    return TableText(text, tuple(spans))


Piece = tuple[str, tuple[int, int] | None]


def _pieces(table: Sequence[Sequence[str]], style: str, separator: str) -> list[Piece]:
    """Return text and markup in order; text comes with its row and column."""
    if style == "csv":
        return _lines(table, lambda cell: cell.replace('"', '""'), ("", ",", ""), "\n", quote=_needs_quotes)
    if style == "markdown":
        lines = _lines(table, lambda cell: " ".join(cell.split()).replace("|", "\\|"), ("| ", " | ", " |"), "\n")
        first = 2 * len(table[0]) + 1  # behind the header's cells, the markup between them and around them
        return [*lines[:first], ("\n" + "| --- " * len(table[0]) + "|", None), *lines[first:]]
    if style == "markers":
        return _lines(table, lambda cell: " ".join(cell.split()), ("", " | ", ""), f" {separator} ")
    pieces: list[Piece] = [("<table>", None)]
    for r, row in enumerate(table):
        tag = "td" if r else "th"
        pieces.append(("<tr>", None))
        for c, cell in enumerate(row):
            pieces += [(f"<{tag}>", None), (escape(cell), (r, c)), (f"</{tag}>", None)]
        pieces.append(("</tr>", None))
    return [*pieces, ("</table>", None)]


def _needs_quotes(cell: str) -> bool:
    return any(character in cell for character in ',"\n\r')


def _lines(
    table: Sequence[Sequence[str]],
    clean: Callable[[str], str],
    markup: tuple[str, str, str],
    end: str,
    *,
    quote: Callable[[str], bool] = lambda cell: False,
) -> list[Piece]:
    pieces: list[Piece] = []
    before, between, after = markup
    for r, row in enumerate(table):
        for c, cell in enumerate(row):
            mark = '"' if quote(cell) else ""
            opening = (before if not c else between) + mark
            if r and not c:
                opening = end + opening
            pieces += [(opening, None), (clean(cell), (r, c))]
            if mark:
                pieces.append((mark, None))
        pieces.append((after, None))
    return pieces
