"""The shapes data sets come in: small frozen dataclasses that check themselves.

Retrieval     documents, queries and judgments
Pairs         two texts, perhaps a label
Triplets      anchor, positive, negative
Labelled      texts with a class
STS           two texts and how similar people found them
Graph         triples of a knowledge graph
Interactions  who chose what
ImageText     pictures and what they show
Sequences     biological or other symbol sequences
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from isometry.errors import EmptyInput, InputError
from isometry.types import Document, FloatArray, IntArray, Json


def _same_length(what: str, **columns: Sequence[object] | NDArray[np.generic] | None) -> None:
    """Raise unless all columns that are given have one length, and it is not 0."""
    sizes = {name: len(column) for name, column in columns.items() if column is not None}
    if len(set(sizes.values())) > 1:
        raise InputError(f"{what} need columns of one length, got {', '.join(f'{k}: {v}' for k, v in sizes.items())}.")
    if not any(sizes.values()):
        raise EmptyInput(f"{what} need at least one row.")


@dataclass(frozen=True)
class Retrieval:
    """Documents, queries, and judgments ``{query id: {document id: grade}}`` (higher is better, 0 not relevant).

    Queries without a judgment are left out by the loader, as BEIR does.
    """

    corpus: Sequence[Document]
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]
    name: str = ""

    def __post_init__(self) -> None:
        ids = {document.id for document in self.corpus}
        if len(ids) < len(self.corpus):
            raise InputError(f"The corpus {self.name} has {len(self.corpus)} documents but only {len(ids)} ids.")
        for query, grades in self.qrels.items():
            if query not in self.queries:
                raise InputError(f"The judgments of {self.name} name an unknown query {query!r}.")
            if unknown := next((d for d in grades if d not in ids), None):
                raise InputError(f"The judgments of {self.name} name an unknown document {unknown!r}.")


@dataclass(frozen=True)
class Pairs:
    """Two texts a row; ``labels`` where the set has them, as text (``"1"``, ``"entailment"``)."""

    left: Sequence[str]
    right: Sequence[str]
    labels: Sequence[str] | None = None
    name: str = ""

    def __post_init__(self) -> None:
        _same_length("Pairs", left=self.left, right=self.right, labels=self.labels)


@dataclass(frozen=True)
class Triplets:
    """Three texts a row: the positive belongs with the anchor, the negative does not."""

    anchor: Sequence[str]
    positive: Sequence[str]
    negative: Sequence[str]
    name: str = ""

    def __post_init__(self) -> None:
        _same_length("Triplets", anchor=self.anchor, positive=self.positive, negative=self.negative)


@dataclass(frozen=True)
class Labelled:
    """Texts with a class each, named as in the file."""

    texts: Sequence[str]
    labels: Sequence[str]
    name: str = ""

    def __post_init__(self) -> None:
        _same_length("Labelled texts", texts=self.texts, labels=self.labels)


@dataclass(frozen=True, eq=False)
class STS:
    """Two texts (or words) a row and their similarity, float64 ``[n]``, in the set's own scale."""

    left: Sequence[str]
    right: Sequence[str]
    scores: NDArray[np.float64]
    name: str = ""

    def __post_init__(self) -> None:
        _same_length("Scored pairs", left=self.left, right=self.right, scores=self.scores)
        if not np.isfinite(self.scores).all():
            raise InputError(f"The scores of {self.name} hold NaN or infinity.")


@dataclass(frozen=True, eq=False)
class Graph:
    """A knowledge graph.

    Parameters
    ----------
    triples
        int64 ``[n, 3]``: head, relation, tail as positions in ``entities`` and ``relations``. All parts of a set
        share these two lists, so that a model trained on one part can be judged on another.
    entities, relations
        Their ids.
    texts
        Name and description of each entity, where the set has them.
    """

    triples: IntArray
    entities: Sequence[str]
    relations: Sequence[str]
    texts: Sequence[str] | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if self.triples.ndim != 2 or self.triples.shape[1] != 3:
            raise InputError(f"Triples must be a matrix [n, 3], got shape {self.triples.shape}.")
        _same_length("Triples", triples=self.triples)
        sizes = np.asarray([len(self.entities), len(self.relations), len(self.entities)])
        if (self.triples < 0).any() or (self.triples >= sizes).any():
            raise InputError(f"The triples of {self.name} point outside its entities or relations.")
        if self.texts is not None:
            _same_length("Entities", entities=self.entities, texts=self.texts)


@dataclass(frozen=True, eq=False)
class Interactions:
    """Who chose what, one row a choice.

    Parameters
    ----------
    users, items
        Ids.
    ratings, times
        float32 ``[n]`` and int64 ``[n]`` (seconds since 1970) where the set has them.
    texts
        Name of an item, by its id, where the set has them.
    """

    users: Sequence[str]
    items: Sequence[str]
    ratings: FloatArray | None = None
    times: IntArray | None = None
    texts: Mapping[str, str] = field(default_factory=dict)
    name: str = ""

    def __post_init__(self) -> None:
        _same_length("Interactions", users=self.users, items=self.items, ratings=self.ratings, times=self.times)

    def by_user(self) -> dict[str, list[str]]:
        """Return ``{user: items in the order of the rows}``."""
        chosen: dict[str, list[str]] = {}
        for user, item in zip(self.users, self.items, strict=True):
            chosen.setdefault(user, []).append(item)
        return chosen


@dataclass(frozen=True)
class ImageRef:
    """Where a picture is: a file, or a box ``(left, top, right, bottom)`` in pixels of a sheet of pictures."""

    path: Path
    box: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class ImageText:
    """Pictures by reference, a text for each, and the class of each where the set has one."""

    images: Sequence[ImageRef]
    texts: Sequence[str]
    ids: Sequence[str]
    labels: Sequence[str] | None = None
    name: str = ""

    def __post_init__(self) -> None:
        _same_length("Pictures", images=self.images, texts=self.texts, ids=self.ids, labels=self.labels)


@dataclass(frozen=True)
class Sequences:
    """Symbol sequences, such as DNA, with ids and JSON-able facts about each."""

    ids: Sequence[str]
    sequences: Sequence[str]
    facts: Sequence[Mapping[str, Json]]
    name: str = ""

    def __post_init__(self) -> None:
        _same_length("Sequences", ids=self.ids, sequences=self.sequences, facts=self.facts)


Schema = Retrieval | Pairs | Triplets | Labelled | STS | Graph | Interactions | ImageText | Sequences
