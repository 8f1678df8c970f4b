"""Resampling of per-unit values: sign-flip permutation test and bootstrap interval of a mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from isometry.errors import EmptyInput, InputError

FloatVector = NDArray[np.float64]

EXACT_UP_TO = 12  # 2**12 sign patterns cost less than the Monte Carlo they replace
_BLOCK = 1 << 20  # elements drawn at once: bounds memory to about 16 MB whatever n is


def sign_flip_p(differences: Sequence[float] | FloatVector, *, n_permutations: int = 10_000, seed: int = 0) -> float:
    """Two-sided paired permutation (sign-flip) test of "the differences are symmetric about 0".

    Zero differences carry no sign and are dropped. Up to 12 non-zero differences every sign pattern is enumerated;
    above that patterns are drawn, and the observed one is counted among them, ``(hits + 1) / (draws + 1)``, so that p
    is valid and never 0 (Phipson and Smyth 2010, "Permutation p-values should never be zero").

    Parameters
    ----------
    differences
        One difference per unit, ``[n]``.
    n_permutations
        How many patterns are drawn.
    seed
        Seed of the draws.

    Returns
    -------
    float
        p in (0, 1]; with n non-zero differences never below ``2 / 2**n``.

    Examples
    --------
    >>> sign_flip_p([1.0, 1.0, 1.0])
    0.25
    """
    values = _finite(differences)
    if n_permutations < 1:
        raise InputError(f"n_permutations must be at least 1, got {n_permutations}.")
    values = values[values != 0]
    if not len(values):
        return 1.0
    total, weight = values.sum(), np.abs(values).sum()
    # A pattern as extreme as the observed one may come out some bits lower by another order of summation.
    bound = abs(total) - 1e-12 * weight

    def extreme(positive: NDArray[np.uint8]) -> int:
        return int(np.count_nonzero(np.abs(2 * (positive @ values) - total) >= bound))

    if len(values) <= EXACT_UP_TO:
        patterns = np.arange(2 ** len(values))[:, None] >> np.arange(len(values)) & 1
        return extreme(patterns.astype(np.uint8)) / len(patterns)
    rng = np.random.default_rng(seed)
    hits = 0
    for size in _blocks(n_permutations, len(values)):
        drawn = np.frombuffer(rng.bytes(size * -(-len(values) // 8)), np.uint8).reshape(size, -1)
        hits += extreme(np.unpackbits(drawn, axis=1, count=len(values)))
    return (hits + 1) / (n_permutations + 1)


def bootstrap_mean_ci(
    values: Sequence[float] | FloatVector,
    *,
    level: float = 0.95,
    n_bootstrap: int = 10_000,
    seed: int = 0,
    expand: bool = True,
) -> tuple[float, float]:
    """Bias-corrected and accelerated (BCa) bootstrap interval of a mean over units.

    Efron (1987), "Better bootstrap confidence intervals". Bootstrap intervals are too narrow for few units, since they
    use the sample's variance and normal quantiles; ``expand`` widens the quantiles to those of Student's t, as
    recommended by Hesterberg (2015), "What teachers should know about the bootstrap". It matters below about 30 units.

    Parameters
    ----------
    values
        One value per unit, ``[n]``.
    level
        Confidence level.
    n_bootstrap
        How many resamples are drawn.
    seed
        Seed of the draws.
    expand
        Widen the interval for small n; without it the interval is the textbook BCa.

    Returns
    -------
    tuple of float
        Lower and upper end. One unit says nothing about spread: ``(-inf, inf)``. All values equal: that value twice.

    Examples
    --------
    >>> bootstrap_mean_ci([2.0, 2.0, 2.0])
    (2.0, 2.0)
    """
    sample = _finite(values)
    if not 0 < level < 1 or n_bootstrap < 1:
        raise InputError(f"level must lie between 0 and 1 and n_bootstrap be at least 1, got {level}, {n_bootstrap}.")
    n = len(sample)
    if n == 1:
        return -np.inf, np.inf
    if (sample == sample[0]).all():
        return float(sample[0]), float(sample[0])
    centred = sample - sample.mean()
    means = _bootstrap_means(centred, n_bootstrap, seed)
    low, high = np.quantile(means, _bca_levels(centred, means, level, expand)) + sample.mean()
    return float(low), float(high)


def _bootstrap_means(sample: FloatVector, n_bootstrap: int, seed: int) -> FloatVector:
    rng = np.random.default_rng(seed)
    n = len(sample)
    blocks = [sample[rng.integers(0, n, (size, n))].mean(axis=1) for size in _blocks(n_bootstrap, n)]
    return np.concatenate(blocks)


def _bca_levels(centred: FloatVector, means: FloatVector, level: float, expand: bool) -> FloatVector:
    """Quantiles to read off the bootstrap means of a sample whose mean is 0."""
    from scipy.stats import norm, t

    n = len(centred)
    tail = (1 - level) / 2
    z = np.sqrt(n / (n - 1)) * t.ppf(tail, n - 1) if expand else norm.ppf(tail)
    tie = 1e-12 * np.abs(centred).max()  # a resample may meet the mean exactly, but for rounding
    below = (np.count_nonzero(means < -tie) + np.count_nonzero(means <= tie)) / (2 * len(means))
    margin = 0.5 / len(means)  # keeps the bias finite where every resample falls on one side
    bias = norm.ppf(np.clip(below, margin, 1 - margin))
    # Leaving unit i out moves the mean by -centred[i] / (n - 1), so the jackknife needs no loop.
    scaled = centred / np.abs(centred).max()
    acceleration = (scaled**3).sum() / (6 * (scaled**2).sum() ** 1.5)
    shifted = bias + np.array([z, -z])
    # Past 1 / acceleration the correction folds back; there the end of the bootstrap distribution is meant.
    room = np.maximum(1 - acceleration * shifted, 1e-12)
    return np.asarray(norm.cdf(bias + shifted / room), dtype=np.float64)


def _blocks(draws: int, n: int) -> Iterator[int]:
    step = max(1, _BLOCK // n)
    for start in range(0, draws, step):
        yield min(step, draws - start)


def _finite(values: Sequence[float] | FloatVector) -> FloatVector:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise InputError(f"Values must be a list of numbers, one per unit, got an array of shape {array.shape}.")
    if not len(array):
        raise EmptyInput("There are no values to draw from; give at least one unit.")
    if not np.isfinite(array).all():
        raise InputError(f"Value {int(np.flatnonzero(~np.isfinite(array))[0])} is NaN or infinite; leave it out.")
    return array
