"""Isometry: a workbench for embeddings.

>>> import isometry
>>> isometry.__version__
'0.1.0'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public names and their homes; each is imported when first asked for, so that `import isometry` stays cheap.
_HOMES = {
    "Collection": "isometry.store",
    "Document": "isometry.types",
    "Embeddings": "isometry.types",
    "Hits": "isometry.types",
    "IsometryError": "isometry.errors",
    "Queries": "isometry.types",
    "Scores": "isometry.types",
    "Space": "isometry.types",
    "embed": "isometry.encoders",
    "load": "isometry.encoders",
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


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'isometry' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
