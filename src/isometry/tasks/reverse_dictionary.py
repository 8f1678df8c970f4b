"""Reverse dictionary: from a definition to the place of its entry among all entries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from isometry.errors import InputError
from isometry.types import IntArray, check_vectors, unit

_BLOCK = 256


def entry_ranks(vectors: Any, entries: Any, owners: Sequence[Sequence[int]], *, cosine: bool = False) -> IntArray:
    """Return the rank of the best right entry of each definition, int64 ``[n]``, 1 = first (Hill et al. 2016).

    Parameters
    ----------
    vectors
        Of definitions, ``[n, d]``.
    entries
        ``[E, d]``.
    owners
        By definition, its right entries; they do not count as competitors of each other. Competitors with an equal
        score come first: a constant vector finds nothing.
    cosine
        Score by cosine instead of dot product.

    Examples
    --------
    >>> entry_ranks([[1.0, 0.2]], [[0.0, 1.0], [1.0, 0.0], [2.0, 0.0]], [[1]]).tolist()
    [2]
    >>> entry_ranks([[1.0, 0.2]], [[0.0, 1.0], [1.0, 0.0], [2.0, 0.1]], [[0, 1]], cosine=True).tolist()
    [2]
    """
    x, t = check_vectors(vectors), check_vectors(entries, what="entries")
    if len(owners) != len(x) or not all(len(own) and 0 <= min(own) <= max(own) < len(t) for own in owners):
        raise InputError(f"owners must name at least one of the {len(t)} entries for each of the {len(x)} definitions.")
    if cosine:
        t = unit(t)
    ranks = np.empty(len(x), np.int64)
    for start in range(0, len(x), _BLOCK):
        scores = x[start : start + _BLOCK] @ t.T
        for row, own in enumerate(owners[start : start + _BLOCK]):
            right = list(own)
            best = scores[row, right].max()
            scores[row, right] = -np.inf
            ranks[start + row] = 1 + int((scores[row] >= best).sum())
    return ranks
