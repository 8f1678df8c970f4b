"""What vectors mean: model, width, similarity and the transforms applied since."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from isometry.errors import SpaceMismatch

Similarity = Literal["cosine", "dot", "euclidean", "hamming", "maxsim"]


@dataclass(frozen=True)
class Space:
    """What vectors mean: two vectors may be compared if and only if their spaces are equal.

    Parameters
    ----------
    model
        Name of the encoder, e.g. ``"minilm"``.
    dim
        Width of a vector.
    revision
        Content hash or version of the model's files.
    similarity
        How two vectors are compared.
    normalized
        Whether every vector has norm 1.
    prompts
        Text put before an input, by role or task name.
    chain
        Fingerprints of the transforms applied after the encoder, in order.
    """

    model: str
    dim: int
    revision: str = ""
    similarity: Similarity = "cosine"
    normalized: bool = True
    prompts: Mapping[str, str] = field(default_factory=dict)
    chain: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no white space."""
        record = {name: getattr(self, name) for name in self.__dataclass_fields__}
        record["prompts"], record["chain"] = dict(self.prompts), list(self.chain)
        return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Space:
        """Inverse of `to_json`."""
        record = json.loads(text)
        return cls(**{**record, "chain": tuple(record["chain"])})

    @cached_property
    def id(self) -> str:
        """Sixteen hexadecimal digits that name this space."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """A short name for people: model, width and transforms."""
        return " > ".join((f"{self.model} ({self.dim}-d)", *self.chain))

    def then(self, step: str, **changes: Any) -> Space:
        """Return the space after one more transform named ``step``."""
        return replace(self, chain=(*self.chain, step), **changes)

    def check(self, other: Space) -> None:
        """Raise `SpaceMismatch` unless ``other`` is this space."""
        if self.id != other.id:
            raise SpaceMismatch(
                f"Vectors of {other.name} [{other.id}] cannot be compared with vectors of {self.name} [{self.id}]; "
                "embed both with the same model, prompts and transforms."
            )

    def __hash__(self) -> int:
        return hash(self.id)
