"""Tables: one unit a row, the other columns as its payload."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from isometry.data.readers.records import EXTENSIONS as EXTENSIONS
from isometry.data.readers.records import Bad, Record, number_columns, read_records, table_format
from isometry.data.readers.units import Source, Unit
from isometry.errors import DataFormatError, EmptyInput, InputError, NoTextColumn
from isometry.types import Json

_TEXT_NAMES = """text content contents body abstract passage document article sentence description review comment
    message question summary snippet"""
TEXT_COLUMNS = tuple(_TEXT_NAMES.split())
ID_COLUMNS = ("_id", "id", "doc_id", "docid")
TITLE_COLUMNS = ("title", "headline", "subject")
Columns = tuple[str, str | None, str | None]
"""Names of the text, id and title columns."""


def read_table(source: Source) -> Iterator[Unit]:
    """Read the rows of a CSV, TSV, JSON Lines or Parquet file.

    Raises
    ------
    InputError
        If no column can be taken for the text; the message lists the columns.
    DataFormatError
        If a row is malformed or an id occurs twice; with ``skip_bad`` such rows are left out and counted.
    """
    bad: list[DataFormatError] = []

    def on_bad(error: DataFormatError) -> None:
        if not source.skip_bad:
            raise error
        bad.append(error)

    records = read_records(source.path, source.limits, on_bad=on_bad, warn=source.warn)
    first = next(records, None)
    if first is None and not bad:
        raise EmptyInput(f"{source.path} has no rows.")
    if first is not None:
        columns = _columns(source, list(first[1]))
        records = chain([first], records)
        if table_format(source.path) in (".csv", ".tsv"):
            records = _typed(list(records), columns)
        yield from _units(source, records, columns, on_bad)
    if bad:
        source.warn(f"{len(bad)} bad rows left out, the first: line {bad[0].line}: {bad[0].problem}")


def _typed(rows: list[Record], columns: Columns) -> Iterator[Record]:
    """Turn payload columns of numbers into numbers: CSV and TSV files say no types, and filters compare numbers."""
    numeric = {name: to for name, to in number_columns(rows).items() if name not in columns}
    for line, record in rows:
        yield line, {k: (numeric[k](v) if v else None) if k in numeric else v for k, v in record.items()}


def _units(source: Source, records: Iterator[Record], columns: Columns, on_bad: Bad) -> Iterator[Unit]:
    text_column, id_column, title_column = columns
    seen: dict[str, int] = {}
    without: list[int] = []
    for line, record in records:
        try:
            text = _string(source, line, record, text_column)
            title = _string(source, line, record, title_column) if title_column else ""
            name = _id(source, line, record, id_column, seen)
        except DataFormatError as error:
            on_bad(error)
            continue
        if not (text.strip() or title.strip()):
            without.append(line)
            continue
        payload = {k: v for k, v in record.items() if k not in columns}
        yield Unit(source.rel, text, title, locator="row", first_line=line, payload=payload, id=name)
    if without:
        source.warn(f"{len(without)} rows without text left out, the first: line {without[0]}")


def _string(source: Source, line: int, record: dict[str, Json], column: str) -> str:
    value = record.get(column, "")
    if value is None:
        return ""
    if isinstance(value, dict | list):
        raise DataFormatError(source.path, line, f"{column!r} holds a {type(value).__name__}, not text.")
    return str(value)


def _id(source: Source, line: int, record: dict[str, Json], column: str | None, seen: dict[str, int]) -> str:
    if column is None:
        return f"{source.rel}:{line}"
    name = _string(source, line, record, column)
    if not name:
        raise DataFormatError(source.path, line, f"the row has no {column!r}; give it one.")
    if name in seen:
        problem = (
            f"the id {name!r} was already used in line {seen[name]}; make the ids unique, "
            "or pass id_column='' to number the rows."
        )
        raise DataFormatError(source.path, line, problem)
    seen[name] = line
    return name


def _columns(source: Source, names: Sequence[str]) -> Columns:
    """Return the text, id and title columns: those asked for, else the first with a usual name."""
    listed = ", ".join(names)
    for asked in (source.text_column, source.id_column, source.title_column):
        if asked and asked not in names:
            raise InputError(f"{source.path} has no column {asked!r}; it has {listed}.")
    text = source.text_column or _usual(names, TEXT_COLUMNS) or (names[0] if len(names) == 1 else None)
    if text is None:
        raise NoTextColumn(
            f"{source.path}: which column holds the text? Pass text_column=...; the columns are {listed}."
        )
    name = _usual(names, ID_COLUMNS) if source.id_column is None else source.id_column or None
    title = _usual(names, TITLE_COLUMNS) if source.title_column is None else source.title_column or None
    return text, None if name == text else name, None if title == text else title


def _usual(names: Sequence[str], usual: Sequence[str]) -> str | None:
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in usual if name in lower), None)
