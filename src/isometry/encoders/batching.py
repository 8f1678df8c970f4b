"""Batches of texts of like length under a budget of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isometry.types import IntArray


def by_length(lengths: NDArray[Any], budget: int, *, padded: bool = False) -> Iterator[IntArray]:
    """Yield batches of positions, longest texts first, each of at most ``budget`` tokens and at least one text.

    Longest first, so that memory peaks at once and not after an hour.

    Parameters
    ----------
    lengths
        Tokens of each text, int ``[n]``.
    budget
        Tokens of one batch.
    padded
        Count each text as long as the longest of its batch, since that is what it will cost.

    >>> [batch.tolist() for batch in by_length(np.array([3, 9, 1, 2]), budget=6)]
    [[1], [0, 3, 2]]
    >>> [batch.tolist() for batch in by_length(np.array([3, 9, 1, 2]), budget=6, padded=True)]
    [[1], [0, 3], [2]]
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    start = total = 0
    for stop, row in enumerate(order):
        cost = int(lengths[order[start]]) if padded else int(lengths[row])
        if stop > start and total + cost > budget:
            yield order[start:stop]
            start, total = stop, 0
            cost = int(lengths[row])
        total += cost
    if start < len(order):
        yield order[start:]
