"""Run recipes, keep what they found, and compare several on one data set."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from isometry import __version__, registry
from isometry.errors import IsometryError, RecipeError
from isometry.files import make_folder, write_whole
from isometry.lab.bench import Lab
from isometry.lab.card import Card
from isometry.lab.outcome import Finding, Outcome, status_of
from isometry.lab.plots import Plot
from isometry.types import finite


@dataclass(frozen=True)
class RunResult:
    """A finished run: findings per claim, further figures, and what it ran on."""

    slug: str
    preset: str
    seconds: float
    seeds: int
    data: str
    findings: list[Finding]
    facts: Mapping[str, Any] = field(default_factory=dict)
    plots: Mapping[str, Plot] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form kept in ``results/`` and printed by ``recipes run --json``."""
        return {
            "slug": self.slug,
            "preset": self.preset,
            "seconds": round(self.seconds, 1),
            "seeds": self.seeds,
            "data": self.data,
            "version": __version__,
            "claims": [finding.to_dict() for finding in self.findings],
            "facts": dict(self.facts),
        }


def card(slug: str) -> Card:
    """Return the card of a recipe, by slug."""
    return Card.from_literals(registry.recipe(slug).card)


def run(slug: str, lab: Lab) -> RunResult:
    """Run one recipe in a lab.

    A recipe that fails by a fault of its own gives a *crashed* finding for each claim; an `IsometryError` (wrong input,
    missing data) is the caller's to mend and passes through.
    """
    about = card(slug)
    started = time.perf_counter()
    outcome = Outcome()
    try:
        outcome = import_module(registry.recipe(slug).module).run(lab)
        findings = outcome.findings(about)
    except IsometryError:
        raise
    except Exception as error:
        detail = traceback.format_exc(limit=-3)
        findings = [Finding(c.text, "crashed", key=c.key, invariant=c.invariant, detail=detail) for c in about.claims]
        outcome.fact("error", repr(error))
    seconds = time.perf_counter() - started
    data = "builtin" if lab.user_data is None else "yours"
    return RunResult(slug, lab.preset, seconds, len(lab.seeds), data, findings, outcome.facts, outcome.plots)


def lab_for(slug: str, preset: str, *, seeds: int | None = None, **options: Any) -> Lab:
    """Return the lab for one recipe at one scale; ``seeds`` overrides how many seeds the preset asks for."""
    config = card(slug).preset(preset)
    count = seeds if seeds is not None else int(config.get("seeds", 1))
    return Lab(preset=preset, config=config, seeds=tuple(range(count)), **options)


def compare(
    slugs: Iterable[str], preset: str, **options: Any
) -> tuple[list[tuple[str, Finding, float | None]], dict[str, str]]:
    """Run recipes on the same data.

    Returns
    -------
    tuple
        (slug, finding, Holm-corrected p) for every claim with error bars; and why a recipe does not apply, by slug.

    Raises
    ------
    RecipeError
        If none applies.
    """
    from isometry.stats import holm

    rows: list[tuple[str, Finding]] = []
    unfit: dict[str, str] = {}
    for slug in slugs:
        try:
            rows += [(slug, f) for f in run(slug, lab_for(slug, preset, **options)).findings if not f.invariant]
        except RecipeError as error:
            unfit[slug] = str(error)
    if unfit and not rows:
        raise RecipeError(" ".join(unfit.values()))
    judged = [i for i, (_, finding) in enumerate(rows) if finding.p is not None]
    adjusted = dict(zip(judged, holm([rows[i][1].p or 0.0 for i in judged]), strict=True))
    return [(slug, finding, adjusted.get(i)) for i, (slug, finding) in enumerate(rows)], unfit


def results_folder() -> Path:
    """Folder of the results we stand by: inside the installed package, or ``results/`` of a checkout."""
    installed = registry.PACKAGE / "results"
    return installed if installed.is_dir() else registry.PACKAGE.parents[1] / "results"


def write(result: RunResult, folder: Path | None = None) -> Path:
    """Write a result to ``<folder>/<slug>.json``, whole or not at all."""
    folder = make_folder(results_folder() if folder is None else folder)
    target = folder / f"{result.slug}.json"
    text = json.dumps(finite(result.to_dict()), indent=1, ensure_ascii=False, allow_nan=False)
    write_whole(target, f"{text}\n".encode())
    return target


def load_result(slug: str, folder: Path | None = None) -> dict[str, Any] | None:
    """Return the kept result of a recipe, or None if it was never run."""
    path = (results_folder() if folder is None else folder) / f"{slug}.json"
    if not path.is_file():
        return None
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


def status(slug: str) -> str:
    """Return the worst verdict of the kept result, or ``"never run"``."""
    result = load_result(slug)
    return "never run" if result is None else status_of(result["claims"])
