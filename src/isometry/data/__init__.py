"""What goes in: files and folders read into documents, and data sets read into schemas.

read, documents, chunk    a file or folder to units, units to documents, a text to chunks
load_set, find, available, fetch    data sets by name
schemas    Retrieval, Pairs, Triplets, Labelled, STS, Graph, Interactions, ImageText, Sequences
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isometry.lazy import exports

_HOMES = {
    "Chunk": "chunking",
    "Limits": "readers.units",
    "Reading": "readers.units",
    "SetInfo": "sets",
    "Skipped": "readers.units",
    "Unit": "readers.units",
    "available": "sets",
    "chunk": "chunking",
    "describe": "describing",
    "documents": "chunking",
    "fetch": "fetching",
    "find": "sets",
    "load_set": "sets:load",
    "read": "readers.reading",
    "read_filtered_set": "vecs",
    "read_vecs": "vecs",
    "split_sentences": "sentences",
    "write_vecs": "vecs",
}

if TYPE_CHECKING:
    from isometry.data import schemas
    from isometry.data.chunking import Chunk, chunk, documents
    from isometry.data.describing import describe
    from isometry.data.fetching import fetch
    from isometry.data.readers.reading import read
    from isometry.data.readers.units import Limits, Reading, Skipped, Unit
    from isometry.data.sentences import split_sentences
    from isometry.data.sets import SetInfo, available, find
    from isometry.data.sets import load as load_set
    from isometry.data.vecs import read_filtered_set, read_vecs, write_vecs

__all__ = [
    "Chunk",
    "Limits",
    "Reading",
    "SetInfo",
    "Skipped",
    "Unit",
    "available",
    "chunk",
    "describe",
    "documents",
    "fetch",
    "find",
    "load_set",
    "read",
    "read_filtered_set",
    "read_vecs",
    "schemas",
    "split_sentences",
    "write_vecs",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
