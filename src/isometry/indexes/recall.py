"""How much of what exact search finds another index finds."""

from __future__ import annotations

import numpy as np

from isometry.errors import InputError
from isometry.protocols import Index
from isometry.types import Embeddings, Scores

TIE = 1e-6  # single-precision rounding of a score around 1


def check_recall(index: Index, oracle: Index, queries: Embeddings, k: int) -> Scores:
    """Recall@k of an index against an exact one, per query.

    A row found counts if the oracle's score of it is at least the k-th exact score minus 1e-6, so that the choice
    between ties costs nothing (Aumueller et al., ANN-Benchmarks, arXiv:1807.05614, section 2.1).

    Parameters
    ----------
    index
        The index to judge.
    oracle
        An index with ``exact = True`` over the same ids.
    queries
        n queries.
    k
        Depth, at least 1.

    Returns
    -------
    Scores
        ``recall@k`` in [0, 1] per query id.

    Raises
    ------
    InputError
        If the oracle is not exact or holds other ids.
    """
    if not oracle.exact:
        raise InputError(f"The oracle must be an exact index, {type(oracle).__name__} is not.")
    if len(index) != len(oracle) or set(index.ids.tolist()) != set(oracle.ids.tolist()):
        raise InputError("The index and its oracle hold different ids; add the same embeddings to both.")
    best, found = oracle.search(queries, k), index.search(queries, k)
    recall = {}
    for i, query in enumerate(queries.ids.tolist()):
        exact = best.scores[best.span(i)]
        if not len(exact):
            continue
        # Judged by the oracle's scores, not by the index's own, which may be those of coarser codes.
        answers = np.isin(oracle.ids, found.ids[found.span(i)])
        judged = oracle.search(queries.take([i]), k, answers).scores if answers.any() else np.empty(0, np.float32)
        recall[query] = float((judged >= exact[-1] - TIE).sum() / len(exact))
    name = f"recall@{k}"
    return Scores.of("nearest neighbours", type(index).__name__, {name: recall}, n=len(index))
