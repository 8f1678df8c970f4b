"""What a recipe found: verdicts computed from per-unit scores, never written by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from isometry.errors import RecipeError
from isometry.lab.card import Card, Claim
from isometry.lab.plots import Plot
from isometry.types import Scores

Verdict = Literal["holds", "not shown", "contradicted", "invariant ok", "invariant broken", "crashed"]
MIN_UNITS = 5  # a bootstrap of fewer units knows too few values to bound their mean
HONEST_FAILURES = ("invariant broken", "crashed")


@dataclass(frozen=True)
class Finding:
    """One claim after the run: its verdict and the figures behind it (None where they do not apply)."""

    text: str
    verdict: Verdict
    key: str = ""
    delta: float | None = None
    ci95: tuple[float, float] | None = None
    p: float | None = None
    n: int | None = None
    invariant: bool = False
    method: float | None = None
    baseline: float | None = None
    detail: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; stable keys."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        values["ci95"] = None if self.ci95 is None or not all(map(math.isfinite, self.ci95)) else list(self.ci95)
        return values


@dataclass
class Outcome:
    """Collects what a recipe measures; `findings` turns it into verdicts."""

    comparisons: dict[str, tuple[Scores, Scores | float, str]] = field(default_factory=dict)
    invariants: dict[str, tuple[bool, str]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    plots: dict[str, Plot] = field(default_factory=dict)

    def compare(self, key: str, method: Scores, baseline: Scores | float, *, metric: str = "") -> None:
        """Report the per-unit scores of a claim: the method's and the baseline's (or a constant to beat)."""
        names = method.metric_names
        if not metric and len(names) != 1:
            raise RecipeError(f"Name the metric of claim {key!r}: the scores hold {names}.")
        self.comparisons[key] = (method, baseline, metric or names[0])

    def invariant(self, key: str, ok: bool, detail: str = "") -> None:
        """Report an invariant, with the figure that shows it."""
        self.invariants[key] = (bool(ok), detail)

    def fact(self, name: str, value: Any) -> None:
        """Report a figure that no claim asks about."""
        self.facts[name] = value

    def plot(self, name: str, plot: Plot) -> None:
        """Report a picture; it is drawn when the caller asks for files."""
        self.plots[name] = plot

    def findings(self, card: Card, *, seed: int = 0) -> list[Finding]:
        """One finding per claim of the card that the run reported, in the card's order.

        Raises
        ------
        RecipeError
            If the run reported a claim the card does not make.
        """
        reported = self.comparisons.keys() | self.invariants.keys()
        if unknown := reported - {claim.key for claim in card.claims}:
            raise RecipeError(f"The recipe {card.slug!r} reported claims its card does not make: {sorted(unknown)}.")
        return [self._finding(claim, seed) for claim in card.claims if claim.key in reported]

    def _finding(self, claim: Claim, seed: int) -> Finding:
        if claim.key in self.invariants:
            ok, detail = self.invariants[claim.key]
            verdict: Verdict = "invariant ok" if ok else "invariant broken"
            return Finding(claim.text, verdict, key=claim.key, invariant=True, detail=detail)
        from isometry.stats import compare

        method, baseline, metric = self.comparisons[claim.key]
        result = compare(method, baseline, metric, sign=claim.sign, margin=claim.margin, seed=seed)
        verdict = verdict_of(result.ci95, claim.sign, claim.margin) if result.n >= MIN_UNITS else "not shown"
        return Finding(
            claim.text,
            verdict,
            key=claim.key,
            delta=result.delta,
            ci95=result.ci95,
            p=result.p,
            n=result.n,
            method=result.mean_method,
            baseline=result.mean_baseline,
        )


def verdict_of(ci95: tuple[float, float], sign: str, margin: float = 0.0) -> Verdict:
    """Judge a difference by its interval: it *holds* if the interval lies wholly on the claimed side of the margin.

    >>> verdict_of((0.2, 0.5), ">"), verdict_of((-0.1, 0.5), ">"), verdict_of((0.2, 0.5), "<")
    ('holds', 'not shown', 'contradicted')
    """
    low, high = ci95 if sign == ">" else (-ci95[1], -ci95[0])
    if low > margin:
        return "holds"
    return "contradicted" if high < margin else "not shown"


def status_of(findings: list[Mapping[str, Any]]) -> str:
    """One word for a whole run: the worst of its verdicts.

    >>> status_of([{"verdict": "holds"}, {"verdict": "not shown"}])
    'not shown'
    """
    order = ("crashed", "invariant broken", "contradicted", "not shown", "holds", "invariant ok")
    verdicts = {str(finding["verdict"]) for finding in findings}
    return next((v for v in order if v in verdicts), "never run")
