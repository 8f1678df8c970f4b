"""Triplets to train on and to judge by: hard negatives of one domain, splits that share no document and no text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from isometry.data.schemas import Labelled, Triplets
from isometry.errors import DimensionMismatch, EmptyInput, InputError
from isometry.types import FloatArray, IntArray, check_vectors, normal_text, unit


def text_overlap(first: Iterable[str], second: Iterable[str]) -> int:
    """Return how many texts, up to `isometry.types.normal_text`, stand on both sides."""
    return len({normal_text(text) for text in first} & {normal_text(text) for text in second})


@dataclass(frozen=True, eq=False)
class DocumentSplit:
    """Rows to train on and rows to judge by, int64, rising; ``dropped`` rows are in neither.

    A dropped row came from a document of the training side, but holds a text that the test side also holds.
    """

    train: IntArray
    test: IntArray
    dropped: IntArray


def split_by_document(
    documents: Sequence[Hashable], texts: Sequence[Sequence[str]], *, share: float = 0.2, seed: int = 0
) -> DocumentSplit:
    """Split rows by the document they come from, so that no document and no text is on both sides.

    Parameters
    ----------
    documents
        Of each row, the document it was made from.
    texts
        Of each row, all its texts (anchor, positive, negative ...).
    share
        Share of the documents to judge by, strictly between 0 and 1.

    Raises
    ------
    InputError
        If the columns differ in length, ``share`` is out of range, or one side would be empty.

    Examples
    --------
    >>> split = split_by_document("aabb", [["x"], ["y"], ["z"], ["Y!"]], share=0.5)
    >>> sorted([len(split.train), len(split.test), len(split.dropped)])
    [1, 1, 2]
    """
    names = list(dict.fromkeys(documents))
    if len(documents) != len(texts) or not 0 < share < 1 or len(names) < 2:
        raise InputError(
            "A split by document needs texts for each row, at least two documents and 0 < share < 1; got "
            f"{len(documents)} rows, {len(texts)} lists of texts, {len(names)} documents and share={share}."
        )
    count = min(max(round(share * len(names)), 1), len(names) - 1)
    held = {names[i] for i in np.random.default_rng(seed).permutation(len(names))[:count]}
    is_test = np.fromiter((document in held for document in documents), bool, len(documents))
    keys = [{normal_text(text) for text in row} for row in texts]
    seen = set(chain.from_iterable(key for key, test in zip(keys, is_test, strict=True) if test))
    clashing = np.fromiter((not key.isdisjoint(seen) for key in keys), bool, len(keys)) & ~is_test
    train, test, dropped = (np.flatnonzero(mask) for mask in (~is_test & ~clashing, is_test, clashing))
    if not len(train):
        raise InputError("Every training row shares a text with a test row; the documents repeat each other.")
    return DocumentSplit(train, test, dropped)


def labelled_sides(
    parts: Sequence[Labelled],
    *,
    classes: int | None = None,
    each: int | None = None,
    share: float = 0.3,
    seed: int = 0,
) -> tuple[Labelled, Labelled]:
    """Return labelled texts to train on and to judge by that share no text.

    Parameters
    ----------
    parts
        One set, which is split, or a training and a test set; from the former, texts of the latter are left out.
    classes
        Keep only the first so many classes, by name.
    each
        Keep only the first so many texts of a class on either side.
    share
        Of the texts of a single set, how many to judge by.

    Examples
    --------
    >>> sides = labelled_sides([Labelled(["x", "y"], "ab"), Labelled(["Y!", "z"], "ba")])
    >>> [list(side.texts) for side in sides]
    [['x'], ['Y!', 'z']]
    """
    names = set(sorted(set(parts[0].labels))[:classes])
    rows = [[(t, label) for t, label in zip(p.texts, p.labels, strict=True) if label in names] for p in parts]
    if len(rows) == 1:
        texts = [text for text, _ in rows[0]]
        split = split_by_document([normal_text(t) for t in texts], [[t] for t in texts], share=share, seed=seed)
        rows = [[rows[0][i] for i in side] for side in (split.train, split.test)]
    held = {normal_text(text) for text, _ in rows[1]}
    rows[0] = [row for row in rows[0] if normal_text(row[0]) not in held]
    first, second = (_labelled(side, each) for side in rows)
    return first, second


def _labelled(rows: Iterable[tuple[str, str]], each: int | None) -> Labelled:
    counts: Counter[str] = Counter()
    kept = []
    for text, label in rows:
        counts[label] += 1
        if each is None or counts[label] <= each:
            kept.append((text, label))
    return Labelled([text for text, _ in kept], [label for _, label in kept])


def confusable_classes(
    vectors: FloatArray, labels: Sequence[Hashable], *, nearest: int = 3
) -> dict[Hashable, list[Hashable]]:
    """Return, by class, the ``nearest`` other classes whose mean vectors are closest by cosine, closest first.

    >>> vectors = np.eye(3, dtype=np.float32)[[0, 0, 1, 2]] + np.array([0.5, 0.2, 0.0], np.float32)
    >>> confusable_classes(vectors, "aabc", nearest=1)
    {'a': ['b'], 'b': ['a'], 'c': ['a']}
    """
    vectors = check_vectors(vectors)
    names = list(dict.fromkeys(labels))
    if len(labels) != len(vectors) or not 1 <= nearest < len(names):
        raise InputError(
            f"Confusable classes need a label for each of the {len(vectors)} vectors and 1 <= nearest < classes; "
            f"got {len(labels)} labels, {len(names)} classes and nearest={nearest}."
        )
    number = {name: i for i, name in enumerate(names)}
    rows = np.fromiter((number[label] for label in labels), np.int64, len(labels))
    means = np.zeros((len(names), vectors.shape[1]))
    np.add.at(means, rows, vectors)
    means = unit(means)
    cosine = means @ means.T
    np.fill_diagonal(cosine, -np.inf)
    order = np.argsort(-cosine, axis=1, kind="stable")[:, :nearest]
    return {name: [names[j] for j in order[i]] for i, name in enumerate(names)}


def class_triplets(
    vectors: FloatArray, labels: Sequence[Hashable], count: int, *, nearest: int = 3, seed: int = 0
) -> IntArray:
    """Draw hard triplets from labelled texts: anchor, another text of its class, a text of a class easily confused.

    Parameters
    ----------
    vectors
        float32 ``[n, d]`` of any encoder; they decide which classes are confused (`confusable_classes`).
    labels
        The class of each text.
    count
        How many triplets.
    nearest
        From how many of the closest other classes the negative is drawn.

    Returns
    -------
    int64 ``[count, 3]``: rows of anchor, positive, negative.

    Raises
    ------
    EmptyInput
        If no class has two texts.
    """
    rivals = confusable_classes(vectors, labels, nearest=nearest)
    members: dict[Hashable, list[int]] = {}
    for row, label in enumerate(labels):
        members.setdefault(label, []).append(row)
    anchors = [row for row, label in enumerate(labels) if len(members[label]) > 1]
    if not anchors or count < 1:
        raise EmptyInput(f"Triplets need count >= 1 and a class with two texts; got count={count}.")
    rng = np.random.default_rng(seed)
    rows = np.empty((count, 3), np.int64)
    for i, anchor in enumerate(rng.choice(anchors, count)):
        label = labels[anchor]
        others = [row for row in members[label] if row != anchor]
        rivalry = members[rivals[label][rng.integers(nearest)]]
        rows[i] = anchor, others[rng.integers(len(others))], rivalry[rng.integers(len(rivalry))]
    return rows


def pair_triplets(
    anchors: Sequence[str], positives: Sequence[str], pool: Sequence[str], candidates: Sequence[Sequence[int]]
) -> tuple[Triplets, IntArray]:
    """Give each pair the first candidate that is neither its anchor nor a known positive of that anchor.

    Parameters
    ----------
    anchors, positives
        The pairs; an anchor that comes twice has two positives.
    pool
        Texts that may be negatives.
    candidates
        Of each pair, rows of the pool, hardest first: of a keyword search, of nearest neighbours, or what is left of
        them after a margin rule.

    Returns
    -------
    Triplets, and int64: the row of each triplet's pair; pairs without a candidate that serves are left out.

    Raises
    ------
    DimensionMismatch
        If the columns differ in length.
    EmptyInput
        If no pair has a candidate that serves.
    """
    if not len(anchors) == len(positives) == len(candidates):
        raise DimensionMismatch(
            f"Pairs need equal columns, got {len(anchors)}, {len(positives)} and {len(candidates)} candidate lists."
        )
    related: dict[str, set[str]] = {}
    for anchor, positive in zip(anchors, positives, strict=True):
        key = normal_text(anchor)
        related.setdefault(key, {key}).add(normal_text(positive))
    keys = [normal_text(text) for text in pool]
    rows, negatives = [], []
    for i, (anchor, found) in enumerate(zip(anchors, candidates, strict=True)):
        taken = related[normal_text(anchor)]
        negative = next((j for j in found if keys[j] not in taken), None)
        if negative is not None:
            rows.append(i)
            negatives.append(pool[negative])
    if not rows:
        raise EmptyInput("No pair has a candidate that is neither its anchor nor one of its positives.")
    return Triplets([anchors[i] for i in rows], [positives[i] for i in rows], negatives), np.asarray(rows, np.int64)
