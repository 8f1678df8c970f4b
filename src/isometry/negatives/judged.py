"""Judged selection of negatives: a second, better scorer decides which candidates are negatives, and how hard."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence, Set

import numpy as np

from isometry.errors import DataWarning, DimensionMismatch, InputError
from isometry.negatives.margins import Absolute, Margin
from isometry.negatives.mining import Mined
from isometry.types import FloatArray, IntArray

Judge = Callable[[Sequence[tuple[str, str]]], "Sequence[float] | FloatArray"]
"""Anything that scores pairs (query, document), higher for a better answer: a cross-encoder's ``predict``, say."""


def judge_candidates(judge: Judge, queries: Sequence[str], docs: Sequence[str], candidates: IntArray) -> FloatArray:
    """Return a judge's scores of each query's candidates, float32 ``[n, c]``, NaN where the candidate is -1.

    Parameters
    ----------
    judge
        Called once, with all pairs.
    queries, docs
        Texts.
    candidates
        int64 ``[n, c]``: rows of the documents, such as `Mined` holds.

    Raises
    ------
    DimensionMismatch
        If there is not one row of candidates for each query.
    InputError
        If the judge returns another number of scores or some that are not finite.
    """
    if candidates.ndim != 2 or len(candidates) != len(queries):
        raise DimensionMismatch(f"candidates must be [{len(queries)}, c], got {list(candidates.shape)}.")
    scores = np.full(candidates.shape, np.nan, np.float32)
    places = np.argwhere(candidates >= 0)
    pairs = [(queries[i], docs[int(candidates[i, j])]) for i, j in places]
    found = np.asarray(judge(pairs) if pairs else [], np.float32)
    if found.shape != (len(pairs),) or not np.isfinite(found).all():
        raise InputError(
            f"The judge must return {len(pairs)} finite scores, one a pair; got shape {list(found.shape)}."
        )
    scores[tuple(places.T)] = found
    return scores


def select_judged(
    judge: Judge,
    queries: Sequence[str],
    docs: Sequence[str],
    positives: Sequence[Set[int]],
    candidates: IntArray,
    *,
    k: int,
    margin: Margin | None = None,
    stride: int = 1,
) -> Mined:
    """Choose k negatives of each query from candidates, by a judge's scores instead of the vectors'.

    Candidates at or above the limit are taken for unlabelled positives and dropped. Of the others every
    ``stride``-th in order of score is taken, then those between (UniME-V2, arXiv:2510.13515: 5, for variety); 1 takes
    the hardest. Where fewer than k are left they repeat from the first; where none is left, -1 says so.

    Parameters
    ----------
    judge, queries, docs, candidates
        As in `judge_candidates`.
    positives
        For each query, the rows of its positives, which the judge scores too; never chosen.
    k
        Negatives for each query.
    margin
        From positives' scores to limits; default ``Absolute(0)``: below the positive.
    stride
        At least 1.

    Warns
    -----
    DataWarning
        If fewer than a twentieth of the candidates survive: a judge that says yes to everything teaches nothing.
    """
    if k < 1 or stride < 1:
        raise InputError(f"k and stride must be >= 1, got {k} and {stride}.")
    if len(positives) != len(queries) or not all(positives):
        raise InputError(f"{len(queries)} queries need as many sets of positives, none of them empty.")
    scores = judge_candidates(judge, queries, docs, candidates)
    width = max(map(len, positives))
    padded = np.array([sorted(own) + [-1] * (width - len(own)) for own in positives], np.int64)
    positive = np.nanmin(judge_candidates(judge, queries, docs, padded), axis=1)
    limits = (margin or Absolute(0.0))(positive)
    chosen_by = zip(candidates, positives, strict=True)
    known = np.array([[row >= 0 and int(row) not in own for row in found] for found, own in chosen_by])
    alive = known & (np.nan_to_num(scores, nan=np.inf) < limits[:, None])
    if alive.sum() < 0.05 * known.sum():
        warnings.warn(
            f"The judge leaves {int(alive.sum())} of {int(known.sum())} candidates as negatives; it seems to accept "
            "almost everything. Look at its scores, or lower the margin.",
            DataWarning,
            stacklevel=2,
        )
    rows = np.full((len(queries), k), -1, np.int64)
    kept = np.full((len(queries), k), np.nan, np.float32)
    for i in range(len(queries)):
        left = np.flatnonzero(alive[i])
        ranked = left[np.argsort(-scores[i, left], kind="stable")]
        spread = np.concatenate([ranked[offset::stride] for offset in range(stride)])
        if len(spread):
            chosen = np.resize(spread, k)
            rows[i], kept[i] = candidates[i, chosen], scores[i, chosen]
    return Mined(rows, kept, positive, (known & ~alive).sum(1))
