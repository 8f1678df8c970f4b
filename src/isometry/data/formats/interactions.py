"""Interactions: tables of users, items and perhaps ratings; ``user item item ...`` lines; baskets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from isometry.data.formats.folders import LIMITS, Request, Shape, first_line, parts, stem, visible
from isometry.data.formats.rows import columns_of
from isometry.data.readers.content import read_text
from isometry.data.readers.records import read_records, table_format
from isometry.data.schemas import Interactions
from isometry.errors import DataFormatError, InputError

_USERS = ("user", "userid", "user_id", "session", "session_id")
_ITEMS = ("item", "itemid", "item_id", "movieid", "movie_id", "productid", "product_id")
_RATINGS = ("rating", "score", "stars")
_TIMES = ("timestamp", "time", "unixtime")
_TITLES = ("title", "name", "item_name")
_NUMBERS = re.compile(r"\d+( \d+)+")
_TEXT = (".txt", ".txt.gz")


def _one_of(columns: Sequence[str], names: tuple[str, ...]) -> str | None:
    return next((c for c in columns if c.lower() in names), None)


def _style(path: Path) -> str:
    """Return what a file holds: table, lists (user item item ...), baskets (item|item), or nothing."""
    if table_format(path):
        columns = columns_of(path)
        # A tag a user gave an item is no choice of one among others.
        return "table" if _one_of(columns, _USERS) and _one_of(columns, _ITEMS) and "tag" not in columns else ""
    if not path.name.endswith(_TEXT):
        return ""
    line = first_line(path)
    if _NUMBERS.fullmatch(line):
        return "lists"
    return "baskets" if stem(path) == "baskets" and "|" in line else ""


def _files(path: Path) -> dict[str, Path]:
    return {stem(p): p for p in (visible(path) if path.is_dir() else [path]) if _style(p)}


def recognise(path: Path) -> Shape | None:
    """Return the parts of a folder or file of interactions."""
    files = _files(path)
    return Shape("interactions", tuple(files) if path.is_dir() else ()) if files else None


def load(request: Request) -> Interactions:
    """Read one part; a set with one part only is returned whole, to be split by the caller.

    Raises
    ------
    DataFormatError
        If a rating or time is not a number, or an item line is not made of numbers.
    """
    files = _files(request.path)
    if not files:
        raise InputError(f"{request.path} holds no interactions: a table with the columns user, item, rating.")
    path = next(iter(files.values())) if not request.path.is_dir() else parts(files, request)
    if _style(path) == "table":
        return _table(path, request)
    users, items = _lines(path, _style(path))
    return Interactions(users, items, name=request.name)


def _lines(path: Path, style: str) -> tuple[list[str], list[str]]:
    users: list[str] = []
    items: list[str] = []
    for number, line in enumerate(read_text(path, LIMITS)[0].split("\n"), 1):
        if not line.strip():
            continue
        if style == "lists" and not re.fullmatch(r"\d+( \d+)*\s*", line):
            raise DataFormatError(path, number, "a line must be the number of a user and those of the items.")
        user, chosen = (str(number), line.split("|")) if style == "baskets" else (line.split()[0], line.split()[1:])
        users += [user] * len(chosen)
        items += chosen
    return users, items


def _table(path: Path, request: Request) -> Interactions:
    columns = columns_of(path)
    user, item = _one_of(columns, _USERS), _one_of(columns, _ITEMS)
    rating, time = _one_of(columns, _RATINGS), _one_of(columns, _TIMES)
    assert user is not None
    assert item is not None
    users, items, ratings, times = list[str](), list[str](), list[float](), list[int]()
    for line, record in read_records(path, LIMITS):
        users.append(str(record[user]))
        items.append(str(record[item]))
        try:
            if rating:
                ratings.append(float(record[rating]))
            if time:
                times.append(int(float(record[time])))
        except (TypeError, ValueError) as error:
            raise DataFormatError(path, line, "the rating or time is not a number.") from error
    return Interactions(
        users,
        items,
        np.asarray(ratings, np.float32) if rating else None,
        np.asarray(times, np.int64) if time else None,
        _titles(request.path, item),
        request.name,
    )


def _titles(folder: Path, item: str) -> dict[str, str]:
    """Return item names from the table beside the interactions that has the item's column and a title."""
    for path in visible(folder) if folder.is_dir() else []:
        columns = columns_of(path) if table_format(path) else []
        if item in columns and not _one_of(columns, _USERS) and (title := _one_of(columns, _TITLES)):
            return {str(r[item]): str(r[title]) for _, r in read_records(path, LIMITS)}
    return {}
