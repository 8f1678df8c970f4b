"""Whether similarity depends on how long the texts are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from isometry.diagnostics.sphere import Array, unit_rows
from isometry.errors import InputError


@dataclass(frozen=True)
class LengthEffect:
    """Spearman correlations with length; 0 is no effect.

    ``rho`` relates a row's length to its mean cosine with all other rows, ``pair_rho`` the shorter length of a pair to
    the pair's cosine, over disjoint random pairs. Intervals are 95 % percentile bootstrap. NaN where all lengths are
    the same.
    """

    rho: float
    ci95: tuple[float, float]
    pair_rho: float
    pair_ci95: tuple[float, float]
    n: int

    @property
    def present(self) -> bool:
        """Whether one of the intervals leaves out 0."""
        return any(low > 0 or high < 0 for low, high in (self.ci95, self.pair_ci95))


def word_counts(texts: Sequence[str]) -> Array:
    """Length of every text in white-space separated words, float64 ``[n]``."""
    return np.asarray([len(text.split()) for text in texts], np.float64)


def length_effect(vectors: Any, lengths: Any, *, resamples: int = 300, seed: int = 0) -> LengthEffect:
    """Spearman correlation of similarity with text length (length collapse), with bootstrap intervals.

    Parameters
    ----------
    vectors
        ``[n, d]``.
    lengths
        ``[n]``: words, tokens or characters.
    resamples
        Bootstrap samples.
    seed
        Draws the pairs and the samples.

    Raises
    ------
    InputError
        If lengths and vectors differ in number, or fewer than eight rows are there.
    """
    unit, sizes = unit_rows(vectors), np.asarray(lengths, np.float64)
    if sizes.shape != (len(unit),) or not np.isfinite(sizes).all():
        raise InputError(f"lengths must be {len(unit)} finite numbers, one a vector, got shape {sizes.shape}.")
    if len(unit) < 8:
        raise InputError(f"a correlation with length needs at least 8 texts, got {len(unit)}.")
    rng = np.random.default_rng(seed)
    central = (unit @ unit.sum(axis=0) - 1.0) / (len(unit) - 1)
    rho, ci95 = _spearman(central, sizes, resamples, rng)
    # Disjoint pairs are independent, so that pairs may be resampled.
    left, right = rng.permutation(len(unit))[: len(unit) // 2 * 2].reshape(2, -1)
    cosines = np.einsum("ij,ij->i", unit[left], unit[right])
    pair_rho, pair_ci95 = _spearman(cosines, np.minimum(sizes[left], sizes[right]), resamples, rng)
    return LengthEffect(rho, ci95, pair_rho, pair_ci95, len(unit))


def _spearman(x: Array, y: Array, resamples: int, rng: np.random.Generator) -> tuple[float, tuple[float, float]]:
    drawn = rng.integers(len(x), size=(resamples, len(x)))
    values = np.asarray([_rank_correlation(x[rows], y[rows]) for rows in drawn])
    values = values[~np.isnan(values)]
    low, high = np.quantile(values, [0.025, 0.975]) if len(values) else (np.nan, np.nan)
    return _rank_correlation(x, y), (float(low), float(high))


def _rank_correlation(x: Array, y: Array) -> float:
    a, b = rankdata(x) - (len(x) + 1) / 2, rankdata(y) - (len(y) + 1) / 2
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else float("nan")
