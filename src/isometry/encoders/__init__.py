"""Things to vectors: text encoders, embedding with a check of what was cut, a cache, streaming to disk.

load, TextEncoder    a sentence-transformers or Hugging Face model by name or folder
LateInteraction      one vector per token (ColBERT), with a head and reducers by role
embed                texts to `Embeddings`, counting what did not fit
EmbeddingCache       vectors by space, role and text, in one SQLite file
stream, Manifest     more texts than fit in memory, to Parquet shards, resumable
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isometry.lazy import exports

_HOMES = {
    "EmbeddingCache": "cache",
    "LateInteraction": "late_interaction",
    "Manifest": "streaming",
    "TextEncoder": "text",
    "embed": "embedding",
    "load": "text",
    "stream": "streaming",
}

if TYPE_CHECKING:
    from isometry.encoders.cache import EmbeddingCache
    from isometry.encoders.embedding import embed
    from isometry.encoders.late_interaction import LateInteraction
    from isometry.encoders.streaming import Manifest, stream
    from isometry.encoders.text import TextEncoder, load

__all__ = ["EmbeddingCache", "LateInteraction", "Manifest", "TextEncoder", "embed", "load", "stream"]

__getattr__, __dir__ = exports(__name__, _HOMES)
