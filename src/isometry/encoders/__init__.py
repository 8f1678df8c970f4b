"""Things to vectors: text encoders, embedding with a check of what was cut, a cache, streaming to disk.

load, TextEncoder    a sentence-transformers or Hugging Face model by name or folder
embed                texts to `Embeddings`, counting what did not fit
EmbeddingCache       vectors by space, role and text, in one SQLite file
stream, Manifest     more texts than fit in memory, to Parquet shards, resumable
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOMES = {
    "EmbeddingCache": "isometry.encoders.cache",
    "Manifest": "isometry.encoders.streaming",
    "TextEncoder": "isometry.encoders.text",
    "embed": "isometry.encoders.embedding",
    "load": "isometry.encoders.text",
    "stream": "isometry.encoders.streaming",
}

if TYPE_CHECKING:
    from isometry.encoders.cache import EmbeddingCache
    from isometry.encoders.embedding import embed
    from isometry.encoders.streaming import Manifest, stream
    from isometry.encoders.text import TextEncoder, load

__all__ = ["EmbeddingCache", "Manifest", "TextEncoder", "embed", "load", "stream"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'isometry.encoders' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
