"""Tables of texts: scored pairs (STS), pairs, triplets and labelled texts, told apart by their columns."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from isometry.data.formats.folders import LIMITS, Request, Shape, first_line, language, parts, stem, visible
from isometry.data.readers.records import parquet_columns, read_records, stop, table_format
from isometry.data.schemas import STS, Labelled, Pairs, Triplets
from isometry.errors import DataFormatError, EmptyInput, InputError
from isometry.types import Json

_SIDES = (
    ("sentence1", "sentence2"),
    ("word1", "word2"),
    ("text1", "text2"),
    ("left", "right"),
    ("premise", "hypothesis"),
    ("question", "answer"),
    ("query", "document"),
    ("query", "passage"),
    ("anchor", "positive"),
    ("source", "target"),
    ("text", "english"),
)
_SCORES, _LABELS, _TEXTS = (
    ("score", "similarity"),
    ("label", "labels", "class", "relation"),
    ("text", "sentence", "content"),
)
_REWORDING = re.compile(r"r\d+")
_LANGUAGE = re.compile(r"([a-z]{2,3}(?:-[a-z]{2,3})?)-(.+)")

Roles = dict[str, tuple[str, ...]]


def roles(columns: Sequence[str]) -> dict[str, Roles]:
    """Return the kinds a table with these columns can be, likeliest first, with the columns of each.

    >>> list(roles(["sentence1", "sentence2", "score", "label"]))
    ['sts', 'pairs']
    """
    found: dict[str, Roles] = {}
    known = set(columns)
    label = next((c for c in _LABELS if c in known), None)
    labels = {"labels": (label,)} if label else {}
    sides = next((pair for pair in _SIDES if known.issuperset(pair)), None)
    if {"anchor", "positive", "negative"} <= known:
        found["triplets"] = {c: (c,) for c in ("anchor", "positive", "negative")}
    if sides and (score := next((c for c in _SCORES if c in known), None)):
        found["sts"] = {"left": sides[:1], "right": sides[1:], "scores": (score,)}
    if sides:
        found["pairs"] = {"left": sides[:1], "right": sides[1:], **labels}
    if "sentence" in known and (many := tuple(c for c in columns if _REWORDING.fullmatch(c))):
        found["pairs"] = {"left": ("sentence",), "right": many}
    if label and not sides and (text := next((c for c in _TEXTS if c in known), None)):
        found["labelled"] = {"texts": (text,), "labels": (label,)}
    return found


def columns_of(path: Path) -> list[str]:
    """Return the column names of a table, by its first line (its schema for Parquet)."""
    suffix = table_format(path)
    if suffix == ".parquet":
        return parquet_columns(path)
    if suffix in (".csv", ".tsv"):
        line = first_line(path)
        separator = "\t" if suffix == ".tsv" else max(",;\t|", key=line.count)
        return [name.strip().strip('"') for name in line.split(separator)]
    try:
        return list(next(read_records(path, LIMITS))[1])
    except (StopIteration, InputError):
        return []


def recognise(path: Path) -> Shape | None:
    """Return kind, parts and languages of a table or of a folder whose tables are all of one kind."""
    files = _tables(path)
    kinds = {next(iter(roles(columns_of(file))), None) for file in files.values()}
    if len(kinds) != 1 or not (kind := kinds.pop()):
        return None
    if not path.is_dir():
        return Shape(kind)
    names = [match.groups() for name in files if (match := _LANGUAGE.fullmatch(name))]
    langs, splits = sorted({lang for lang, _ in names}), sorted({split for _, split in names})
    if len(names) == len(files) == len(langs) * len(splits) > 1:  # every language has every part
        return Shape(kind, tuple(splits), tuple(langs))
    return Shape(kind, tuple(files))


def _tables(path: Path) -> dict[str, Path]:
    if not path.is_dir():
        return {stem(path): path} if table_format(path) else {}
    return {stem(file): file for file in visible(path) if table_format(file)}


def _pick(request: Request) -> tuple[Path, Path]:
    """Return the files of the left and right side: one file unless two languages are asked for."""
    if not request.path.is_dir():
        return request.path, request.path
    files = _tables(request.path)
    if not files:
        raise EmptyInput(f"{request.path} holds no table (.csv, .tsv, .jsonl or .parquet).")
    if request.split in files:
        return files[request.split], files[request.split]
    if request.lang and f"{request.lang}-{request.split}" in files:
        return (files[f"{request.lang}-{request.split}"],) * 2
    langs = sorted(name.removesuffix(f"-{request.split}") for name in files if name.endswith(f"-{request.split}"))
    if langs:
        left, right = language(langs, request)
        return files[f"{left}-{request.split}"], files[f"{right}-{request.split}"]
    file = parts(files, request)
    return file, file


def _columns(path: Path, kind: str, request: Request) -> dict[str, list[str]]:
    """Read the columns a kind needs, row by row; a filter by language where the table has a column ``lang``."""
    names = list(request.columns or columns_of(path))
    if kind not in roles(names):
        raise InputError(f"{path} cannot be read as {kind}: its columns are {', '.join(names)}.")
    wanted = roles(names)[kind]
    width = max(len(columns) for columns in wanted.values())
    taken: dict[str, list[str]] = {role: [] for role in wanted}
    for line, record in read_records(path, LIMITS, on_bad=stop, columns=list(request.columns or ()) or None):
        if request.lang and "lang" in record and record["lang"] != request.lang:
            continue
        for role, columns in wanted.items():
            values = [_text(path, line, record, column) for column in columns]
            if role == "scores":
                _check_number(path, line, values[0])
            taken[role] += values * (width if len(values) == 1 else 1)
    if not any(taken.values()):
        raise EmptyInput(f"{path} has no rows{f' in the language {request.lang!r}' if request.lang else ''}.")
    return taken


def _text(path: Path, line: int, record: dict[str, Json], column: str) -> str:
    value = record.get(column)
    if value is None or isinstance(value, dict | list):
        raise DataFormatError(path, line, f"the row has no text in the column {column!r}.")
    return str(value)


def _check_number(path: Path, line: int, value: str) -> None:
    try:
        fine = math.isfinite(float(value))
    except ValueError:
        fine = False
    if not fine:
        raise DataFormatError(path, line, f"the score {value!r} is not a number.")


def load_sts(request: Request) -> STS:
    """Read scored pairs; two languages of aligned files give cross-lingual pairs."""
    first, second = _pick(request)
    left = _columns(first, "sts", request)
    right = left if second == first else _columns(second, "sts", request)
    if len(left["left"]) != len(right["right"]):
        raise InputError(f"{first} and {second} are not aligned: {len(left['left'])} and {len(right['right'])} rows.")
    return STS(left["left"], right["right"], np.asarray(left["scores"], np.float64), request.name)


def load_pairs(request: Request) -> Pairs:
    """Read pairs, with labels where there are any."""
    columns = _columns(_pick(request)[0], "pairs", request)
    return Pairs(columns["left"], columns["right"], columns.get("labels"), request.name)


def load_triplets(request: Request) -> Triplets:
    """Read anchor, positive, negative."""
    return Triplets(**_columns(_pick(request)[0], "triplets", request), name=request.name)


def load_labelled(request: Request) -> Labelled:
    """Read texts with their classes."""
    return Labelled(**_columns(_pick(request)[0], "labelled", request), name=request.name)


LOADERS: dict[str, Callable[[Request], STS | Pairs | Triplets | Labelled]] = {
    "sts": load_sts,
    "pairs": load_pairs,
    "triplets": load_triplets,
    "labelled": load_labelled,
}
