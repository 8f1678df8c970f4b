"""From documents, or from rows there are, to synthetic rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from isometry.data.schemas import Pairs, Triplets
from isometry.data.synthesis.filters import Embed
from isometry.data.synthesis.generator import Generator, Mode, Request
from isometry.data.synthesis.rows import Provenance, SyntheticRow
from isometry.errors import EmptyInput, InputError, UnknownName
from isometry.types import Document, unit
from isometry.types.progress import Progress

Rewriting = Literal["paraphrase", "augment", "hard_negative"]
_NEEDS: dict[str, tuple[Mode, ...]] = {
    "paraphrase": ("paraphrase",),
    "augment": ("new_query", "document"),
    "hard_negative": ("hard_negative",),
}


@dataclass(frozen=True)
class Synthesis:
    """Rows that were written, and how often nothing usable came out, by what was asked for."""

    rows: list[SyntheticRow]
    failed: Counter[str] = field(default_factory=Counter)

    def pairs(self) -> Pairs:
        """Return queries and positives."""
        return Pairs([row.query for row in self.rows], [row.positive for row in self.rows], name="synthetic")

    def triplets(self) -> Triplets:
        """Return the rows that have a negative."""
        rows = [row for row in self.rows if row.negative]
        return Triplets([r.query for r in rows], [r.positive for r in rows], [r.negative for r in rows], "synthetic")


def synthesise(
    generator: Generator,
    documents: Sequence[Document],
    *,
    per_document: int = 1,
    personas: Sequence[Sequence[str]] | None = None,
    negatives: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Synthesis:
    """Write queries for documents in two steps: who asks and how, then what (Qwen3-Embedding, arXiv:2506.05176).

    Parameters
    ----------
    generator
        Who writes.
    documents
        What the queries are about: the positives.
    per_document
        Queries for each.
    personas
        For each document, those who may ask about it; see `nearest_personas`.
    negatives
        Whether to write a hard negative for each query as well.
    seed
        Same seed, same rows, as far as the generator repeats itself.
    progress
        Called with (documents done, documents).

    Raises
    ------
    EmptyInput
        If there is no document.
    InputError
        If the generator cannot write what is needed, or personas do not fit the documents.
    """
    modes: tuple[Mode, ...] = ("query", "hard_negative") if negatives else ("query",)
    _check(generator, modes, len(documents))
    if per_document < 1 or (personas is not None and len(personas) != len(documents)):
        raise InputError(
            f"Synthesis needs per_document >= 1 and personas for each of {len(documents)} documents; "
            f"got {per_document} and {len(personas or ())}."
        )
    result = Synthesis([])
    for i, document in enumerate(documents):
        for copy in range(per_document):
            number = seed * per_document + copy
            configuration = generator.configure(document.content, personas[i] if personas else (), number)
            if configuration is None:
                result.failed["configuration"] += 1
                continue
            asked = Request("query", document.content, configuration=configuration, seed=number)
            query = generator.generate(asked)
            origin = Provenance(generator.name, modes, document.id, number, configuration.to_dict())
            against = Request("hard_negative", document.content, query, configuration, number)
            negative = generator.generate(against) if negatives and query else ""
            _collect(result, modes, SyntheticRow(query, document.content, origin, negative))
        if progress is not None:
            progress(i + 1, len(documents))
    return result


def rewrite(
    generator: Generator,
    pairs: Pairs,
    how: Rewriting,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Synthesis:
    """Write new rows from rows there are (the three rewritings of QZhou-Embedding, arXiv:2508.21632).

    Parameters
    ----------
    how
        ``"paraphrase"``: the query in other words, the same positive. ``"augment"``: a new query like it, then a
        passage that answers that. ``"hard_negative"``: the row, and a passage that nearly answers.

    Raises
    ------
    InputError
        If the generator cannot write what is needed.
    UnknownName
        If ``how`` is no rewriting.
    """
    if how not in _NEEDS:
        raise UnknownName("rewriting", how, get_args(Rewriting))
    modes = _NEEDS[how]
    _check(generator, modes, len(pairs.left))
    result = Synthesis([])
    for i, (query, positive) in enumerate(zip(pairs.left, pairs.right, strict=True)):
        origin = Provenance(generator.name, modes, f"{pairs.name}:{i}", seed)
        if how == "hard_negative":
            negative = generator.generate(Request("hard_negative", positive, query, seed=seed))
            row = SyntheticRow(query, positive, origin, negative)
        else:
            written = generator.generate(Request(modes[0], query, seed=seed))
            if how == "augment":
                positive = generator.generate(Request("document", written, seed=seed)) if written else ""
            row = SyntheticRow(written, positive, origin)
        _collect(result, modes, row)
        if progress is not None:
            progress(i + 1, len(pairs.left))
    return result


def nearest_personas(
    documents: Sequence[Document], personas: Sequence[str], embed: Embed, *, k: int = 5
) -> list[list[str]]:
    """Return the k personas nearest to each document by cosine, best first (Qwen3-Embedding takes 5)."""
    if not documents or not personas:
        return [[] for _ in documents]
    sides = [embed([d.content for d in documents]), embed(list(personas))]
    passages, people = map(unit, sides)
    ranked = np.argsort(-(passages @ people.T), axis=1, kind="stable")[:, :k]
    return [[personas[j] for j in row] for row in ranked.tolist()]


def _check(generator: Generator, modes: Sequence[Mode], rows: int) -> None:
    if not rows:
        raise EmptyInput("There is nothing to write synthetic rows from.")
    if missing := sorted(set(modes) - set(generator.modes)):
        raise InputError(
            f"{generator.name} cannot write {missing}, only {list(generator.modes)}; use another generator."
        )


def _collect(result: Synthesis, modes: Sequence[Mode], row: SyntheticRow) -> None:
    """Keep a row that has all it should have; count it otherwise under the first thing that is missing."""
    wanted = {"query": row.query, "paraphrase": row.query, "new_query": row.query, "document": row.positive}
    wanted["hard_negative"] = row.negative
    empty = next((mode for mode in modes if not wanted[mode].strip()), None)
    if empty is None:
        result.rows.append(row)
    else:
        result.failed[empty] += 1
