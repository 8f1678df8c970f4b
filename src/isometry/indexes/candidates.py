"""Candidates for late interaction from single tokens, and how many of the best items a list of candidates holds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isometry.errors import InputError
from isometry.indexes.maxsim import ragged
from isometry.types import Embeddings, FloatArray, IntArray, Scores


def token_candidates(
    queries: Embeddings, documents: Embeddings, n: int, *, per_token: int | None = None
) -> list[IntArray]:
    """Single-vector heuristic (the first stage of PLAID, arXiv:2205.09707): documents of each query token's neighbours.

    Every query token ranks all document tokens; the lists are read rank by rank (within a rank by falling score), and
    a document counts where it first occurs.

    Parameters
    ----------
    queries, documents
        Multi-vector embeddings of one space.
    n
        Documents wanted per query.
    per_token
        Document tokens each query token contributes; None: as many as ``n`` distinct documents need.

    Returns
    -------
    list of int64 arrays
        Positions of at most n documents per query, best first.

    Raises
    ------
    InputError
        If ``n`` or ``per_token`` is smaller than 1, or the embeddings are not multi-vector.
    """
    if n < 1 or (per_token is not None and per_token < 1):
        raise InputError(f"n and per_token must be at least 1, got {n} and {per_token}.")
    documents.space.check(queries.space)
    ragged(queries, "queries")
    owner = np.repeat(np.arange(len(documents)), np.diff(ragged(documents, "documents")))
    if not len(owner):
        return [np.empty(0, np.int64) for _ in range(len(queries))]
    found = []
    for i in range(len(queries)):
        scores = documents.vectors @ queries.item(i).T
        depth = min(len(owner), n if per_token is None else per_token)
        while True:
            documents_found = _by_rank(scores, owner, depth)
            if per_token is not None or len(documents_found) >= min(n, len(documents)):
                break
            depth = min(len(owner), 2 * depth)
        found.append(documents_found[:n])
    return found


def _by_rank(scores: FloatArray, owner: IntArray, depth: int) -> IntArray:
    """Owners of the ``depth`` best tokens of each column, by rank, then score, each once."""
    top = np.argpartition(-scores, depth - 1, axis=0)[:depth]
    best = np.take_along_axis(scores, top, axis=0)
    order = np.lexsort((top, -best), axis=0)
    top, best = np.take_along_axis(top, order, axis=0), np.take_along_axis(best, order, axis=0)
    rank = np.broadcast_to(np.arange(depth)[:, None], top.shape)
    owners = owner[top.reshape(-1)[np.lexsort((-best.reshape(-1), rank.reshape(-1)))]]
    _, first = np.unique(owners, return_index=True)
    return np.asarray(owners[np.sort(first)], np.int64)


def ranked_candidates(queries: Embeddings, documents: Embeddings, n: int) -> list[IntArray]:
    """Positions of the n documents with the largest dot products, for single-vector embeddings, best first."""
    documents.space.check(queries.space)
    n = min(n, len(documents))
    scores = queries.vectors @ documents.vectors.T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :n]
    return list(order)


def candidate_recall(
    best: Sequence[IntArray], candidates: Sequence[IntArray], depths: Sequence[int], *, system: str = ""
) -> Scores:
    """Share of each query's best documents among its first N candidates: metric ``candidates@N`` per query.

    Parameters
    ----------
    best
        Per query, positions of the documents the second stage would answer with, e.g. the top 10 by exact MaxSim.
    candidates
        Per query, positions, best first.
    depths
        Values of N.
    """
    values = {
        f"candidates@{n}": {
            str(i): float(np.isin(top, found[:n]).mean())
            for i, (top, found) in enumerate(zip(best, candidates, strict=True))
        }
        for n in depths
    }
    return Scores.of("candidates for MaxSim", system, values)
