"""Paired comparison of systems on the same units: difference, interval, p-value, verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from isometry.errors import InputError, UnknownName
from isometry.stats.multiplicity import holm
from isometry.stats.resampling import bootstrap_mean_ci, sign_flip_p
from isometry.types import Scores

Sign = Literal[">", "<"]
Verdict = Literal["better", "worse", "no evidence"]


@dataclass(frozen=True)
class Comparison:
    """A method against a baseline on one metric.

    Parameters
    ----------
    task, system, baseline, metric
        What was compared; ``baseline`` is the other system's name, or the constant as text.
    n
        Paired units.
    mean_method, mean_baseline
        Means over these units.
    delta
        Method minus baseline.
    ci95
        Bootstrap interval of ``delta``; at another ``alpha`` its level is ``1 - alpha``.
    p
        Two-sided p of the sign-flip test against a difference of ``margin``.
    p_adj
        ``p`` after Holm's correction, or None for a single comparison.
    wins, losses, ties
        Units on which the method is better, worse, exactly equal, in the sense of ``sign``.
    verdict
        ``"better"`` or ``"worse"`` only where interval and p-value agree; else ``"no evidence"``.
    sign, margin, alpha
        The question that was asked: is the method above (``">"``) or below (``"<"``) by more than ``margin``?
    """

    task: str
    system: str
    baseline: str
    metric: str
    n: int
    mean_method: float
    mean_baseline: float
    delta: float
    ci95: tuple[float, float]
    p: float
    p_adj: float | None
    wins: int
    losses: int
    ties: int
    verdict: Verdict
    sign: Sign = ">"
    margin: float = 0.0
    alpha: float = 0.05


def compare(
    method: Scores,
    baseline: Scores | float,
    metric: str | None = None,
    *,
    sign: Sign = ">",
    margin: float = 0.0,
    n_permutations: int = 10_000,
    n_bootstrap: int = 10_000,
    seed: int = 0,
    alpha: float = 0.05,
) -> Comparison:
    """Compare two systems unit by unit: paired sign-flip permutation test and BCa bootstrap interval.

    Parameters
    ----------
    method, baseline
        Scores on the same units, or a constant to beat as the baseline.
    metric
        Which metric; may be left out where ``method`` holds one only.
    sign
        ``">"`` if higher values are better, ``"<"`` if lower ones are.
    margin
        The smallest difference, in the direction of ``sign``, that counts as better; a negative margin asks whether
        the method loses less than that (non-inferiority). *Worse* means below the baseline, and beyond a negative
        margin.
    n_permutations, n_bootstrap, seed
        See `isometry.stats.sign_flip_p` and `isometry.stats.bootstrap_mean_ci`.
    alpha
        Level of the test; the interval has level ``1 - alpha``. With five units or fewer the two-sided test cannot
        reach 0.05, so the verdict is always ``"no evidence"``.

    Raises
    ------
    InputError
        If a unit is missing on one side, occurs twice, or has a value that is not finite.
    UnknownName
        If a side does not hold the metric.

    Examples
    --------
    >>> units = {str(i): i / 10 for i in range(8)}
    >>> better = {unit: value + 0.1 + float(unit) / 100 for unit, value in units.items()}
    >>> a, b = Scores.of("demo", "a", {"acc": better}), Scores.of("demo", "b", {"acc": units})
    >>> result = compare(a, b)
    >>> result.verdict, result.wins, result.p
    ('better', 8, 0.0078125)
    """
    _check_question(sign, margin, alpha)
    metric = _only_metric(method) if metric is None else metric
    ours, theirs = _paired(method, baseline, metric)
    differences = ours - theirs
    direction = 1.0 if sign == ">" else -1.0
    p = sign_flip_p(differences - direction * margin, n_permutations=n_permutations, seed=seed)
    low, high = bootstrap_mean_ci(differences, level=1 - alpha, n_bootstrap=n_bootstrap, seed=seed)
    gains = direction * differences
    return Comparison(
        task=method.task,
        system=method.system,
        baseline=baseline.system if isinstance(baseline, Scores) else str(baseline),
        metric=metric,
        n=len(differences),
        mean_method=float(ours.mean()),
        mean_baseline=float(theirs.mean()),
        delta=float(differences.mean()),
        ci95=(low, high),
        p=p,
        p_adj=None,
        wins=int((gains > 0).sum()),
        losses=int((gains < 0).sum()),
        ties=int((gains == 0).sum()),
        verdict=_verdict((low, high), p, sign, margin, alpha),
        sign=sign,
        margin=margin,
        alpha=alpha,
    )


def compare_all(
    scores: Iterable[Scores],
    baseline: Scores | float,
    metric: str | None = None,
    *,
    sign: Sign = ">",
    margin: float = 0.0,
    seed: int = 0,
    alpha: float = 0.05,
) -> list[Comparison]:
    """Compare several systems with one baseline; p-values are Holm-corrected and verdicts follow the corrected ones.

    Parameters
    ----------
    scores
        One `Scores` per system, all on the baseline's units.
    baseline, metric, sign, margin, seed, alpha
        As for `compare`.
    """
    results = [compare(s, baseline, metric, sign=sign, margin=margin, seed=seed, alpha=alpha) for s in scores]
    adjusted = holm(r.p for r in results).tolist()
    return [
        replace(r, p_adj=p, verdict=_verdict(r.ci95, p, sign, margin, alpha))
        for r, p in zip(results, adjusted, strict=True)
    ]


def _verdict(ci: tuple[float, float], p: float, sign: Sign, margin: float, alpha: float) -> Verdict:
    low, high = ci if sign == ">" else (-ci[1], -ci[0])
    if p <= alpha and low > margin:
        return "better"
    if p <= alpha and high < min(margin, 0.0):
        return "worse"
    return "no evidence"


def _check_question(sign: str, margin: float, alpha: float) -> None:
    if sign not in (">", "<"):
        raise InputError(f"sign must be '>' (higher is better) or '<' (lower is better), got {sign!r}.")
    if not np.isfinite(margin):
        raise InputError(f"margin must be a finite number, got {margin}.")
    if not 0 < alpha < 1:
        raise InputError(f"alpha must lie between 0 and 1, got {alpha}.")


def _only_metric(scores: Scores) -> str:
    names = scores.metric_names
    if len(names) != 1:
        raise InputError(f"Name the metric to compare: the scores of {scores.system!r} hold {names}.")
    return names[0]


def _paired(method: Scores, baseline: Scores | float, metric: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values of both sides, sorted by unit so that the order of rows does not matter."""
    ours = _by_unit(method, metric)
    if not isinstance(baseline, Scores):
        theirs = dict.fromkeys(ours, float(baseline))
    else:
        theirs = _by_unit(baseline, metric)
        for here, there, system in ((ours, theirs, baseline.system), (theirs, ours, method.system)):
            if missing := sorted(here.keys() - there.keys()):
                raise InputError(
                    f"{len(missing)} unit(s) of {metric!r} are missing in the scores of {system!r} ({_some(missing)}); "
                    "score both systems on the same units."
                )
    order = sorted(ours)
    return np.array([ours[u] for u in order]), np.array([theirs[u] for u in order])


def _by_unit(scores: Scores, metric: str) -> dict[str, float]:
    units = scores.units[scores.metrics == metric].tolist()
    if not units:
        raise UnknownName("metric", metric, scores.metric_names, f"It is wanted of {scores.system!r}.")
    values = scores.by_unit(metric)
    if len(values) < len(units):
        twice = [u for u, count in Counter(units).items() if count > 1]
        raise InputError(f"Units occur twice in {metric!r} of {scores.system!r} ({_some(twice)}); keep one row each.")
    if wrong := [u for u, v in values.items() if not np.isfinite(v)]:
        raise InputError(f"{metric!r} of {scores.system!r} is NaN or infinite for unit(s) {_some(wrong)}.")
    return values


def _some(units: Sequence[str]) -> str:
    return ", ".join(map(repr, units[:5])) + (", ..." if len(units) > 5 else "")
