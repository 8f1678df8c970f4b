"""What a filter asks of an item's attributes; combine with ``&``, ``|`` and ``~``.

A missing attribute makes a predicate neither true nor false (Kleene's three values), so that it matches nothing,
negated or not: ``~Equals("year", 2020)`` means "has a year, and not that one".
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from isometry.errors import InputError

if TYPE_CHECKING:
    from isometry.indexes.filtered.attributes import Attributes

Bound = float | int | str | None
Truth = tuple[NDArray[np.bool_], NDArray[np.bool_]]  # rows where it is true, rows where it is false


@dataclass(frozen=True)
class Predicate:
    """A condition on the attributes of an item."""

    def truth(self, attributes: Attributes) -> Truth:
        """Rows where the condition is true and rows where it is false, bool ``[n]`` each; the others are unknown."""
        raise TypeError("Predicate is the base of predicates; use Equals, Between, Contains ...")

    def shares(self, attributes: Attributes) -> tuple[float, float]:
        """Estimated shares of rows where it is true and false: exact counts of one field, independence between two."""
        yes, no = self.truth(attributes)
        return float(yes.mean()) if len(yes) else 0.0, float(no.mean()) if len(no) else 0.0

    def __and__(self, other: Predicate) -> Predicate:
        return And((self, other))

    def __or__(self, other: Predicate) -> Predicate:
        return Or((self, other))

    def __invert__(self) -> Predicate:
        return Not(self)


@dataclass(frozen=True)
class Everything(Predicate):
    """True of every item."""

    def truth(self, attributes: Attributes) -> Truth:
        """All rows, none."""
        return np.ones(len(attributes), bool), np.zeros(len(attributes), bool)


@dataclass(frozen=True, eq=False)
class Rows(Predicate):
    """True of given rows (bool ``[n]``), for filters that were decided elsewhere."""

    rows: NDArray[np.bool_]

    def truth(self, attributes: Attributes) -> Truth:
        """The rows, the others."""
        rows = np.asarray(self.rows)
        if rows.dtype != bool or rows.shape != (len(attributes),):
            raise InputError(f"Rows needs a boolean array [{len(attributes)}], got {rows.dtype} {list(rows.shape)}.")
        return rows, ~rows


@dataclass(frozen=True)
class Equals(Predicate):
    """EM, exact match: the single value of a field is ``value``."""

    field: str
    value: Hashable

    def truth(self, attributes: Attributes) -> Truth:
        """Rows with that value, rows with another."""
        column = attributes.single(self.field)
        yes = column.equal(self.value)
        return yes, column.present & ~yes

    def shares(self, attributes: Attributes) -> tuple[float, float]:
        """Exact, from the counts of the column."""
        column = attributes.single(self.field)
        return _shares(column.count(self.value), int(column.present.sum()), len(attributes))


@dataclass(frozen=True)
class Between(Predicate):
    """R, range: an ordered field lies in ``[low, high]``, both included; None leaves a side open.

    Raises
    ------
    InputError
        If ``low`` exceeds ``high``.
    """

    field: str
    low: Bound = None
    high: Bound = None

    def __post_init__(self) -> None:
        if self.low is None or self.high is None:
            return
        if isinstance(self.low, str) != isinstance(self.high, str):
            raise InputError(f"The range of {self.field!r} mixes a number with text: {self.low!r} to {self.high!r}.")
        if self.low > self.high:  # type: ignore[operator]  # both text or both numbers
            raise InputError(f"The range {self.low!r} to {self.high!r} of {self.field!r} is empty: swap its bounds.")

    def truth(self, attributes: Attributes) -> Truth:
        """Rows within, rows outside."""
        column = attributes.ordered(self.field)
        yes = column.within(*column.ranks(self.low, self.high))
        return yes, column.present & ~yes

    def shares(self, attributes: Attributes) -> tuple[float, float]:
        """Exact, by two binary searches."""
        column = attributes.ordered(self.field)
        first, past = column.ranks(self.low, self.high)
        return _shares(past - first, len(column.order), len(attributes))


@dataclass(frozen=True)
class Contains(Predicate):
    """EMIS, exact match in set: ``value`` is a member of a set-valued field."""

    field: str
    value: Hashable

    def truth(self, attributes: Attributes) -> Truth:
        """Rows whose set holds it, rows whose set does not."""
        column = attributes.labels(self.field)
        yes = column.equal(self.value)
        return yes, column.present & ~yes

    def shares(self, attributes: Attributes) -> tuple[float, float]:
        """Exact, from the length of the inverted list."""
        column = attributes.labels(self.field)
        return _shares(column.count(self.value), int(column.present.sum()), len(attributes))


@dataclass(frozen=True)
class _Joined(Predicate):
    parts: tuple[Predicate, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        if not self.parts:
            raise InputError(f"{type(self).__name__} needs at least one condition.")


class And(_Joined):
    """Every condition is true."""

    def truth(self, attributes: Attributes) -> Truth:
        """Rows where all are true, rows where one is false."""
        yes, no = zip(*(part.truth(attributes) for part in self.parts), strict=True)
        return np.logical_and.reduce(yes), np.logical_or.reduce(no)

    def shares(self, attributes: Attributes) -> tuple[float, float]:
        """Products, as if the conditions were independent."""
        yes, no = zip(*(part.shares(attributes) for part in self.parts), strict=True)
        return float(np.prod(yes)), 1 - float(np.prod(1 - np.array(no)))


class Or(_Joined):
    """Some condition is true."""

    def truth(self, attributes: Attributes) -> Truth:
        """Rows where one is true, rows where all are false."""
        yes, no = zip(*(part.truth(attributes) for part in self.parts), strict=True)
        return np.logical_or.reduce(yes), np.logical_and.reduce(no)

    def shares(self, attributes: Attributes) -> tuple[float, float]:
        """Products, as if the conditions were independent."""
        yes, no = zip(*(part.shares(attributes) for part in self.parts), strict=True)
        return 1 - float(np.prod(1 - np.array(yes))), float(np.prod(no))


@dataclass(frozen=True)
class Not(Predicate):
    """The condition is false."""

    part: Predicate

    def truth(self, attributes: Attributes) -> Truth:
        """The condition's truth, exchanged."""
        yes, no = self.part.truth(attributes)
        return no, yes

    def shares(self, attributes: Attributes) -> tuple[float, float]:
        """The condition's shares, exchanged."""
        yes, no = self.part.shares(attributes)
        return no, yes


def contains_all(field: str, values: tuple[Hashable, ...]) -> Predicate:
    """Label subset: a set-valued field holds all ``values``."""
    return And(tuple(Contains(field, value) for value in values))


def overlaps(field: str, values: tuple[Hashable, ...]) -> Predicate:
    """Label overlap: a set-valued field holds at least one of ``values``."""
    return Or(tuple(Contains(field, value) for value in values))


def _shares(yes: int, present: int, n: int) -> tuple[float, float]:
    return (yes / n, (present - yes) / n) if n else (0.0, 0.0)
