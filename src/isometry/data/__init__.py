"""What goes in: files and folders read into documents, and data sets read into schemas.

read, documents, chunk    a file or folder to units, units to documents, a text to chunks
load_set, find, available, fetch    data sets by name
schemas    Retrieval, Pairs, Triplets, Labelled, STS, Graph, Interactions, ImageText, Sequences
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOMES = {
    "Chunk": ("isometry.data.chunking", "Chunk"),
    "Limits": ("isometry.data.readers.units", "Limits"),
    "Reading": ("isometry.data.readers.units", "Reading"),
    "SetInfo": ("isometry.data.sets", "SetInfo"),
    "Skipped": ("isometry.data.readers.units", "Skipped"),
    "Unit": ("isometry.data.readers.units", "Unit"),
    "available": ("isometry.data.sets", "available"),
    "chunk": ("isometry.data.chunking", "chunk"),
    "describe": ("isometry.data.describing", "describe"),
    "documents": ("isometry.data.chunking", "documents"),
    "fetch": ("isometry.data.fetching", "fetch"),
    "find": ("isometry.data.sets", "find"),
    "load_set": ("isometry.data.sets", "load"),
    "read": ("isometry.data.readers.reading", "read"),
    "split_sentences": ("isometry.data.sentences", "split_sentences"),
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
    "schemas",
    "split_sentences",
]


def __getattr__(name: str) -> Any:
    if name == "schemas":
        return import_module("isometry.data.schemas")
    if name in _HOMES:
        module, attribute = _HOMES[name]
        return getattr(import_module(module), attribute)
    raise AttributeError(f"module 'isometry.data' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
