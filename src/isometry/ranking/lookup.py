"""What stages know about a hit beyond its id: texts and vectors, asked for once per id."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from isometry.errors import InputError, UnknownName
from isometry.types import Document, FloatArray, Hits, IntArray, check_vectors

Lookup = Callable[[Sequence[str]], Any] | Mapping[str, Any]


def _ask(lookup: Lookup, ids: list[str]) -> Any:
    if not isinstance(lookup, Mapping):
        return lookup(ids)
    for identity in ids:
        if identity not in lookup:
            raise UnknownName("id", identity)
    return [lookup[identity] for identity in ids]


def texts_of(lookup: Lookup, hits: Hits) -> list[str]:
    """The text of every row; the lookup returns texts or documents.

    Raises
    ------
    InputError
        If the lookup returns another number of texts than it was asked for.
    """
    ids, place = _unique(hits)
    found = list(_ask(lookup, ids)) if ids else []
    if len(found) != len(ids):
        raise InputError(f"The text lookup must return one text per id, got {len(found)} for {len(ids)} ids.")
    texts = [f.content if isinstance(f, Document) else f for f in found]
    if odd := [type(text).__name__ for text in texts if not isinstance(text, str)]:
        raise InputError(f"The text lookup must return texts or documents, got {odd[0]}.")
    return [texts[i] for i in place]


def vectors_of(lookup: Lookup, hits: Hits) -> FloatArray:
    """The vector of every row, ``[h, d]``; an id is looked up once.

    Raises
    ------
    InputError
        If the lookup returns another number of rows than it was asked for.
    DimensionMismatch
        If that is not a matrix, or holds NaN or infinity.
    """
    ids, place = _unique(hits)
    if not ids:
        return np.empty((0, 0), np.float32)
    found = check_vectors(_ask(lookup, ids), what="looked-up vectors")
    if len(found) != len(ids):
        raise InputError(f"The vector lookup must return one vector per id, got {len(found)} for {len(ids)} ids.")
    rows: FloatArray = found[place]
    return rows


def _unique(hits: Hits) -> tuple[list[str], IntArray]:
    known: dict[str, int] = {}
    place = [known.setdefault(identity, len(known)) for identity in hits.ids.tolist()]
    return list(known), np.asarray(place, np.int64)
