"""Pseudo-relevance feedback in vector space: ask again with the query moved towards its first answers (Rocchio)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from isometry.errors import InputError
from isometry.protocols import Encoder
from isometry.ranking.lookup import Lookup, vectors_of
from isometry.ranking.stage import Stage, check_count
from isometry.types import Embeddings, FloatArray, Hits, Queries, check_vectors


def rocchio(query: FloatArray, relevant: FloatArray, *, beta: float = 0.5) -> FloatArray:
    """Rocchio's query ``norm(q + beta mean(relevant))``; ``[d]`` from ``[d]`` and ``[k, d]``.

    >>> [round(float(v), 3) for v in rocchio(np.array([1.0, 0.0]), np.array([[0.0, 1.0]]), beta=1.0)]
    [0.707, 0.707]
    """
    moved = query + beta * relevant.mean(0) if len(relevant) else query
    scaled: FloatArray = (moved / max(float(np.linalg.norm(moved)), 1e-12)).astype(np.float32)
    return scaled


class Feedback(Stage):
    """Pseudo-relevance feedback: search again with Rocchio's query of the first hits (Rocchio 1971).

    Parameters
    ----------
    encoder
        Encodes the queries, unless they bring their embeddings.
    index
        Anything with ``search(embeddings, k)``.
    vectors
        ``ids -> vectors`` as the index holds them.
    documents
        How many of the first hits count as relevant.
    beta
        Their weight beside the query; 0 searches as before.
    k
        How many hits to return.
    """

    name = "feedback"

    def __init__(
        self,
        encoder: Encoder | None,
        index: Any,
        *,
        vectors: Lookup,
        documents: int = 3,
        beta: float = 0.5,
        k: int = 100,
    ) -> None:
        if not beta >= 0:
            raise InputError(f"beta must be at least 0, got {beta}.")
        self.encoder, self.index, self.vectors, self.beta = encoder, index, vectors, beta
        self.documents, self.k = check_count(documents, "documents"), check_count(k, "k")

    def config(self) -> Mapping[str, Any]:
        """Encoder, index, and how far the query moves."""
        return {"encoder": self.encoder, "index": self.index, "documents": self.documents, "beta": self.beta,
                "k": self.k}  # fmt: skip

    def rank(self, queries: Queries, hits: Hits | None) -> Hits:
        """Move the queries and search; `InputError` without hits, or without embeddings and encoder."""
        if hits is None:
            raise InputError("Feedback needs the hits of a stage before it: Retrieve(...) >> Feedback(...).")
        asked = queries.embeddings
        if asked is None and self.encoder is None:
            raise InputError("The queries have no embeddings and Feedback has no encoder; give it one of the two.")
        if not len(queries):
            return Hits.build([], [])
        if asked is None and self.encoder is not None:
            found = self.encoder.encode_query(list(queries.texts))
            asked = Embeddings(found, queries.ids, self.encoder.space, role="query")
        assert asked is not None
        first = Hits.build(queries.ids, [hits.row(i)[: self.documents] for i in range(len(hits))])
        known = vectors_of(self.vectors, first)
        moved = [rocchio(asked.vectors[i], known[first.span(i)], beta=self.beta) for i in range(len(queries))]
        again = Embeddings(check_vectors(np.stack(moved)), queries.ids, asked.space, role="query")
        answers: Hits = self.index.search(again, self.k)
        return answers
