"""Typed columns of attributes: sorted values for ranges, inverted lists for labels, boolean masks for predicates."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from isometry.errors import InputError, UnknownName
from isometry.indexes.filtered.predicates import Bound, Predicate
from isometry.types import IntArray, Json

Kind = Literal["categorical", "ordered", "set"]
Mask = NDArray[np.bool_]
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


@dataclass(frozen=True, eq=False)
class Labels:
    """A categorical (one value each) or set-valued column as inverted lists.

    Parameters
    ----------
    values
        Distinct values in order of first appearance.
    offsets, rows
        int64: value v occurs in ``rows[offsets[v]:offsets[v + 1]]``, rising.
    present
        bool ``[n]``: which rows have the attribute at all (an empty set counts as present).
    single
        Whether every row has one value at most.
    """

    values: list[Hashable]
    offsets: IntArray
    rows: IntArray
    present: Mask
    single: bool

    @classmethod
    def of(cls, items: Sequence[Iterable[Hashable] | None], *, single: bool) -> Labels:
        """Build from one collection of values per row; None where the attribute is missing."""
        codes: dict[Hashable, int] = {}
        pairs = sorted({(codes.setdefault(_key(v), len(codes)), i) for i, item in enumerate(items) for v in item or ()})
        rows = np.array([row for _, row in pairs], np.int64)
        sizes = np.bincount(np.array([code for code, _ in pairs], np.int64), minlength=len(codes))
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        return cls(list(codes), offsets, rows, np.array([item is not None for item in items], bool), single)

    @cached_property
    def _codes(self) -> dict[Hashable, int]:
        return {value: code for code, value in enumerate(self.values)}

    def code(self, value: Hashable) -> int | None:
        """Code of a value; None if it does not occur."""
        return self._codes.get(_key(value))

    def value(self, code: int) -> Hashable:
        """Value of a code, as it was given."""
        value = self.values[code]
        return value[1] if isinstance(value, tuple) and value[:1] == ("bool",) else value

    def posting(self, value: Hashable) -> IntArray:
        """Rows that have a value, rising; none for a value that does not occur."""
        code = self.code(value)
        return self.rows[:0] if code is None else self.rows[self.offsets[code] : self.offsets[code + 1]]

    def count(self, value: Hashable) -> int:
        """Number of rows that have a value."""
        return len(self.posting(value))

    def equal(self, value: Hashable) -> Mask:
        """Rows that have a value, bool ``[n]``."""
        mask = np.zeros(len(self.present), bool)
        mask[self.posting(value)] = True
        return mask

    @cached_property
    def bits(self) -> NDArray[np.uint64]:
        """Every row's set as packed bits, uint64 ``[n, ceil(values / 64)]``."""
        packed = np.zeros((len(self.present), max(1, -(-len(self.values) // 64))), np.uint64)
        code = np.repeat(np.arange(len(self.values)), np.diff(self.offsets))
        np.bitwise_or.at(packed, (self.rows, code // 64), np.uint64(1) << (code % 64).astype(np.uint64))
        return packed

    def sets(self) -> list[tuple[int, ...]]:
        """Every row's codes, rising."""
        found: list[list[int]] = [[] for _ in self.present]
        for code in range(len(self.values)):
            for row in self.rows[self.offsets[code] : self.offsets[code + 1]].tolist():
                found[row].append(code)
        return [tuple(codes) for codes in found]


@dataclass(frozen=True, eq=False)
class Ordered:
    """A numeric or date column with its rows in rising order.

    Parameters
    ----------
    values
        float64 ``[n]``, NaN where missing; dates as seconds since 1970 (UTC where they name no zone).
    order
        int64: rows that have a value, by rising value, then row.
    dates
        Whether bounds are ISO 8601 dates.
    """

    values: NDArray[np.float64]
    order: IntArray
    dates: bool

    @classmethod
    def of(cls, values: Sequence[Bound], *, dates: bool = False) -> Ordered:
        """Build from one value per row; None where the attribute is missing."""
        numbers = np.array([math.nan if v is None else _number(v, dates) for v in values], np.float64)
        order = np.argsort(numbers, kind="stable")[: int((~np.isnan(numbers)).sum())]
        return cls(numbers, order.astype(np.int64), dates)

    @cached_property
    def present(self) -> Mask:
        """Rows that have a value, bool ``[n]``."""
        return ~np.isnan(self.values)

    @cached_property
    def rising(self) -> NDArray[np.float64]:
        """The values in rising order, without the missing ones."""
        return self.values[self.order]

    def bound(self, row: int) -> Bound:
        """The value of a row, as a bound that `ranks` reads."""
        value = float(self.values[row])
        return datetime.fromtimestamp(value, UTC).isoformat() if self.dates else value

    def ranks(self, low: Bound, high: Bound) -> tuple[int, int]:
        """Positions in `order` of the range ``[low, high]``: the first, and one past the last."""
        first = 0 if low is None else int(np.searchsorted(self.rising, _number(low, self.dates), "left"))
        past = len(self.order)
        if high is not None:
            past = int(np.searchsorted(self.rising, _number(high, self.dates), "right"))
        return first, max(first, past)

    def within(self, first: int, past: int) -> Mask:
        """Rows at positions ``first`` to ``past - 1`` of `order`, bool ``[n]``."""
        mask = np.zeros(len(self.values), bool)
        mask[self.order[first:past]] = True
        return mask

    def equal(self, value: Any) -> Mask:
        """Rows of that value, bool ``[n]``."""
        return self.within(*self.ranks(value, value))

    def count(self, value: Any) -> int:
        """Number of rows of that value."""
        first, past = self.ranks(value, value)
        return past - first


class Attributes:
    """The attributes of n items as typed columns, from any JSON objects.

    Lists are sets; numbers, and text that is an ISO 8601 date throughout, are ordered; all else is categorical. None,
    NaN and an absent key are missing.

    Parameters
    ----------
    records
        One mapping per item.
    kinds
        Types of fields that should not be guessed.

    Examples
    --------
    >>> from isometry.indexes.filtered.predicates import Between, Contains
    >>> items = Attributes([{"year": 2020, "tags": ["a", "b"]}, {"year": 2024, "tags": ["b"]}, {"tags": []}])
    >>> items.kinds
    {'year': 'ordered', 'tags': 'set'}
    >>> items.mask(Contains("tags", "b") & Between("year", 2021)).tolist()
    [False, True, False]
    >>> items.missing()
    {'year': 1, 'tags': 0}

    Raises
    ------
    InputError
        If a field mixes lists with single values, or its values do not fit the kind that was asked for.
    """

    def __init__(self, records: Sequence[Mapping[str, Json]], kinds: Mapping[str, Kind] | None = None) -> None:
        self._n = len(records)
        fields = list(dict.fromkeys(key for record in records for key in record))
        self.columns: dict[str, Labels | Ordered] = {}
        for field in fields:
            values = [None if _missing(v := record.get(field)) else v for record in records]
            kind = (kinds or {}).get(field) or _kind(field, values)
            self.columns[field] = _column(field, kind, values)

    def __len__(self) -> int:
        return self._n

    @property
    def kinds(self) -> dict[str, Kind]:
        """Type of each field."""
        return {
            name: "ordered" if isinstance(c, Ordered) else "categorical" if c.single else "set"
            for name, c in self.columns.items()
        }

    def missing(self) -> dict[str, int]:
        """Number of items that lack each field: no predicate on it matches them."""
        return {name: int((~column.present).sum()) for name, column in self.columns.items()}

    def mask(self, predicate: Predicate) -> Mask:
        """Items that match, bool ``[n]``."""
        return predicate.truth(self)[0]

    def selectivity(self, predicate: Predicate) -> float:
        """Estimated share of items that match, without looking at them: exact for one field."""
        return predicate.shares(self)[0]

    def column(self, field: str) -> Labels | Ordered:
        """Return a column, or raise `UnknownName`."""
        if field not in self.columns:
            raise UnknownName("attribute", field, self.columns)
        return self.columns[field]

    def ordered(self, field: str) -> Ordered:
        """Return a column that ranges can be asked of."""
        column = self.column(field)
        if not isinstance(column, Ordered):
            raise InputError(
                f"The attribute {field!r} has no order ({self.kinds[field]}); a range needs numbers or dates."
            )
        return column

    def labels(self, field: str) -> Labels:
        """Return a categorical or set-valued column."""
        column = self.column(field)
        if not isinstance(column, Labels):
            raise InputError(f"The attribute {field!r} is ordered; ask Equals or Between of it.")
        return column

    def single(self, field: str) -> Labels | Ordered:
        """Return a column of one value each."""
        column = self.column(field)
        if isinstance(column, Labels) and not column.single:
            raise InputError(f"The attribute {field!r} is set-valued; ask Contains of it.")
        return column


def _missing(value: Json) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _key(value: Hashable) -> Hashable:
    """JSON's true is not its 1."""
    return ("bool", value) if isinstance(value, bool) else value


def _number(value: Any, dates: bool) -> float:
    if dates:
        if not isinstance(value, str) or not _DATE.match(value):
            raise InputError(f"{value!r} is no ISO 8601 date; write it as 2024-05-31.")
        try:
            moment = datetime.fromisoformat(value)
        except ValueError as error:
            raise InputError(f"{value!r} is no ISO 8601 date ({error}).") from error
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise InputError(f"{value!r} is no number, and the attribute is ordered by numbers.")
    return float(value)


def _kind(field: str, values: Sequence[Json]) -> Kind:
    present = [v for v in values if v is not None]
    lists = [isinstance(v, list | tuple | set | frozenset) for v in present]
    if any(lists):
        if not all(lists):
            raise InputError(f"The attribute {field!r} mixes lists with single values; make all of them lists.")
        return "set"
    if present and all(isinstance(v, int | float) and not isinstance(v, bool) for v in present):
        return "ordered"
    return "ordered" if present and all(_is_date(v) for v in present) else "categorical"


def _is_date(value: Json) -> bool:
    try:
        _number(value, True)
    except InputError:
        return False
    return True


def _column(field: str, kind: Kind, values: Sequence[Any]) -> Labels | Ordered:
    try:
        if kind == "set":
            return Labels.of(
                [None if v is None else [v] if isinstance(v, str) else list(v) for v in values], single=False
            )
        if kind == "ordered":
            text = any(isinstance(v, str) for v in values)
            return Ordered.of(values, dates=text)
        return Labels.of([None if v is None else [v] for v in values], single=True)
    except TypeError as error:
        raise InputError(f"The attribute {field!r} cannot be read as {kind}: {error}.") from error
