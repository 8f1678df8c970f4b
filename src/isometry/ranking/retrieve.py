"""Retrieve by vectors: encode the queries, ask an index or a collection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isometry.errors import InputError
from isometry.protocols import Encoder
from isometry.ranking.stage import Stage, check_count, require_none
from isometry.types import Embeddings, Hits, Queries


class Retrieve(Stage):
    """Dense retrieval: the k nearest neighbours of each query's embedding.

    Parameters
    ----------
    encoder
        Encodes the queries' texts, unless they bring their embeddings; None where they always do.
    index
        Anything with ``search(embeddings, k, where)``: an index, or a collection.
    k
        How many hits per query.
    where
        What the index takes as a filter: a mask, or a collection's expression.
    """

    name = "retrieve"

    def __init__(self, encoder: Encoder | None, index: Any, *, k: int = 10, where: Any = None) -> None:
        self.encoder, self.index, self.k, self.where = encoder, index, check_count(k, "k"), where

    def config(self) -> Mapping[str, Any]:
        """Encoder and index by their spaces, k, and the filter."""
        return {"encoder": self.encoder, "index": self.index, "k": self.k, "where": self.where}

    def rank(self, queries: Queries, hits: Hits | None) -> Hits:
        """Embed and search.

        Raises
        ------
        InputError
            If there are hits already, or neither embeddings nor an encoder.
        SpaceMismatch
            If the queries' embeddings are not of the index's space.
        """
        require_none(self, hits)
        if not len(queries):
            return Hits.build([], [])
        found: Hits = self.index.search(self._embedded(queries), self.k, self.where)
        return found

    def _embedded(self, queries: Queries) -> Embeddings:
        if queries.embeddings is not None:
            return queries.embeddings
        if self.encoder is None:
            raise InputError("The queries have no embeddings and Retrieve has no encoder; give it one of the two.")
        vectors = self.encoder.encode_query(list(queries.texts))
        return Embeddings(vectors, queries.ids, self.encoder.space, role="query")
