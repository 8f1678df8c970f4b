"""The protocols parts speak; nothing to inherit, a class that has the methods is one.

Encoder      things -> vectors (a ``SentenceTransformer`` object already satisfies the encode methods)
Index        vectors -> neighbours
Stage        queries and hits -> hits; composed with ``>>``
Task         a system -> per-unit scores
Transform    scikit-learn's ``fit / transform`` (see `isometry.spaces` and `isometry.codes`); no protocol of ours
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from isometry.types import Embeddings, FloatArray, Hits, Queries, Scores, Space

Mask = NDArray[np.bool_]


@runtime_checkable
class Encoder(Protocol):
    """Things to vectors ``[n, d]`` float32, by role."""

    @property
    def space(self) -> Space:
        """The space its vectors live in."""
        ...

    def encode_query(self, inputs: Sequence[str], *, prompt: str | None = None, batch_size: int = 32) -> FloatArray:
        """Encode questions, float32 ``[n, d]``; ``prompt`` overrides the model's own."""
        ...

    def encode_document(self, inputs: Sequence[str], *, prompt: str | None = None, batch_size: int = 32) -> FloatArray:
        """Encode documents, float32 ``[n, d]``; ``prompt`` overrides the model's own."""
        ...


@runtime_checkable
class Index(Protocol):
    """Vectors to neighbours."""

    exact: ClassVar[bool]

    @property
    def ids(self) -> NDArray[np.object_]:
        """Ids held, ``[n]``, in the order that ``where`` masks refer to."""
        ...

    def add(self, emb: Embeddings) -> None:
        """Add vectors; an id that is there is replaced; another space raises `SpaceMismatch`."""
        ...

    def remove(self, ids: Sequence[str]) -> int:
        """Remove ids and return how many were there."""
        ...

    def search(self, queries: Embeddings, k: int, where: Mask | None = None) -> Hits:
        """Return the k nearest of each query among the rows that ``where`` (bool ``[n]``) allows."""
        ...

    def save(self, path: str | Path) -> None:
        """Write to a folder, whole or not at all."""
        ...

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote; a broken checksum raises `CorruptStore`."""
        ...

    def __len__(self) -> int: ...


@runtime_checkable
class Stage(Protocol):
    """One step of a ranking pipeline."""

    def __call__(self, queries: Queries, hits: Hits | None = None) -> Hits:
        """Return new hits for the queries, from the hits of the stage before or from nothing."""
        ...


@runtime_checkable
class Task(Protocol):
    """Something a system can be judged by."""

    @property
    def name(self) -> str:
        """What was measured, in the scores."""
        ...

    def score(self, system: Any, seed: int = 0) -> Scores:
        """Return one row per unit and metric."""
        ...
