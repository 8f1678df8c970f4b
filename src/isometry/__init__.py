"""Isometry: a workbench for embeddings.

>>> import isometry
>>> isometry.__version__
'0.1.0'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isometry.lazy import exports

__version__ = "0.1.0"

# Public names and their homes; each is imported when first asked for, so that `import isometry` stays cheap.
_HOMES = {
    "Collection": "store",
    "Document": "types",
    "Embeddings": "types",
    "Hits": "types",
    "IsometryError": "errors",
    "Queries": "types",
    "Scores": "types",
    "Space": "types",
    "embed": "encoders",
    "load": "encoders",
}

if TYPE_CHECKING:
    from isometry.encoders import embed, load
    from isometry.errors import IsometryError
    from isometry.store import Collection
    from isometry.types import Document, Embeddings, Hits, Queries, Scores, Space

__all__ = [
    "Collection",
    "Document",
    "Embeddings",
    "Hits",
    "IsometryError",
    "Queries",
    "Scores",
    "Space",
    "__version__",
    "embed",
    "load",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
