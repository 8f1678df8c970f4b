"""Hard-negative mining by vectors: the k hardest, a rank window, with a margin below the positive's score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

import numpy as np

from isometry.errors import EmptyInput, InputError
from isometry.negatives.margins import Margin
from isometry.negatives.masks import text_places
from isometry.protocols import Mask
from isometry.types import FloatArray, IntArray, check_vectors, normal_text

BLOCK = 2**25  # scores held at once


@dataclass(frozen=True, eq=False)
class Mined:
    """Negatives of n queries.

    Parameters
    ----------
    rows
        int64 ``[n, k]``: documents, best first; -1 where too few were left.
    scores
        float32 ``[n, k]``, NaN where too few were left.
    positive
        float32 ``[n]``: the lowest score of each query's positives.
    rejected
        int64 ``[n]``: documents at or above each query's limit.
    """

    rows: IntArray
    scores: FloatArray
    positive: FloatArray
    rejected: IntArray

    @property
    def complete(self) -> Mask:
        """Which queries have all their negatives, bool ``[n]``."""
        complete: Mask = np.all(self.rows >= 0, axis=1)
        return complete


def mine(
    queries: FloatArray,
    docs: FloatArray,
    positives: Sequence[Set[int]],
    *,
    k: int,
    margin: Margin | None = None,
    window: tuple[int, int] | None = None,
    texts: tuple[Sequence[str], Sequence[str]] | None = None,
    seed: int = 0,
) -> Mined:
    """Find hard negatives by dot product (cosine, for normalised vectors); positives are never among them.

    Without a window these are the k hardest documents that keep the margin: where some do not, the next ranks follow
    (positive-aware mining). With one they are k of the survivors at these ranks, at random (KaLM-Embedding-V2 takes
    7 of ranks 50 to 100), drawn again from the same ones where they are fewer than k. ``(0, m)`` draws from everything.

    Parameters
    ----------
    queries, docs
        float32 ``[n, d]`` and ``[m, d]``.
    positives
        For each query, the rows of its positives among the documents.
    k
        Negatives for each query.
    margin
        `Relative`, `Absolute`, `Ceiling` or any function from positives' scores to limits; None: no limit.
    window
        First rank and the one after the last, counted from 0 among the documents that are not positives.
    texts
        Of queries and documents: those equal to the query or one of its positives, up to `normal_text`, are
        left out like the positives.
    seed
        For the draws from a window.

    Raises
    ------
    InputError
        If a query has no positive, or window, k or rows are out of range.

    Examples
    --------
    >>> docs = np.float32([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1]])
    >>> mine(docs[:1], docs, [{1}], k=2).rows.tolist()
    [[0, 2]]
    >>> from isometry.negatives import Relative
    >>> mine(docs[:1], docs, [{1}], k=2, margin=Relative(0.05)).rows.tolist()    # 1.0 is too close to 0.8
    [[2, 3]]
    """
    queries, docs = check_vectors(queries, what="the queries"), check_vectors(docs, dim=queries.shape[1])
    _check(len(queries), len(docs), positives, k, window)
    excluded = list(_excluded(positives, texts, len(docs)))
    rng = np.random.default_rng(seed)
    rows = np.full((len(queries), k), -1, np.int64)
    scores = np.full((len(queries), k), np.nan, np.float32)
    rejected = np.zeros(len(queries), np.int64)
    lowest = [(docs[sorted(own)] @ query).min() for query, own in zip(queries, positives, strict=True)]
    positive = np.array(lowest, np.float32)
    limits = np.full(len(queries), np.inf, np.float32) if margin is None else margin(positive)
    for span in spans(len(queries), len(docs)):
        for i, row in enumerate(queries[span] @ docs.T, span.start):
            row[excluded[i]] = -np.inf
            rejected[i] = int((row >= limits[i]).sum())
            found = _pick(row, float(limits[i]), k, window, rng)
            rows[i, : len(found)], scores[i, : len(found)] = found, row[found]
    return Mined(rows, scores, positive, rejected)


def spans(n: int, m: int) -> Iterator[slice]:
    """Yield slices of n queries such that their scores with m documents fit in memory."""
    size = min(256, max(1, BLOCK // max(1, m)))
    yield from (slice(start, start + size) for start in range(0, n, size))


def best(scores: FloatArray, count: int) -> IntArray:
    """Return the positions of the ``count`` largest of ``[m]``, best first, ties by position; -inf never counts.

    >>> best(np.float32([0, 2, 1, 2]), 3).tolist()
    [1, 3, 2]
    """
    if 0 < count < len(scores):
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        above = np.flatnonzero(scores > least)
        rows = np.union1d(above, np.flatnonzero(scores == least)[: count - len(above)])
    else:
        rows = np.arange(min(count, len(scores)))
    rows = rows[scores[rows] > -np.inf]
    ranked: IntArray = rows[np.argsort(-scores[rows], kind="stable")].astype(np.int64)
    return ranked


def _pick(row: FloatArray, limit: float, k: int, window: tuple[int, int] | None, rng: np.random.Generator) -> IntArray:
    if window is None:
        return best(np.where(row < limit, row, -np.inf), k)
    ranked = best(row, window[1])[window[0] :]
    left = ranked[row[ranked] < limit]
    if len(left) > k:
        left = left[np.sort(rng.permutation(len(left))[:k])]
    elif 0 < len(left) < k:
        again = rng.integers(len(left), size=k - len(left))
        left = left[np.sort(np.concatenate([np.arange(len(left)), again]))]
    return left


def _excluded(
    positives: Sequence[Set[int]], texts: tuple[Sequence[str], Sequence[str]] | None, m: int
) -> Iterator[list[int]]:
    """Yield the documents each query must not get: its positives and those with its text or one of theirs."""
    if texts is None:
        yield from map(sorted, positives)
        return
    if (len(texts[0]), len(texts[1])) != (len(positives), m):
        raise InputError(
            f"texts must hold {len(positives)} queries and {m} documents, got {len(texts[0])} and {len(texts[1])}."
        )
    places = text_places(texts[1])
    for query, own in zip(texts[0], positives, strict=True):
        keys = {normal_text(query), *(normal_text(texts[1][row]) for row in own)}
        yield sorted({place for key in keys for place in places.get(key, ())} | own)


def _check(n: int, m: int, positives: Sequence[Set[int]], k: int, window: tuple[int, int] | None) -> None:
    if not n or not m:
        raise EmptyInput(f"Mining needs queries and documents, got {n} and {m}.")
    if len(positives) != n:
        raise InputError(f"{n} queries need {n} sets of positives, got {len(positives)}.")
    for i, own in enumerate(positives):
        if not own or min(own) < 0 or max(own) >= m:
            raise InputError(f"Query {i} needs positives among rows 0..{m - 1} of the documents, got {sorted(own)}.")
    if k < 1:
        raise InputError(f"k must be >= 1, got {k}.")
    if window is not None and not 0 <= window[0] < window[1]:
        raise InputError(f"A window of ranks must rise from at least 0, got {window}.")
    if window is not None and window[1] > m:
        raise InputError(f"The window of ranks {window} ends beyond the corpus of {m} documents; choose a smaller one.")
