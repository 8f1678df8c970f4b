"""Which techniques help on my data? Each tunes the same model with equal steps and batches; one part is held out."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from isometry.errors import InputError, IsometryError
from isometry.stats import Comparison, compare_all
from isometry.types import Scores
from isometry.types.progress import NamedProgress, silent
from isometry.workbench.outputs import save_model
from isometry.workbench.reports import comparison_dict
from isometry.workbench.tuning import BATCHES, DEFAULT, RATES, TRAINING_TOKENS, Choices, plan_of, train
from isometry.workbench.tuning_data import TuningData, tuning_data

if TYPE_CHECKING:
    from isometry.training import Plan

TRAINING_SHARE = 0.7
MIN_STEPS = 10


@dataclass(frozen=True)
class Ranking:
    """Techniques on one data set, best first, each against the model it started from.

    ``rows`` hold p-values with Holm's correction over the techniques; ``left_out`` says why some could not be used.
    """

    data: TuningData
    base: str
    steps: int
    batch_size: int
    rows: Sequence[tuple[str, Comparison]]
    left_out: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; stable keys."""
        return {
            "data": self.data.name, "kind": self.data.rows.kind, "base": self.base, "steps": self.steps,
            "batch_size": self.batch_size, "synthetic": self.data.synthetic, "left_out": self.left_out,
            "techniques": [
                {"recipe": slug, **comparison_dict(c), "p_adj": c.p_adj, "verdict": c.verdict} for slug, c in self.rows
            ],
            "notes": list(self.data.notes),
        }  # fmt: skip


def rank_techniques(
    source: str | Path, recipes: Sequence[str], *, base: str = "minilm", budget: float = 600.0,
    steps: int | None = None, seed: int = 0, root: Path | None = None, progress: NamedProgress | None = None,
) -> Ranking:  # fmt: skip
    """Tune ``base`` by each technique, and by none (``"default"``), and rank them by the held-out metric.

    Parameters
    ----------
    source
        See `tuning_data`.
    recipes
        Slugs that `isometry.workbench.tuning.techniques` lists.
    budget
        Seconds for all of it; settles the number of steps, which is the same for every technique (for each of its
        runs, where it averages several).

    Raises
    ------
    InputError
        If none of the techniques can use the data, or the budget does not allow `MIN_STEPS` steps each.
    """
    from isometry.encoders import load
    from isometry.training.rows import fitting_size

    report = progress or silent
    data = tuning_data(source, root=root)
    slugs = list(dict.fromkeys([DEFAULT, *recipes]))
    size = fitting_size(data.rows, BATCHES[data.rows.kind], seed=seed)
    costs, left_out = _costs(data, base, slugs, size, seed)
    if not costs.keys() - {DEFAULT}:
        raise InputError(" ".join(left_out.values()) or "Name at least one technique besides the default.")
    count = steps or int(TRAINING_SHARE * budget / sum(costs.values()))
    if steps is None and count < MIN_STEPS:
        raise InputError(
            f"{len(costs)} techniques need {sum(costs.values()):.1f} s a step together, so {budget:.0f} s allow "
            f"{count} steps each; give at least {MIN_STEPS * sum(costs.values()) / TRAINING_SHARE:.0f} s."
        )
    scores: dict[str, Scores] = {base: data.test.score(load(base))}
    work = Path(mkdtemp(prefix="isometry-compare-"))
    try:
        for slug in costs:
            choices = Choices(recipe=slug, steps=count, batch_size=size, seed=seed)
            model, _, _ = train(data, base, choices, work / slug, progress=_named(report, slug))
            save_model(model, work / "model")
            scores[slug] = data.test.score(load(work / "model"))
            shutil.rmtree(work / "model")
            shutil.rmtree(work / slug)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    found = compare_all([scores[slug] for slug in costs], scores[base], data.metric)
    rows = sorted(zip(costs, found, strict=True), key=lambda row: -row[1].delta)
    return Ranking(data, base, count, size, rows, left_out)


def _named(report: NamedProgress, slug: str) -> NamedProgress:
    return lambda what, done, total: report(f"{slug}: {what}", done, total)


def _costs(
    data: TuningData, base: str, slugs: Sequence[str], size: int, seed: int
) -> tuple[dict[str, float], dict[str, str]]:
    """Return seconds for one step of every run of each technique, and why some cannot use the data."""
    from isometry.encoders import load
    from isometry.training import Tuning
    from isometry.training.fine_tuning import Settings, seconds_per_step

    kind = data.rows.kind
    settings = Settings(1, size, RATES[kind], max_tokens=TRAINING_TOKENS, seed=seed)
    costs, left_out = dict[str, float](), dict[str, str]()
    for slug in slugs:
        model = copy.deepcopy(load(base, engine="torch").model)
        start = copy.deepcopy(model).eval().requires_grad_(False)
        try:
            plan: Plan = plan_of(slug)(Tuning(model, start, kind, seed))
            costs[slug] = plan.runs * seconds_per_step(model, data.rows, plan.loss, settings)
        except IsometryError as error:
            left_out[slug] = str(error)
    return costs, left_out
