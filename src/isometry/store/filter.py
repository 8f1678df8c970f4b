"""Filters over documents: a small tree that compiles to parameterised SQL and is also a Python predicate.

Both readings of a filter agree. A field may hold several values (a list); a comparison is true when *some* value of
the field makes it true, and never true of a field that is missing. ``!=`` and ``not in`` mean "there, and no value
equals". Values of different kinds (number, text, boolean, null) are never equal and have no order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from isometry.errors import InputError
from isometry.store.fields import BOOL, NULL, NUMBER, OWN, PREFIX, STRING, check_text, entries, kind_of
from isometry.types import Document

Scalar = str | float | int | bool | None
Sql = tuple[str, list[Any]]
_Values = dict[str, list[tuple[str, Any]]]  # path -> (kind, value)

MOST_VALUES = 10_000  # SQLite takes 32766 parameters in one statement; a list of ids belongs in ``ids=``
MOST_PARTS = 400  # SQLite's expression depth ends at 1000


@dataclass(frozen=True)
class Filter:
    """A condition on documents; combine with ``&``, ``|`` and ``~``, or read one with `Filter.parse`."""

    @staticmethod
    def parse(expression: str) -> Filter:
        """Read a filter expression, e.g. ``lang = 'de' and year between 2019 and 2024``.

        Raises
        ------
        FilterError
            If it cannot be read; carries the position.
        """
        from isometry.store.filter_parser import parse

        return parse(expression)

    def matches(self, document: Document) -> bool:
        """Whether the condition holds for one document."""
        values: _Values = {}
        for path, kind, value in entries(document):
            values.setdefault(path, []).append((kind, value))
        return self._holds(values)

    def sql(self) -> Sql:
        """Return a boolean SQL expression over ``documents AS d`` and its parameters."""
        raise TypeError("Filter is the base of filters; build one with Filter.parse.")

    def fields(self) -> set[str]:
        """Names of the fields that are asked about, as written."""
        return {leaf.field for leaf in self._leaves()}

    def _holds(self, values: _Values) -> bool:
        raise TypeError("Filter is the base of filters; build one with Filter.parse.")

    def _leaves(self) -> Iterator[_Leaf]:
        return iter(())

    def __and__(self, other: Filter) -> Filter:
        return And((self, other))

    def __or__(self, other: Filter) -> Filter:
        return Or((self, other))

    def __invert__(self) -> Filter:
        return Not(self)


@dataclass(frozen=True)
class _Leaf(Filter):
    field: str

    def __post_init__(self) -> None:
        check_text(self.field, "The name of a field")

    @property
    def path(self) -> str:
        """Own fields as they are, payload fields with their prefix."""
        own = self.field in OWN or self.field.startswith(PREFIX)
        return self.field if own else PREFIX + self.field

    def _leaves(self) -> Iterator[_Leaf]:
        yield self

    @property
    def kinds(self) -> frozenset[str]:
        """Kinds of value the field is compared with; none where any will do."""
        return frozenset()

    def sql(self) -> Sql:
        if self.path in OWN:
            condition, parameters = self._condition(f"d.{self.path}", None)
            return f"(d.{self.path} <> '' AND {condition})", parameters
        condition, parameters = self._condition("f.value", "f.kind")
        query = f"d.rowid IN (SELECT f.document FROM fields AS f WHERE f.path = ? AND {condition})"
        return query, [self.path.removeprefix(PREFIX), *parameters]

    def _holds(self, values: _Values) -> bool:
        return any(self._true_of(kind, value) for kind, value in values.get(self.path, ()))

    def _condition(self, value: str, kind: str | None) -> Sql:
        """SQL over the column names of a value and of its kind (None: always text)."""
        raise TypeError("A filter leaf needs a condition.")

    def _true_of(self, kind: str, value: Any) -> bool:
        raise TypeError("A filter leaf needs a condition.")


@dataclass(frozen=True)
class Exists(_Leaf):
    """The field is there, whatever its value (null too); an empty title or source counts as missing."""

    def _condition(self, value: str, kind: str | None) -> Sql:
        return "1", []

    def _true_of(self, kind: str, value: Any) -> bool:
        return True


@dataclass(frozen=True)
class OneOf(_Leaf):
    """Some value of the field equals one of ``values``.

    >>> OneOf("year", (2023, 2024)).matches(Document("a", "text", payload={"year": 2024}))
    True
    """

    values: tuple[Scalar, ...]
    _by_kind: dict[str, list[Any]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "values", tuple(self.values))
        if len(self.values) > MOST_VALUES:
            raise InputError(f"A filter lists {len(self.values)} values, at most {MOST_VALUES} fit; pass ids instead.")
        by_kind: dict[str, list[Any]] = {}
        for value in self.values:
            by_kind.setdefault(kind_of(value), []).append(0 if value is None else _bound(value))
        object.__setattr__(self, "_by_kind", by_kind)

    @property
    def kinds(self) -> frozenset[str]:
        """Kinds of value the field is compared with."""
        return frozenset(self._by_kind)

    def _condition(self, value: str, kind: str | None) -> Sql:
        tests, parameters = [], []
        for name, values in self._by_kind.items():
            if kind is None and name != STRING:
                continue
            test = f"{value} IN ({', '.join('?' * len(values))})"
            tests.append(test if kind is None else f"({kind} = '{name}' AND {test})")
            parameters += values
        return f"({' OR '.join(tests) or '0'})", parameters

    def _true_of(self, kind: str, value: Any) -> bool:
        return value in self._by_kind.get(kind, ())


@dataclass(frozen=True)
class Range(_Leaf):
    """Some value of the field lies between ``low`` and ``high`` (None: no bound); numbers or text, not mixed.

    >>> Range("price", low=10, with_high=False, high=20).matches(Document("a", "text", payload={"price": 20}))
    False
    """

    low: str | float | int | None = None
    high: str | float | int | None = None
    with_low: bool = True
    with_high: bool = True
    _kind: str = field(init=False, repr=False, compare=False)
    _tests: tuple[tuple[str, Any], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        kinds = {kind_of(bound) for bound in (self.low, self.high)} - {NULL}
        if not kinds or BOOL in kinds or len(kinds) > 1:
            raise InputError(f"A range of {self.field!r} needs bounds of one kind, numbers or text.")
        object.__setattr__(self, "_kind", kinds.pop())
        object.__setattr__(self, "_tests", tuple(self._bounds()))

    @property
    def kinds(self) -> frozenset[str]:
        """Kind of value the field is compared with."""
        return frozenset({self._kind})

    def _bounds(self) -> Iterator[tuple[str, Any]]:
        if self.low is not None:
            yield ">=" if self.with_low else ">", _bound(self.low)
        if self.high is not None:
            yield "<=" if self.with_high else "<", _bound(self.high)

    def _condition(self, value: str, kind: str | None) -> Sql:
        if kind is None and self._kind == NUMBER:
            return "0", []
        tests = [] if kind is None else [f"{kind} = '{self._kind}'"]
        tests += [f"{value} {operator} ?" for operator, _ in self._tests]
        return " AND ".join(tests), [bound for _, bound in self._tests]

    def _true_of(self, kind: str, value: Any) -> bool:
        if kind != self._kind:
            return False
        return all(_COMPARE[operator](value, bound) for operator, bound in self._tests)


@dataclass(frozen=True)
class Not(Filter):
    """The condition does not hold."""

    part: Filter

    def sql(self) -> Sql:
        """Return the negated expression."""
        condition, parameters = self.part.sql()
        return f"NOT {condition}", parameters

    def _holds(self, values: _Values) -> bool:
        return not self.part._holds(values)

    def _leaves(self) -> Iterator[_Leaf]:
        return self.part._leaves()


@dataclass(frozen=True)
class _Joined(Filter):
    parts: tuple[Filter, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        if not self.parts:
            raise InputError("And and Or need at least one condition.")
        if sum(1 for _ in self._leaves()) > MOST_PARTS:
            raise InputError(f"A filter has more than {MOST_PARTS} conditions; use `in (...)` instead of many `or`.")

    def _leaves(self) -> Iterator[_Leaf]:
        for part in self.parts:
            yield from part._leaves()

    def _join(self, word: str) -> Sql:
        compiled = [part.sql() for part in self.parts]
        return f"({word.join(sql for sql, _ in compiled)})", [p for _, parameters in compiled for p in parameters]


@dataclass(frozen=True)
class And(_Joined):
    """Every condition holds."""

    def sql(self) -> Sql:
        """Return the parts joined by AND."""
        return self._join(" AND ")

    def _holds(self, values: _Values) -> bool:
        return all(part._holds(values) for part in self.parts)


@dataclass(frozen=True)
class Or(_Joined):
    """At least one condition holds."""

    def sql(self) -> Sql:
        """Return the parts joined by OR."""
        return self._join(" OR ")

    def _holds(self, values: _Values) -> bool:
        return any(part._holds(values) for part in self.parts)


_COMPARE = {
    ">=": lambda a, b: a >= b,
    ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b,
    "<": lambda a, b: a < b,
}


def _bound(value: Any) -> Any:
    """A value as SQLite can take it, so that both readings compare alike (nothing stored is beyond 64 bits)."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return float(value) if abs(value) < 2**1023 else float("inf") * (1 if value > 0 else -1)
    if value != value:
        raise InputError("A filter cannot compare with NaN; nothing is equal to it.")
    return check_text(value, "A filter value") if isinstance(value, str) else value
