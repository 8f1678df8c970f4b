"""Every data set as one of three kinds of training rows (QZhou-Embedding, arXiv:2508.21632).

========== ======================================= ==================================================
kind       schema of a record                      trained by
========== ======================================= ==================================================
retrieval  ``query``, ``positives``, ``negatives`` InfoNCE: two texts that belong together
scored     ``left``, ``right``, ``score``          CoSENT: the order of the scores
class      ``text``, ``positives``, ``negatives``, InfoNCE with a label mask: another text of the
           ``label``                               class, texts of other classes
========== ======================================= ==================================================
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from isometry.data.schemas import STS, Labelled, Pairs, Retrieval, Triplets
from isometry.errors import DataFormatError, DataWarning, EmptyInput, InputError
from isometry.types import Document

Kind = Literal["retrieval", "scored", "class"]
SCHEMAS = (
    "retrieval {query, positives, negatives}, scored {left, right, score}, class {text, positives, negatives, label}"
)
# Only their order reaches the loss.
NLI_SCORES = {"entailment": 1.0, "neutral": 0.5, "contradiction": 0.0}
POSITIVE_LABELS = frozenset({"1", "1.0", "true", "yes", "entailment", "paraphrase", "duplicate"})


def says_alike(label: str) -> bool:
    """Return whether a pair's label says that its texts belong together.

    >>> says_alike("Entailment"), says_alike("0")
    (True, False)
    """
    return label.strip().casefold() in POSITIVE_LABELS


@dataclass(frozen=True)
class Row:
    """One row to train on.

    Parameters
    ----------
    kind
        Which loss it is for.
    text
        The query, the left text, or the text of a class.
    positives
        What belongs with it; the right text of a scored pair.
    negatives
        What does not.
    score, label
        Of a scored pair, and of a text with a class.
    source
        Name of its data set: batches are made of one.
    """

    kind: Kind
    text: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    score: float | None = None
    label: str | None = None
    source: str = ""


def retrieval_rows(data: Retrieval | Pairs | Triplets) -> list[Row]:
    """Return a row for each query with its relevant documents, each pair, or each triplet."""
    if isinstance(data, Pairs):
        return [Row("retrieval", a, (b,), source=data.name) for a, b in zip(data.left, data.right, strict=True)]
    if isinstance(data, Triplets):
        columns = zip(data.anchor, data.positive, data.negative, strict=True)
        return [Row("retrieval", a, (p,), (n,), source=data.name) for a, p, n in columns]
    contents = {document.id: document.content for document in data.corpus}
    rows = []
    for query, grades in data.qrels.items():
        good = tuple(contents[d] for d, grade in grades.items() if grade > 0)
        bad = tuple(contents[d] for d, grade in grades.items() if grade <= 0)
        if good:
            rows.append(Row("retrieval", data.queries[query], good, bad, source=data.name))
    return rows


def title_rows(documents: Iterable[Document], *, source: str = "") -> list[Row]:
    """Return a retrieval row from title to body for each document that has both."""
    return [
        Row("retrieval", d.title, (d.text,), source=source) for d in documents if d.title.strip() and d.text.strip()
    ]


def scored_rows(data: STS | Pairs, *, scores: Mapping[str, float] | None = None) -> list[Row]:
    """Return a row for each scored pair; labels become scores.

    Parameters
    ----------
    data
        Graded pairs, whose scores are kept, or pairs with labels.
    scores
        By label, its score; default: `NLI_SCORES`, or the labels themselves where they are numbers.

    Raises
    ------
    InputError
        If labels are missing or mean nothing, or all scores tie: there would be no order to learn.
    """
    values: Sequence[float]
    if isinstance(data, STS):
        values = data.scores.tolist()
    elif data.labels is None:
        raise InputError(f"The pairs of {data.name!r} have no labels to make scores of; use retrieval_rows.")
    else:
        values = [_score(label, i, scores) for i, label in enumerate(data.labels)]
    if len(set(values)) < 2:
        raise InputError(
            f"All {len(values)} pairs of {data.name!r} have the score {values[0]}: no order to learn from."
        )
    columns = zip(data.left, data.right, values, strict=True)
    return [Row("scored", a, (b,), score=score, source=data.name) for a, b, score in columns]


def _score(label: str, row: int, scores: Mapping[str, float] | None) -> float:
    known = NLI_SCORES if scores is None else scores
    if label.lower() in known:
        return known[label.lower()]
    try:
        value = float(label)
    except ValueError:
        value = float("nan")
    if scores is not None or not np.isfinite(value):
        raise InputError(f"Row {row} has the label {label!r}, which is no number and none of {sorted(known)}.")
    return value


def class_rows(data: Labelled, *, negatives: int = 7, seed: int = 0) -> list[Row]:
    """Return a row for each text of a class of two or more: another text of its class, texts of other classes.

    The partner is never the text itself, nor a copy of it.

    Parameters
    ----------
    data
        Texts with a class each.
    negatives
        How many texts of other classes, with replacement where there are fewer.
    seed
        Of the draws.

    Raises
    ------
    InputError
        If there is one class only.

    Warns
    -----
    DataWarning
        If texts were skipped because their class holds nothing else.
    """
    labels = np.array(data.labels, dtype=object)
    members: dict[str, list[int]] = {}
    for row, label in enumerate(data.labels):
        members.setdefault(label, []).append(row)
    if len(members) < 2:
        raise InputError(f"All texts of {data.name!r} are of class {labels[0]!r}; there is nothing to tell apart.")
    rng = np.random.default_rng(seed)
    rows, skipped = [], 0
    for row, (text, label) in enumerate(zip(data.texts, data.labels, strict=True)):
        partners = [other for other in members[label] if data.texts[other] != text]
        if not partners:
            skipped += 1
            continue
        partner = data.texts[partners[rng.integers(len(partners))]]
        others = _others(labels, row, negatives, rng)
        rows.append(Row("class", text, (partner,), tuple(data.texts[o] for o in others), label=label, source=data.name))
    if skipped:
        warnings.warn(
            f"{skipped} of {len(labels)} texts of {data.name!r} were skipped: their class holds no other text.",
            DataWarning,
            stacklevel=2,
        )
    if not rows:
        raise InputError(f"No class of {data.name!r} holds two texts; there are no pairs of one class.")
    return rows


def _others(labels: np.ndarray, row: int, count: int, rng: np.random.Generator) -> list[int]:
    """Draw rows of other classes: distinct ones, while there are enough."""
    found: dict[int, None] = {}
    for _ in range(20):  # most draws are of another class; the exact way below is for the rest
        if len(found) >= count:
            break
        found |= {int(o): None for o in rng.integers(len(labels), size=2 * count) if labels[o] != labels[row]}
    if len(found) < count:
        pool = np.flatnonzero(labels != labels[row])
        return rng.choice(pool, size=count, replace=len(pool) < count).tolist() if count else []
    return list(found)[:count]


def read_rows(path: str | Path) -> list[Row]:
    """Read rows from JSON Lines, one record a line with its ``kind`` (and ``source``, if it has one).

    Raises
    ------
    DataFormatError
        If a line is no record of one of the three schemas; it says which line.
    """
    rows = []
    with Path(path).open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    rows.append(row_from(json.loads(line)))
                except (json.JSONDecodeError, InputError) as error:
                    raise DataFormatError(path, number, str(error)) from error
    if not rows:
        raise EmptyInput(f"{path} holds no row.")
    return rows


def row_from(record: Any) -> Row:
    """Return a row from a record of one of the three schemas.

    Raises
    ------
    InputError
        If the kind is missing or unknown, or a field is missing or has another type.

    Examples
    --------
    >>> row_from({"kind": "scored", "left": "a", "right": "b", "score": 3}).score
    3.0
    """
    kind: Any = record.get("kind") if isinstance(record, Mapping) else None
    if kind not in get_args(Kind):
        raise InputError(f"Rows have one of three schemas: {SCHEMAS}; this one has kind {kind!r}.")
    source = str(record.get("source", ""))
    if kind == "scored":
        left, right, score = (_field(record, name, types) for name, types in _SCORED.items())
        return Row("scored", left, (right,), score=float(score), source=source)
    text = _field(record, "query" if kind == "retrieval" else "text", str)
    positives, negatives = (_texts(record, name) for name in ("positives", "negatives"))
    if not positives:
        raise InputError(f"A row of kind {kind!r} needs a positive; the schemas are {SCHEMAS}.")
    label = str(_field(record, "label", (str, int))) if kind == "class" else None
    return Row(kind, text, positives, negatives, label=label, source=source)


_SCORED: dict[str, Any] = {"left": str, "right": str, "score": (int, float)}


def _field(record: Mapping[str, Any], name: str, types: Any) -> Any:
    value = record.get(name)
    if not isinstance(value, types) or isinstance(value, bool) or value != value:
        raise InputError(f"The field {name!r} is missing or of the wrong type; the schemas are {SCHEMAS}.")
    return value


def _texts(record: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = record.get(name, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise InputError(f"The field {name!r} must be a list of texts; the schemas are {SCHEMAS}.")
    return tuple(values)


def columns(rows: Sequence[Row]) -> tuple[list[list[str]], list[float] | list[int] | None]:
    """Return a batch as columns of texts and its labels: what a loss object takes.

    Each row gives its first positive and as many negatives as the row with the fewest has. Scored pairs have their
    scores as labels, texts of classes the numbers of these classes, in order of appearance.

    Raises
    ------
    InputError
        If the rows are of several kinds: one batch has one loss.
    """
    kinds = {row.kind for row in rows}
    if len(kinds) != 1:
        raise InputError(f"A batch needs rows of one kind, got {sorted(kinds) or 'none'}.")
    least = min(len(row.negatives) for row in rows)
    texts = [[row.text for row in rows], [row.positives[0] for row in rows]]
    texts += [[row.negatives[i] for row in rows] for i in range(least)]
    if rows[0].kind == "scored":
        return texts, [float(row.score or 0.0) for row in rows]
    numbers: dict[str | None, int] = {}
    labels = [numbers.setdefault(row.label, len(numbers)) for row in rows]
    return texts, labels if rows[0].kind == "class" else None
