"""Do two corpora differ? The Wilcoxon rank-sum test on depths taken with respect to one of them."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.stats import norm, rankdata

from isometry.diagnostics.duplicates import near_duplicates
from isometry.diagnostics.sphere import DIAMETER, Array, Distance, check_distance, distances, unit_rows
from isometry.errors import DataWarning, DimensionMismatch, InputError, UnknownName

Calibrate = Literal["auto", "none", "permutation"]
Alternative = Literal["two-sided", "greater", "less"]
_MAX_PAIRWISE = 12_000  # rows whose distance matrix (1.2 GB) may be held for chord and arc


@dataclass(frozen=True)
class DepthTest:
    """Result of `depth_test`; F is the reference, X a text of F, Y a text of the other corpus G.

    Parameters
    ----------
    q
        Q = Pr[D(X) < D(Y)] + Pr[D(X) = D(Y)] / 2: 0.5 same, below 0.5 G is more outlying with respect to F.
    q_pooled
        Reference-compatible Q: the share of shallower texts among F and G together, as the reference implementation
        counts; not the probability that a text of G is deeper than one of F.
    w
        Rank-sum z with ties corrected; positive when F is deeper.
    p
        p-value of the ``alternative`` asked for.
    p_two_sided, p_greater, p_less
        p-values for "depths differ", "F is deeper than G", "F is shallower than G".
    alternative
        What ``p`` is for.
    effect
        Rank-biserial correlation 2 Q - 1 in [-1, 1].
    effect_ci95
        Bootstrap interval of the effect: texts of both corpora are drawn again and depths recomputed.
    direction
        ``"outlying"``, ``"central"`` or ``"same"``: what G is to F (the sign of the effect, not its significance).
    n, m
        Sizes of F and G.
    effective_n, effective_m
        Sizes with each group of near duplicates counted once; None where not asked for. Much smaller ones mean that
        the p-values are too small.
    calibration
        Where the p-values come from: ``"normal"`` or ``"permutation"``.
    mean_norm
        Norm of F's mean direction; below 3 / sqrt(n) the normal p-values would be too small.
    """

    q: float
    q_pooled: float
    w: float
    p: float
    p_two_sided: float
    p_greater: float
    p_less: float
    alternative: Alternative
    effect: float
    effect_ci95: tuple[float, float]
    direction: str
    n: int
    m: int
    effective_n: int | None
    effective_m: int | None
    calibration: Literal["normal", "permutation"]
    mean_norm: float

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; stable keys."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        values["effect_ci95"] = list(self.effect_ci95)
        return values


def depth_test(
    reference: Any,
    other: Any,
    *,
    distance: Distance = "cosine",
    calibrate: Calibrate = "auto",
    alternative: Alternative = "two-sided",
    resamples: int = 999,
    dedup_threshold: float | None = 0.99,
    seed: int = 0,
) -> DepthTest:
    """Test whether corpus G (``other``) is as deep in F (``reference``) as F itself: depth rank-sum test.

    Texts of F are measured leave-one-out, texts of G against all of F. The test is not symmetric: swapping the corpora
    asks another question. With the cosine distance it sees only the projection on F's mean direction; two corpora of
    equal mean and different spread need `isometry.diagnostics.energy_test`.

    Parameters
    ----------
    reference, other
        ``[n, d]`` and ``[m, d]``, at least two rows each.
    calibrate
        ``"none"`` takes p from the normal approximation, which rejects too often when F has no mean direction (centred
        or whitened vectors), for then all depths share one random mean: a warning says so. ``"permutation"`` permutes
        the corpus labels and recomputes all depths: exact level, p not below 1 / (resamples + 1). ``"auto"`` permutes
        where the norm of F's mean direction is below 3 / sqrt(n).
    alternative
        ``"greater"``: F is deeper than G.
    resamples
        Permutations, and bootstrap samples for the interval.
    dedup_threshold
        Cosine from which texts count as one for the effective sizes, O(n^2 d); None leaves them out.

    Raises
    ------
    InputError
        If a corpus has fewer than two rows or a zero vector (named by row), or widths differ.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> f, g = rng.normal(1, 1, (50, 8)), rng.normal(-1, 1, (50, 8))
    >>> result = depth_test(f, g)
    >>> result.q < 0.05, result.direction, result.p < 1e-10
    (True, 'outlying', True)
    """
    _check_choice("calibration", calibrate, ("auto", "none", "permutation"))
    _check_choice("alternative", alternative, ("two-sided", "greater", "less"))
    f, g = _corpora(reference, other, distance, resamples)
    n, m = len(f), len(g)
    rng = np.random.default_rng(seed)
    depths = _Depths(np.concatenate([f, g]), distance)
    mine = np.repeat([1.0, 0.0], [n, m])
    observed = depths(mine[:, None])[:, 0]
    q, q_pooled, w = _statistics(observed[:n], observed[n:])
    mean_norm = float(np.linalg.norm(f.mean(axis=0)))
    calibration = _calibration(calibrate, mean_norm, n)
    if calibration == "permutation":
        greater, less = _permutation_p(depths, q, n, m, resamples, rng)
    else:
        greater, less = float(norm.sf(w)), float(norm.cdf(w))
    p = {"two-sided": min(1.0, 2.0 * min(greater, less)), "greater": greater, "less": less}
    low, high = _bootstrap(depths, n, m, resamples, rng)
    return DepthTest(
        q=q,
        q_pooled=q_pooled,
        w=w,
        p=p[alternative],
        p_two_sided=p["two-sided"],
        p_greater=greater,
        p_less=less,
        alternative=alternative,
        effect=2.0 * q - 1.0,
        effect_ci95=(2.0 * low - 1.0, 2.0 * high - 1.0),
        direction="same" if q == 0.5 else "outlying" if q < 0.5 else "central",
        n=n,
        m=m,
        effective_n=None if dedup_threshold is None else near_duplicates(f, dedup_threshold).effective_n,
        effective_m=None if dedup_threshold is None else near_duplicates(g, dedup_threshold).effective_n,
        calibration=calibration,
        mean_norm=mean_norm,
    )


def _corpora(reference: Any, other: Any, distance: str, resamples: int) -> tuple[Array, Array]:
    check_distance(distance)
    if resamples < 1:
        raise InputError(f"resamples must be at least 1, got {resamples}.")
    f, g = unit_rows(reference, "reference"), unit_rows(other, "other")
    if f.shape[1] != g.shape[1]:
        raise DimensionMismatch(f"other must be {f.shape[1]} wide like the reference, got {g.shape[1]}.")
    if min(len(f), len(g)) < 2:
        raise InputError(f"the depth test needs at least two texts in each corpus, got {len(f)} and {len(g)}.")
    return f, g


class _Depths:
    """Depths of a fixed pool of texts with respect to any weighted part of it."""

    def __init__(self, pool: Array, distance: Distance) -> None:
        self.pool, self.sup = pool, DIAMETER[distance]
        self.matrix: Array | None = None
        if distance != "cosine":
            if len(pool) > _MAX_PAIRWISE:
                raise InputError(
                    f"the test under the {distance} distance holds all pairs of at most {_MAX_PAIRWISE} texts, got "
                    f"{len(pool)}; sample the corpora or use the cosine distance."
                )
            self.matrix = distances(pool, pool, distance)
            np.fill_diagonal(self.matrix, 0.0)

    def __call__(self, weights: Array) -> Array:
        """Depths ``[n + m, c]`` for reference weights ``[n + m, c]``; a text never counts towards its own depth.

        Weights are whole numbers: how often a text is in the reference. All copies of a text are left out of its own
        mean, which makes weight 1 the leave-one-out rule and weight 0 the rule for new texts.
        """
        if self.matrix is None:
            sums = weights.sum(axis=0) - self.pool @ (self.pool.T @ weights)
        else:
            sums = self.matrix @ weights
        return np.asarray(self.sup - sums / np.maximum(weights.sum(axis=0) - weights, 1.0), np.float64)


def _statistics(depth_f: Array, depth_g: Array) -> tuple[float, float, float]:
    """Q, the pooled-rank Q and the tie-corrected rank-sum z (positive: F deeper)."""
    n, m = len(depth_f), len(depth_g)
    pooled = np.concatenate([depth_f, depth_g])
    ranks = rankdata(pooled)
    wins_g = ranks[n:].sum() - m * (m + 1) / 2  # pairs in which Y is deeper; ties count half
    counts = np.unique(pooled, return_counts=True)[1].astype(np.float64)
    total = n + m
    variance = n * m / 12.0 * (total + 1 - ((counts**3 - counts).sum() / (total * (total - 1))))
    z = (n * m / 2 - wins_g) / np.sqrt(variance) if variance > 0 else 0.0
    below = rankdata(pooled, method="min")[n:] - 1  # texts of F and G that are shallower than Y
    return float(wins_g / (n * m)), float(below.mean() / total), float(z)


def _q(depth_f: Array, depth_g: Array) -> float:
    m = len(depth_g)
    ranks = rankdata(np.concatenate([depth_f, depth_g]))[len(depth_f) :]
    return float((ranks.sum() - m * (m + 1) / 2) / (len(depth_f) * m))


def _calibration(calibrate: Calibrate, mean_norm: float, n: int) -> Literal["normal", "permutation"]:
    weak = mean_norm < 3.0 / np.sqrt(n)
    if weak and calibrate == "none":
        message = (
            f"The reference has hardly any mean direction (norm {mean_norm:.3f}, below 3/sqrt(n)): the normal p-values "
            "of the depth test are too small; use calibrate='permutation'."
        )
        warnings.warn(message, DataWarning, stacklevel=3)
    return "permutation" if calibrate == "permutation" or (weak and calibrate == "auto") else "normal"


def _permutation_p(
    depths: _Depths, q: float, n: int, m: int, resamples: int, rng: np.random.Generator
) -> tuple[float, float]:
    """One-sided p-values (F deeper, F shallower) over permuted corpus labels."""
    null = np.empty(resamples)
    for start, stop in _chunks(resamples, n + m):
        mine = rng.permuted(np.tile(np.repeat([1.0, 0.0], [n, m]), (stop - start, 1)), axis=1)
        columns = depths(mine.T)
        for i, mask in enumerate(mine.astype(bool)):
            null[start + i] = _q(columns[mask, i], columns[~mask, i])
    tolerance = 1e-12  # the same Q by another order of summation
    return (
        float((1 + (null <= q + tolerance).sum()) / (resamples + 1)),
        float((1 + (null >= q - tolerance).sum()) / (resamples + 1)),
    )


def _bootstrap(depths: _Depths, n: int, m: int, resamples: int, rng: np.random.Generator) -> tuple[float, float]:
    values = np.empty(resamples)
    for start, stop in _chunks(resamples, n + m):
        drawn = rng.multinomial(n, np.full(n, 1.0 / n), size=stop - start)
        columns = depths(np.concatenate([drawn.T, np.zeros((m, stop - start))]).astype(np.float64))
        others = n + rng.integers(m, size=(stop - start, m))
        for i, counts in enumerate(drawn):
            values[start + i] = _q(np.repeat(columns[:n, i], counts), columns[others[i], i])
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _chunks(total: int, rows: int) -> list[tuple[int, int]]:
    step = max(1, 2**21 // rows)
    return [(start, min(start + step, total)) for start in range(0, total, step)]


def _check_choice(kind: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UnknownName(kind, value, known)


@dataclass(frozen=True)
class CorpusComparison:
    """One ordered pair of corpora: the test with ``reference`` as F, and its p after Holm's correction."""

    reference: str
    other: str
    test: DepthTest
    p_adjusted: float


def compare_corpora(corpora: Mapping[str, Any], **options: Any) -> list[CorpusComparison]:
    """Test every ordered pair of corpora (the test is not symmetric) and correct the p-values by Holm's method.

    Parameters
    ----------
    corpora
        Vectors ``[n_i, d]`` by name, at least two.
    options
        As for `depth_test`.
    """
    from isometry.stats import holm

    if len(corpora) < 2:
        raise InputError(f"comparing corpora needs at least two, got {len(corpora)}.")
    pairs = list(itertools.permutations(corpora, 2))
    tests = [depth_test(corpora[a], corpora[b], **options) for a, b in pairs]
    adjusted = holm([test.p for test in tests])
    return [CorpusComparison(a, b, t, float(p)) for (a, b), t, p in zip(pairs, tests, adjusted, strict=True)]
