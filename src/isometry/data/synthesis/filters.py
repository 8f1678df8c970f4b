"""Which synthetic rows are kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from isometry.data.synthesis.rows import SyntheticRow
from isometry.errors import InputError
from isometry.types import FloatArray, check_vectors, normal_text, unit

Embed = Callable[[Sequence[str]], FloatArray]


@dataclass(frozen=True)
class Filters:
    """Bounds that a synthetic row must keep.

    Parameters
    ----------
    query_words, document_words
        Fewest and most words.
    similarity
        Lowest and highest cosine of query and positive, where an encoder is given. Qwen3-Embedding keeps those above
        0.7; a highest value below 1 throws out mere copies.
    """

    query_words: tuple[int, int] = (2, 64)
    document_words: tuple[int, int] = (3, 2000)
    similarity: tuple[float, float] = (-1.0, 1.0)

    def __post_init__(self) -> None:
        for name, (low, high) in vars(self).items():
            if not low <= high:
                raise InputError(f"{name} must be (lowest, highest), got {(low, high)}.")


def filter_rows(
    rows: Sequence[SyntheticRow], filters: Filters, *, embed: Embed | None = None, known: Iterable[str] = ()
) -> tuple[list[SyntheticRow], Counter[str]]:
    """Return the rows that are kept, and how many were dropped by reason.

    Reasons: ``"duplicate"`` (the query stands in ``known``, or the pair came before), ``"copy"`` (two of the row's
    texts are the same), ``"length"``, ``"similarity"``. Texts are compared up to `isometry.types.normal_text`.

    Parameters
    ----------
    embed
        Texts to vectors ``[n, d]``; without it similarities are neither measured nor judged.
    known
        Queries to keep out, such as those of a test set.

    Raises
    ------
    InputError
        If a window of similarity is asked for, and no encoder is given.
    """
    if embed is None and filters.similarity != Filters.similarity:
        raise InputError(f"A window of similarity {filters.similarity} needs an encoder: pass embed=.")
    dropped: Counter[str] = Counter()
    taken = {normal_text(text) for text in known}
    pairs: set[tuple[str, str]] = set()
    kept = []
    for row in rows:
        query, positive, negative = (normal_text(text) for text in (row.query, row.positive, row.negative))
        if query in taken or (query, positive) in pairs:
            dropped["duplicate"] += 1
        elif query == positive or (row.negative and negative in (query, positive)):
            dropped["copy"] += 1
        elif not _fits(row, filters):
            dropped["length"] += 1
        else:
            pairs.add((query, positive))
            kept.append(row)
    if embed is None or not kept:
        return kept, dropped
    cosines = _cosines(embed, [row.query for row in kept], [row.positive for row in kept])
    measured = [replace(row, similarity=round(float(s), 6)) for row, s in zip(kept, cosines, strict=True)]
    low, high = filters.similarity
    inside = [row for row, s in zip(measured, cosines.tolist(), strict=True) if low <= s <= high]
    if outside := len(measured) - len(inside):
        dropped["similarity"] = outside
    return inside, dropped


def _fits(row: SyntheticRow, filters: Filters) -> bool:
    sides = [(row.query, filters.query_words), (row.positive, filters.document_words)]
    sides += [(row.negative, filters.document_words)] * bool(row.negative)
    return all(low <= len(text.split()) <= high for text, (low, high) in sides)


def _cosines(embed: Embed, left: Sequence[str], right: Sequence[str]) -> FloatArray:
    sides = [check_vectors(embed(texts), what="the filter's vectors") for texts in (left, right)]
    a, b = map(unit, sides)
    cosines: FloatArray = np.clip((a * b).sum(axis=1), -1, 1)
    return cosines
