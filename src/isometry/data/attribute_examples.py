"""A synthetic task that only worked examples can solve: which attribute of an item is asked for is said nowhere else.

An item is one value for each of several attributes. A query shows an item and asks for the value of one attribute,
without saying which; worked examples of the same task show other items with the value that was asked of them. Without
examples nothing beats choosing an attribute at random; with one, a reader that learns from its context needs no luck.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isometry.errors import InputError
from isometry.types import FloatArray, IntArray


@dataclass(frozen=True)
class AttributeExamples:
    """The task: ``attributes`` with ``values`` each, all values distinct tokens.

    Tokens: 0 padding, 1 the marker after an item, then the values of the first attribute, of the second, and so on.

    Examples
    --------
    >>> task = AttributeExamples(attributes=3, values=4)
    >>> task.vocabulary, task.chance
    (14, 0.3333333333333333)
    """

    attributes: int = 4
    values: int = 6

    def __post_init__(self) -> None:
        if self.attributes < 2 or self.values < 2:
            raise InputError(
                f"The task needs at least 2 attributes of 2 values, got {self.attributes} and {self.values}."
            )

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return 2 + self.attributes * self.values

    @property
    def chance(self) -> float:
        """Accuracy of choosing an attribute at random."""
        return 1 / self.attributes

    @property
    def documents(self) -> IntArray:
        """All possible answers as token sequences, int64 ``[attributes * values, 2]``: a value and the marker."""
        values = np.arange(2, self.vocabulary)
        return np.stack([values, np.ones_like(values)], axis=1)

    def batch(self, counts: IntArray, rng: np.random.Generator) -> AttributeBatch:
        """Draw one query for each entry of ``counts`` ``[b]``, with that many examples before it."""
        if not len(counts) or counts.min() < 0:
            raise InputError("Give one number of examples >= 0 for each query of the batch.")
        shown, b = int(counts.max()) + 1, len(counts)
        digits = rng.integers(self.values, size=(b, shown, self.attributes))
        items = 2 + digits + self.values * np.arange(self.attributes)
        asked = rng.integers(self.attributes, size=b)
        answers = items[np.arange(b), :, asked]
        marker = np.ones((b, shown, 1), np.int64)
        tokens = np.concatenate([items, marker, answers[..., None]], axis=2)
        ids = tokens.reshape(b, -1)[:, :-1]  # the query's own answer is what is to be found
        there = np.arange(ids.shape[1])[None, :] >= (counts.max() - counts)[:, None] * tokens.shape[2]
        return AttributeBatch(np.where(there, ids, 0), there.astype(np.int64), items[:, -1] - 2, answers[:, -1] - 2)


@dataclass(frozen=True, eq=False)
class AttributeBatch:
    """Queries of one batch.

    Parameters
    ----------
    ids, mask
        int64 ``[b, t]``, padded on the left.
    choices
        int64 ``[b, attributes]``: the documents that a query's own item offers.
    target
        int64 ``[b]``: the document asked for.
    """

    ids: IntArray
    mask: IntArray
    choices: IntArray
    target: IntArray

    def accuracy(self, scores: FloatArray) -> float:
        """Share of the queries whose best document among their choices is the target; scores ``[b, documents]``."""
        offered = np.take_along_axis(scores, self.choices, axis=1)
        best = np.take_along_axis(self.choices, offered.argmax(axis=1)[:, None], axis=1)[:, 0]
        return float((best == self.target).mean())
