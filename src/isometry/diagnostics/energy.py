"""The energy distance: sees differences of spread and of modes that a depth test cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from isometry.diagnostics.sphere import Distance, check_distance, distances, unit_rows
from isometry.errors import DimensionMismatch, InputError


@dataclass(frozen=True)
class EnergyTest:
    """``statistic`` 2 E|X - Y| - E|X - X'| - E|Y - Y'| (0: same law) and its permutation p, on n and m rows."""

    statistic: float
    p: float
    n: int
    m: int


def energy_test(
    a: Any, b: Any, *, distance: Distance = "chord", resamples: int = 499, sample: int = 1500, seed: int = 0
) -> EnergyTest:
    """Permutation test of the energy distance between two corpora of directions (Szekely and Rizzo, 2004).

    Symmetric in the corpora and consistent against every difference of law under the chord and the arc distance; the
    cosine distance sees means only.

    Parameters
    ----------
    a, b
        ``[n, d]`` and ``[m, d]``, at least two rows each.
    resamples
        Permutations; p is not below 1 / (resamples + 1).
    sample
        Corpora beyond that many rows are sampled down to it, since all pairs are held.

    Raises
    ------
    InputError
        If a corpus has fewer than two rows or a zero vector, or widths differ.
    """
    check_distance(distance)
    if resamples < 1 or sample < 2:
        raise InputError(f"resamples must be at least 1 and sample at least 2, got {resamples} and {sample}.")
    rng = np.random.default_rng(seed)
    corpora = []
    for corpus in (a, b):
        unit = unit_rows(corpus)
        corpora.append(unit[rng.choice(len(unit), sample, replace=False)] if len(unit) > sample else unit)
    x, y = corpora
    if x.shape[1] != y.shape[1]:
        raise DimensionMismatch(f"both corpora must be equally wide, got {x.shape[1]} and {y.shape[1]}.")
    n, m = len(x), len(y)
    if min(n, m) < 2:
        raise InputError(f"the energy test needs at least two texts in each corpus, got {n} and {m}.")
    pool = np.concatenate([x, y])
    matrix = distances(pool, pool, distance)
    np.fill_diagonal(matrix, 0.0)
    labels = np.repeat([1.0, 0.0], [n, m])
    # Every column is one split; the first is the observed one.
    masks = np.column_stack([labels, rng.permuted(np.tile(labels, (resamples, 1)), axis=1).T])
    to_x = matrix @ masks
    within_x = (masks * to_x).sum(axis=0)
    across = to_x.sum(axis=0) - within_x
    within_y = matrix.sum() - within_x - 2.0 * across
    values = 2.0 * across / (n * m) - within_x / n**2 - within_y / m**2
    hits = int((values[1:] >= values[0] - 1e-12).sum())
    return EnergyTest(float(values[0]), (1 + hits) / (resamples + 1), n, m)
