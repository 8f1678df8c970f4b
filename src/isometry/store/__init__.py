"""Documents and vectors that last: the `Collection` (a SQLite database) and its snapshots (a cache).

>>> from isometry.store import Filter
>>> sorted(Filter.parse("year >= 2020 and not tags = 'draft'").fields())
['tags', 'year']
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isometry.lazy import exports

# Public names and their homes; each is imported when first asked for.
_HOMES = {
    "And": "filter",
    "Check": "verify",
    "Collection": "collection",
    "Exists": "filter",
    "Filter": "filter",
    "Not": "filter",
    "OneOf": "filter",
    "Or": "filter",
    "Range": "filter",
    "Report": "verify",
}

if TYPE_CHECKING:
    from isometry.store.collection import Collection
    from isometry.store.filter import And, Exists, Filter, Not, OneOf, Or, Range
    from isometry.store.verify import Check, Report

__all__ = ["And", "Check", "Collection", "Exists", "Filter", "Not", "OneOf", "Or", "Range", "Report"]

__getattr__, __dir__ = exports(__name__, _HOMES)
