"""Tables as records: CSV, TSV, JSON Lines and Parquet to ``(line, {column: value})``."""

from __future__ import annotations

import csv
import datetime
import decimal
import io
import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from isometry.data.readers.content import decode, is_binary, read_bytes, read_lines, readable
from isometry.data.readers.units import Limits
from isometry.errors import DataFormatError, InputError
from isometry.types import Json

Record = tuple[int, dict[str, Json]]
Bad = Callable[[DataFormatError], None]
"""What to do about a bad row: raise it, or note it and go on."""

EXTENSIONS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")


def stop(error: DataFormatError) -> None:
    """Raise: the way of dealing with a bad row unless asked otherwise."""
    raise error


def table_format(path: Path) -> str:
    """Return the extension that tells a table's format, e.g. ``".jsonl"`` for ``corpus.jsonl.gz``; else empty.

    >>> table_format(Path("corpus.jsonl.gz")), table_format(Path("notes.txt"))
    ('.jsonl', '')
    """
    name = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    suffix = name.suffix.lower()
    return suffix if suffix in EXTENSIONS else ""


def silent(_: str) -> None:
    """Say nothing."""


def read_records(
    path: Path,
    limits: Limits,
    *,
    on_bad: Bad = stop,
    warn: Callable[[str], None] = silent,
    columns: list[str] | None = None,
) -> Iterator[Record]:
    """Yield the rows of a table with their line numbers (row numbers for Parquet), counted from 1.

    Parameters
    ----------
    path, limits
        The file.
    on_bad
        Called with a `DataFormatError` for each row that cannot be read.
    warn
        Called with a note when the file is not clean UTF-8.
    columns
        Column names of a CSV or TSV file without a header row.
    """
    suffix = table_format(path)
    if suffix == ".parquet":
        return _parquet(path, limits)
    if suffix in (".jsonl", ".ndjson"):
        return _json_lines(path, limits, on_bad)
    text = _table_text(path, limits, warn)
    rows = _tab_separated(text) if suffix == ".tsv" else _comma_separated(path, text, on_bad)
    return _with_header(path, rows, columns, on_bad)


def _json_lines(path: Path, limits: Limits, on_bad: Bad) -> Iterator[Record]:
    for number, raw in enumerate(read_lines(path, limits), 1):
        if not raw.strip() or raw.strip() == b"\xef\xbb\xbf":
            continue
        if number == 1 and is_binary(raw):
            raise InputError(f"{path} is binary, not JSON Lines.")
        try:
            record = json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"), parse_constant=lambda _: None)
        except UnicodeDecodeError:
            on_bad(DataFormatError(path, number, "the line is not UTF-8; convert the file to UTF-8."))
            continue
        except json.JSONDecodeError as error:
            on_bad(
                DataFormatError(path, number, f"the line is not valid JSON ({error.msg}, character {error.pos + 1}).")
            )
            continue
        except (RecursionError, ValueError) as error:
            on_bad(DataFormatError(path, number, f"the line is not usable JSON ({type(error).__name__}: {error})."))
            continue
        if not isinstance(record, dict):
            problem = f"the line holds a {type(record).__name__}, not an object {{column: value}}."
            on_bad(DataFormatError(path, number, problem))
            continue
        yield number, _whole(record) if b"\\u" in raw else record


def _whole(value: Json) -> Json:
    r"""Replace halves of surrogate pairs, which JSON can spell (``"\ud800"``) but no encoding can store."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return {_whole(k): _whole(v) for k, v in value.items()} if isinstance(value, dict) else value


def _table_text(path: Path, limits: Limits, warn: Callable[[str], None]) -> str:
    data = read_bytes(path, limits)
    if is_binary(data):
        raise InputError(f"{path} is binary, not a table of text.")
    text, note = decode(data)
    if note:
        warn(note)
    return text


def _with_header(
    path: Path, rows: Iterator[tuple[int, list[str]]], columns: list[str] | None, on_bad: Bad
) -> Iterator[Record]:
    header = columns
    for line, row in rows:
        if header is None:
            header = [name.strip() for name in row]
            if len(set(header)) < len(header):
                twice = next(name for name in header if header.count(name) > 1)
                raise DataFormatError(path, line, f"two columns are named {twice!r}; rename one.")
        elif len(row) != len(header):
            problem = f"the row has {len(row)} fields where there are {len(header)} columns."
            on_bad(DataFormatError(path, line, problem))
        else:
            yield line, dict(zip(header, row, strict=True))


def _tab_separated(text: str) -> Iterator[tuple[int, list[str]]]:
    """Split at tabs and line ends: quotes mean nothing here."""
    for line, content in enumerate(text.split("\n"), 1):
        if content.strip("\r"):
            yield line, content.rstrip("\r").split("\t")


def _comma_separated(path: Path, text: str, on_bad: Bad) -> Iterator[tuple[int, list[str]]]:
    """Split as RFC 4180 says; the separator is the one most frequent in the header."""
    first = text.lstrip().split("\n", 1)[0]
    delimiter = max(",;\t|", key=first.count)  # the first of equals, hence the comma where there is none
    # The limit is one for the whole process and guards against nothing here: the file's size is already checked.
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            on_bad(DataFormatError(path, line, f"the row cannot be split into fields ({error}); check its quotes."))
            continue
        if any(field.strip() for field in row):
            yield line, row


@contextmanager
def _arrow(path: Path) -> Iterator[None]:
    """Turn what pyarrow raises about a file's content into one sentence."""
    import pyarrow as pa

    with readable(path):
        try:
            yield
        except InputError:
            raise
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the system's; what Thrift cannot read comes as an OSError without a number
            why = str(error).strip().splitlines()[0]
            raise InputError(f"{path} is not a readable Parquet file ({why}).") from error


def parquet_columns(path: Path) -> list[str]:
    """Return the column names of a Parquet file."""
    import pyarrow.parquet as pq

    with _arrow(path):
        return [str(name) for name in pq.read_schema(path).names]


def _parquet(path: Path, limits: Limits) -> Iterator[Record]:
    import pyarrow.parquet as pq

    with _arrow(path):
        limits.check(path, path.stat().st_size)
        file = pq.ParquetFile(path)
        groups = [file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups)]
        limits.check_unpacked(path, sum(groups))
        number = 0
        for batch in file.iter_batches(batch_size=4096):
            for record in batch.to_pylist():
                number += 1
                yield number, {str(name): plain(value) for name, value in record.items()}


def plain(value: Any) -> Json:
    """Return a value as JSON has it: dates as ISO text, NaN as null, bytes as their number.

    >>> plain(datetime.date(2024, 2, 29)), plain(float("nan")), plain(b"ab")
    ('2024-02-29', None, '<2 bytes>')
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return float(value)
    return f"<{len(value)} bytes>" if isinstance(value, bytes) else str(value)


_INTEGER = re.compile(r"-?(?:0|[1-9]\d{0,17})")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,17})(?:\.\d+)?(?:[eE][-+]?\d{1,2})?")


def number_columns(records: list[Record]) -> dict[str, Callable[[str], float | int]]:
    """Find the columns of a CSV or TSV file in which every value is a number, so that filters can compare them.

    A column with a leading zero, such as postal codes, stays text.
    """
    columns: dict[str, Callable[[str], float | int]] = {}
    for name in records[0][1] if records else ():
        values = [record[name] for _, record in records if record[name]]
        if values and all(_INTEGER.fullmatch(v) for v in values):
            columns[name] = int
        elif values and all(_NUMBER.fullmatch(v) for v in values):
            columns[name] = float
    return columns
