"""What is asked and what is found: documents and queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from isometry.types.arrays import Json, id_array
from isometry.types.embeddings import Embeddings


@dataclass(frozen=True)
class Document:
    """A piece of text that can be found.

    Parameters
    ----------
    id
        Unique in its collection.
    text
        What is shown.
    title
        Embedded before the text, with a space between (BEIR's convention).
    source
        Where a person finds it, e.g. ``"notes/tax.md:12"`` or ``"law.pdf#page=3"``.
    payload
        JSON-able fields to filter by and to show.
    """

    id: str
    text: str
    title: str = ""
    source: str = ""
    payload: Mapping[str, Json] = field(default_factory=dict)

    @property
    def content(self) -> str:
        """What is embedded: title, a space, text, stripped."""
        return f"{self.title} {self.text}".strip()


@dataclass(frozen=True, eq=False)
class Queries:
    """Questions: ids and texts, and their embeddings once something has made them."""

    ids: NDArray[np.object_]
    texts: Sequence[str]
    embeddings: Embeddings | None = None

    @classmethod
    def of(cls, texts: Mapping[str, str] | Sequence[str]) -> Queries:
        """Build from ``{id: text}`` or from texts alone (ids are then "0", "1", ...)."""
        if isinstance(texts, Mapping):
            return cls(id_array(texts.keys()), list(texts.values()))
        return cls(id_array(str(i) for i in range(len(texts))), list(texts))

    def __len__(self) -> int:
        return len(self.ids)
