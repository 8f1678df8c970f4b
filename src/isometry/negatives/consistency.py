"""Ranking consistency: keep a training row only if its positive is among the nearest documents of its query."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isometry.errors import InputError
from isometry.negatives.masks import text_places
from isometry.negatives.mining import spans
from isometry.protocols import Mask
from isometry.types import FloatArray, IntArray, check_vectors, normal_text


def positive_ranks(
    queries: FloatArray,
    docs: FloatArray,
    positives: Sequence[int] | IntArray,
    *,
    texts: tuple[Sequence[str], Sequence[str]] | None = None,
) -> IntArray:
    """Return how many documents score strictly above each query's positive by dot product, int64 ``[n]``.

    Parameters
    ----------
    queries, docs
        float32 ``[n, d]`` and ``[m, d]``.
    positives
        The row of each query's positive among the documents.
    texts
        Of queries and documents: a document that is the query itself, up to `normal_text`, is not counted.

    Raises
    ------
    InputError
        If a positive is not a row of the documents, or texts do not fit.

    Examples
    --------
    >>> docs = np.float32([[1, 0], [0.8, 0.6], [0, 1]])
    >>> positive_ranks(docs[:2], docs, [2, 1]).tolist()
    [2, 0]
    """
    queries, docs = check_vectors(queries, what="the queries"), check_vectors(docs, dim=queries.shape[1])
    rows = np.asarray(positives, np.int64)
    if rows.shape != (len(queries),) or (len(rows) and not 0 <= rows.min() <= rows.max() < len(docs)):
        raise InputError(f"positives must name one of the {len(docs)} documents for each of {len(queries)} queries.")
    if texts is not None and (len(texts[0]), len(texts[1])) != (len(queries), len(docs)):
        raise InputError(f"texts must hold {len(queries)} queries and {len(docs)} documents.")
    places = {} if texts is None else text_places(texts[1])
    ranks = np.empty(len(queries), np.int64)
    for span in spans(len(queries), len(docs)):
        scores = queries[span] @ docs.T
        own = scores[np.arange(len(scores)), rows[span]]
        for i, text in enumerate([] if texts is None else texts[0][span]):
            scores[i, places.get(normal_text(text), [])] = -np.inf
        ranks[span] = (scores > own[:, None]).sum(1)
    return ranks


def consistent(
    queries: FloatArray,
    docs: FloatArray,
    positives: Sequence[int] | IntArray,
    *,
    k: int = 50,
    texts: tuple[Sequence[str], Sequence[str]] | None = None,
) -> Mask:
    """Ranking-consistency filter (KaLM-Embedding-V2, arXiv:2506.20923): which rows to keep, bool ``[n]``.

    It removes wrong positives, and loosely related ones with them: look at what it drops.

    Parameters
    ----------
    queries, docs, positives, texts
        As in `positive_ranks`.
    k
        A positive must be among the k nearest documents.

    Raises
    ------
    InputError
        If k is not smaller than the corpus, of which nothing could then be dropped.
    """
    if not 1 <= k < len(docs):
        raise InputError(f"k must be in 1..{len(docs) - 1} for a corpus of {len(docs)} documents, got {k}.")
    kept: Mask = positive_ranks(queries, docs, positives, texts=texts) < k
    return kept


def removal_quality(keep: Mask, wrong: Mask) -> dict[str, float]:
    """Return precision and recall of a filter against known wrong rows; NaN where there is nothing to divide by.

    >>> removal_quality(np.array([True, False, False]), np.array([False, True, False]))
    {'precision': 0.5, 'recall': 1.0, 'removed': 0.6666666666666666}
    """
    if keep.shape != wrong.shape:
        raise InputError(f"keep and wrong must have one shape, got {keep.shape} and {wrong.shape}.")
    removed, hits = int((~keep).sum()), int((~keep & wrong).sum())
    planted = int(wrong.sum())
    return {
        "precision": hits / removed if removed else float("nan"),
        "recall": hits / planted if planted else float("nan"),
        "removed": removed / len(keep) if len(keep) else float("nan"),
    }
