"""Torch modules between tokens and a vector, and compressed embedding tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isometry.lazy import exports

# Public names and their homes; each is imported when first asked for.
_HOMES: dict[str, str] = {
    "Agglomerative": "token_reduction",
    "Clusters": "token_reduction",
    "CompressedEmbedding": "embedding_tables",
    "TokenProjection": "token_projection",
    "compressed_table": "embedding_tables",
    "reduce_embeddings": "token_reduction",
    "reducers": "token_reduction",
}

if TYPE_CHECKING:
    from isometry.modules.embedding_tables import CompressedEmbedding, compressed_table
    from isometry.modules.token_projection import TokenProjection
    from isometry.modules.token_reduction import Agglomerative, Clusters, reduce_embeddings, reducers

__all__: list[str] = [
    "Agglomerative",
    "Clusters",
    "CompressedEmbedding",
    "TokenProjection",
    "compressed_table",
    "reduce_embeddings",
    "reducers",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
