"""Wilcoxon's signed-rank test, exact, with the smallest p-value its number of pairs can reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from isometry.errors import InputError
from isometry.stats.multiplicity import holm

MOST_EXACT = 500  # beyond, the exact table costs more than it tells


@dataclass(frozen=True)
class SignedRank:
    """What the test found.

    Parameters
    ----------
    n
        Pairs that differ; equal pairs are left out, as Wilcoxon did.
    statistic
        The smaller of the sums of ranks of positive and of negative differences.
    p
        Two-sided.
    least_p
        The smallest p any outcome of ``n`` untied pairs could have had, ``2 ** (1 - n)``: with 5 pairs 0.0625.
    effect
        Matched-pairs rank-biserial correlation in -1..1: the share of rank sum in favour less that against.
    """

    n: int
    statistic: float
    p: float
    least_p: float
    effect: float


def signed_rank(differences: Sequence[float] | NDArray[np.float64]) -> SignedRank:
    """Test whether paired differences are symmetric about 0: Wilcoxon's signed-rank test (1945), two-sided.

    The p-value is exact given the ranks, tied ranks included, for up to 500 pairs; beyond it is that of the normal
    approximation with correction for ties.

    Parameters
    ----------
    differences
        ``[n]``; zeros are dropped.

    Raises
    ------
    InputError
        If a difference is not finite, or the list is empty.

    Examples
    --------
    >>> signed_rank([1.0, 2.0, 3.0, 4.0, 5.0])
    SignedRank(n=5, statistic=0.0, p=0.0625, least_p=0.0625, effect=1.0)
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise InputError("A signed-rank test needs a list of finite differences.")
    values = values[values != 0]
    n = len(values)
    if n == 0:
        return SignedRank(0, 0.0, 1.0, 1.0, 0.0)
    ranks = rankdata(np.abs(values))
    positive = float(ranks[values > 0].sum())
    total = float(ranks.sum())
    smaller = min(positive, total - positive)
    p = _exact(ranks, smaller) if n <= MOST_EXACT else _normal(values)
    return SignedRank(n, smaller, p, min(1.0, 2.0 ** (1 - n)), (2 * positive - total) / total)


@dataclass(frozen=True)
class PairTest:
    """Two systems over the same data sets: difference of means, the test, and its p-value after Holm's correction."""

    first: str
    second: str
    delta: float
    test: SignedRank
    p_holm: float


def pairwise_signed_rank(scores: Mapping[str, Mapping[str, float]]) -> list[PairTest]:
    """Test every pair of systems over their data sets, with Holm's correction over all pairs.

    Parameters
    ----------
    scores
        By system, the score of each data set; average over seeds first, or seed noise counts as agreement.

    Raises
    ------
    InputError
        If the systems were not scored on the same data sets, or there are fewer than two.
    """
    names = list(scores)
    sets = {frozenset(by_set) for by_set in scores.values()}
    if len(names) < 2 or len(sets) != 1:
        raise InputError("A comparison needs at least two systems, scored on the same data sets.")
    order = sorted(next(iter(sets)))
    table = {name: np.array([scores[name][s] for s in order]) for name in names}
    pairs = list(combinations(names, 2))
    tests = [signed_rank(table[a] - table[b]) for a, b in pairs]
    adjusted = holm(test.p for test in tests)
    return [
        PairTest(a, b, float((table[a] - table[b]).mean()), test, float(p))
        for (a, b), test, p in zip(pairs, tests, adjusted, strict=True)
    ]


def _exact(ranks: NDArray[np.float64], smaller: float) -> float:
    """Return the share of the 2**n choices of signs whose smaller rank sum is at most that seen."""
    doubled = np.rint(2 * ranks).astype(np.int64)  # tied ranks are halves
    chance = np.zeros(doubled.sum() + 1)
    chance[0] = 1.0
    for rank in doubled:
        moved = np.zeros_like(chance)
        moved[rank:] = chance[: len(chance) - rank]
        chance = (chance + moved) / 2
    return min(1.0, float(2 * chance[: round(2 * smaller) + 1].sum()))


def _normal(values: NDArray[np.float64]) -> float:
    from scipy.stats import wilcoxon

    return float(wilcoxon(values, method="approx", correction=False).pvalue)
