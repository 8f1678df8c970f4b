"""Cutting texts into chunks of whole sentences that fit an encoder's window."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, groupby
from typing import NamedTuple

from isometry.data.readers.units import Unit
from isometry.data.sentences import split_sentences
from isometry.errors import InputError
from isometry.types import Document, Json

TokenSpans = Callable[[str], list[tuple[int, int]]]
"""Text to the character span of each of its tokens, in order, without special tokens."""


class Chunk(NamedTuple):
    """A piece ``text[start:end]`` of a text, its first and last line (from 1), and its number of tokens."""

    start: int
    end: int
    first_line: int
    last_line: int
    tokens: int


def chunk(text: str, *, token_spans: TokenSpans, max_tokens: int = 256, overlap: int = 0) -> list[Chunk]:
    r"""Pack whole sentences into chunks of at most ``max_tokens`` tokens.

    A sentence longer than that is cut at a line end, else between words, else between tokens. Every character that is
    not white space lies in a chunk; chunks start and end with such a character. The text is tokenised once.

    Parameters
    ----------
    text
        Any text; one of white space only has no chunks.
    token_spans
        Text to the character span of each token, without special tokens.
    max_tokens
        Budget of a chunk; leave room for special tokens and the title.
    overlap
        Up to so many tokens at the end of a chunk are repeated at the start of the next: whole sentences where they
        fit, else whole words.

    Raises
    ------
    InputError
        If not ``0 <= overlap < max_tokens``, or one character alone has more than ``max_tokens`` tokens.

    Examples
    --------
    >>> import re
    >>> words = lambda text: [match.span() for match in re.finditer(r"\S+", text)]
    >>> text = "One two three. Four five six. Seven."
    >>> [text[c.start:c.end] for c in chunk(text, token_spans=words, max_tokens=4, overlap=1)]
    ['One two three.', 'three. Four five six.', 'six. Seven.']
    """
    if not 0 <= overlap < max_tokens:
        raise InputError(f"overlap must be at least 0 and less than max_tokens, got {overlap} and {max_tokens}.")
    tokens = _Tokens(text, token_spans(text))
    room = max_tokens - min(overlap, max_tokens // 2)  # parts of a cut sentence leave room for what is repeated
    pieces = [piece for span in split_sentences(text) for piece in tokens.cut(*span, max_tokens, room)]
    chunks: list[Chunk] = []
    i = 0
    while i < len(pieces):
        start = pieces[i][0] if not chunks else _overlap_start(tokens, pieces, i, chunks[-1].start, max_tokens, overlap)
        end = pieces[i][1]
        while i + 1 < len(pieces) and tokens.count(start, pieces[i + 1][1]) <= max_tokens:
            i += 1
            end = pieces[i][1]
        i += 1
        chunks.append(Chunk(start, end, tokens.line(start), tokens.line(end - 1), tokens.count(start, end)))
    return chunks


class _Tokens:
    """A text with the places of its tokens and lines."""

    def __init__(self, text: str, spans: list[tuple[int, int]]) -> None:
        self.text = text
        spans = sorted(spans)
        self.starts = [start for start, _ in spans]
        self.ends = list(accumulate((end for _, end in spans), max))
        self.lines = [match.start() for match in re.finditer("\n", text)]

    def count(self, start: int, end: int) -> int:
        """Tokens that touch ``text[start:end]``."""
        return max(0, bisect_left(self.starts, end) - bisect_right(self.ends, start))

    def line(self, position: int) -> int:
        """Line number, from 1."""
        return bisect_left(self.lines, position) + 1

    def cut(self, start: int, end: int, most: int, room: int) -> Iterator[tuple[int, int]]:
        """Return a sentence of at most ``most`` tokens whole, cut a longer one into pieces of at most ``room``."""
        if self.count(start, end) <= most:
            room = most
        while self.count(start, end) > room:
            stop = self._cut_at(start, end, room) or self._cut_at(start, end, most)
            if stop is None and self.count(start, end) <= most:
                break
            if stop is None:
                raise InputError(f"max_tokens={most} is less than one character of the text needs; raise it.")
            yield start, start + len(self.text[start:stop].rstrip())
            start = stop
            while start < end and self.text[start].isspace():
                start += 1
        if start < end:
            yield start, end

    def _cut_at(self, start: int, end: int, most: int) -> int | None:
        """Return the last good place to cut in the second half of the budget, else the last possible one, if any."""
        first = bisect_right(self.ends, start)
        last, half = min(first + most, len(self.starts) - 1), first + most // 2
        possible = list(self._starts(last, half, start, end))
        for good in ("\n", None):
            for place in possible:
                before = self.text[place - 1]
                if before == good or (good is None and before.isspace()):
                    return place
        return possible[0] if possible else next(self._starts(min(half, last), first, start, end), None)

    def _starts(self, last: int, stop: int, start: int, end: int) -> Iterator[int]:
        """Yield the starts inside ``text[start:end]`` of the tokens last ... stop + 1 that share no character."""
        for t in range(last, stop, -1):
            if start < self.starts[t] < end and self.ends[t - 1] <= self.starts[t]:
                yield self.starts[t]


def _overlap_start(tokens: _Tokens, pieces: list[tuple[int, int]], i: int, after: int, most: int, overlap: int) -> int:
    """Return where the chunk that brings piece i starts: up to ``overlap`` tokens before it, but behind ``after``."""
    done, (own, end) = pieces[i - 1][1], pieces[i]
    best = own
    for k in range(i - 1, -1, -1):
        start = pieces[k][0]
        if start <= after or tokens.count(start, done) > overlap or tokens.count(start, end) > most:
            break
        best = start
    if best < own or not overlap:
        return best
    last = bisect_left(tokens.starts, done)
    for start in tokens.starts[max(0, last - overlap) : last]:
        fits = after < start < done and tokens.count(start, done) <= overlap and tokens.count(start, end) <= most
        if fits and tokens.text[start - 1].isspace() and not tokens.text[start].isspace():
            return start
    return own


def documents(
    reading: Iterable[Unit],
    *,
    token_spans: TokenSpans,
    max_tokens: int = 256,
    overlap: int = 32,
    chunk_tables: bool = False,
) -> Iterator[Document]:
    """Cut the units of a reading into documents, each with a source a person can go to.

    Files and pages are cut into chunks ``path#0``, ``path#1`` ...; a row of a table is one document under its own id
    (``id#0`` ... when ``chunk_tables`` cuts it). A title counts against the budget of each chunk, since it is embedded
    with it; one longer than a quarter of the budget goes to the payload only.

    Yields
    ------
    Document
        ``source`` is ``path:line`` or ``path#page=n``; the payload holds ``file``, ``line`` or ``page``, for chunks
        ``start``, ``end`` (characters in the unit) and ``chunk`` (counted from 0 in the file), and a row's columns.
    """
    for _, units in groupby(reading, key=lambda unit: (unit.path, unit.id if unit.locator == "row" else "")):
        number = 0
        for unit in units:
            if unit.locator == "row" and not chunk_tables:
                yield Document(unit.id, unit.text, unit.title, _source(unit, unit.first_line), _payload(unit))
                continue
            width = len(token_spans(unit.title)) if unit.title else 0
            title = unit.title if width <= max_tokens // 4 else ""
            budget = max_tokens - (width if title else 0)
            chunks = chunk(unit.text, token_spans=token_spans, max_tokens=budget, overlap=min(overlap, budget - 1))
            whole = unit.locator == "row" and len(chunks) <= 1
            stem = unit.id if unit.locator == "row" else unit.path
            for piece in chunks:
                line = unit.first_line + (piece.first_line - 1 if unit.locator == "line" else 0)
                payload = _payload(unit, line=line, start=piece.start, end=piece.end, chunk=number)
                if unit.title and not title:
                    payload["title"] = unit.title
                text = unit.text[piece.start : piece.end]
                yield Document(stem if whole else f"{stem}#{number}", text, title, _source(unit, line), payload)
                number += 1


def _payload(unit: Unit, *, line: int | None = None, **places: int) -> dict[str, Json]:
    """Return the file and place of a unit and its columns; a column of the same name wins."""
    where = {"page": unit.page} if unit.locator == "page" else {"line": unit.first_line if line is None else line}
    return {"file": unit.path, **where, **places, **unit.payload}


def _source(unit: Unit, line: int) -> str:
    return f"{unit.path}#page={unit.page}" if unit.locator == "page" else f"{unit.path}:{line}"
