"""How close to the positive a negative may be: rules that turn positives' scores into limits.

A rule is called with the lowest score of each query's positives, ``[n]``, and returns limits ``[n]``: a candidate
survives if its score is strictly below its query's limit.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from isometry.errors import DataWarning, InputError
from isometry.types import FloatArray

Margin = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True)
class Absolute:
    """Survivors score less than the positive minus ``margin``.

    >>> Absolute(0.25)(np.float32([0.75, 0.5])).tolist()
    [0.5, 0.25]
    """

    margin: float = 0.0

    def __call__(self, positive: FloatArray) -> FloatArray:
        """Return limits ``[n]``."""
        return positive - np.float32(self.margin)


@dataclass(frozen=True)
class Relative:
    """Survivors score less than ``1 - margin`` times the positive (NV-Embed v2, arXiv:2405.17428: 0.95).

    A share of a score says nothing where the score is near zero or below: there the limit is the positive's score
    minus ``margin``, and a `DataWarning` says for how many queries.

    Parameters
    ----------
    margin
        Between 0 and 1.
    least
        Scores up to this count as near zero.
    """

    margin: float = 0.05
    least: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.margin < 1:
            raise InputError(f"A relative margin must be in [0, 1), got {self.margin}; 0.05 is usual.")

    def __call__(self, positive: FloatArray) -> FloatArray:
        """Return limits ``[n]``."""
        weak = positive <= self.least
        if weak.any():
            warnings.warn(
                f"{int(weak.sum())} of {len(weak)} positives score at most {self.least}, where a relative margin says "
                f"nothing; their negatives must score {self.margin} less instead. Look whether they are positives.",
                DataWarning,
                stacklevel=2,
            )
        share = np.float32(1.0 - self.margin)
        limits: FloatArray = np.where(weak, positive - np.float32(self.margin), positive * share)
        return limits


@dataclass(frozen=True)
class Ceiling:
    """Survivors score less than one limit for all queries."""

    limit: float

    def __call__(self, positive: FloatArray) -> FloatArray:
        """Return limits ``[n]``."""
        return np.full_like(positive, self.limit)
