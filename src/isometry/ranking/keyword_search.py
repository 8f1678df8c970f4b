"""Retrieve by words from a collection that keeps its own full-text index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isometry.ranking.stage import Stage, check_count, require_none
from isometry.types import Hits, Queries


class KeywordSearch(Stage):
    """Lexical retrieval by a collection's own BM25 index.

    Parameters
    ----------
    collection
        Anything with ``bm25(queries, k, where) -> Hits``.
    k
        How many hits per query.
    where
        The collection's filter expression.
    """

    name = "bm25"

    def __init__(self, collection: Any, k: int = 10, where: Any = None) -> None:
        self.collection, self.k, self.where = collection, check_count(k, "k"), where

    def config(self) -> Mapping[str, Any]:
        """Collection by its space and size, k, and the filter."""
        return {"collection": self.collection, "k": self.k, "where": self.where}

    def rank(self, queries: Queries, hits: Hits | None) -> Hits:
        """Ask the collection; `InputError` if there are hits already."""
        require_none(self, hits)
        if not len(queries):
            return Hits.build([], [])
        found: Hits = self.collection.bm25(queries, self.k, self.where)
        return found
