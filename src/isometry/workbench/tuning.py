"""Tune a model on the user's data, and say by held-out data what that did."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isometry import registry
from isometry.errors import InputError, UnknownName
from isometry.files import make_folder
from isometry.stats import compare
from isometry.types.progress import NamedProgress, silent
from isometry.workbench.budget import settled_steps
from isometry.workbench.model_card import write_card
from isometry.workbench.outputs import check_out, check_work, replacing, save_model, working
from isometry.workbench.reports import comparison_dict, verdict_of
from isometry.workbench.tuning_data import TuningData, elsewhere_task, tuning_data

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from isometry.protocols import Task
    from isometry.stats import Comparison
    from isometry.training import Plan, Tuning
    from isometry.training.fine_tuning import Settings
    from isometry.training.rows import Rows
    from isometry.types import Scores

DEFAULT = "default"
ELSEWHERE = ("ir/scifact", "cls/banking77", "sts/stsb")
WORSE_ELSEWHERE = 0.02  # a drop of this much on another task is warned of
RATES: Mapping[str, float] = {"pairs": 2e-5, "triplets": 2e-5, "labelled": 5e-5, "sts": 2e-5}
BATCHES: Mapping[str, int] = {"pairs": 32, "triplets": 32, "labelled": 64, "sts": 32}
EPOCHS: Mapping[str, int] = {"pairs": 4, "triplets": 3, "labelled": 3, "sts": 2}
TRAINING_SHARE = 0.6  # of the budget; the rest is for measuring before and after
TRAINING_TOKENS = 128
MIN_STEPS = 10


@dataclass(frozen=True)
class Choices:
    """What a user may choose; None: chosen from the data and the budget.

    Parameters
    ----------
    recipe
        Slug of a technique, or ``"default"``.
    budget
        Seconds for everything.
    steps, batch_size, lr, max_tokens
        See `isometry.training.fine_tuning.Settings`.
    lora
        Rank of low-rank adapters to train instead of all weights; they are merged into the weights at the end.
    """

    recipe: str = DEFAULT
    budget: float = 600.0
    steps: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    max_tokens: int | None = None
    lora: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Tuned:
    """A tuned model, and what the change did: on the held-out part of its data, and elsewhere."""

    out: Path
    base: str
    recipe: str
    data: TuningData
    settings: Settings
    result: Comparison
    elsewhere: Sequence[Comparison]
    seconds: float
    cpu_seconds: float
    notes: Sequence[str] = field(default=())

    @property
    def verdict(self) -> str:
        """One sentence; an improvement is only called one if its interval excludes 0."""
        return verdict_of(self.result)

    @property
    def warnings(self) -> list[str]:
        """What got worse elsewhere by more than two points."""
        return [
            f"{c.task} fell by {100 * -c.delta:.1f} points ({c.metric} {c.mean_baseline:.3f} to {c.mean_method:.3f})."
            for c in self.elsewhere
            if c.delta < -WORSE_ELSEWHERE
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; stable keys."""
        return {
            "out": str(self.out), "base": self.base, "recipe": self.recipe, "data": self.data.name,
            "kind": self.data.rows.kind, "rows": len(self.data.rows), "synthetic": self.data.synthetic,
            "steps": self.settings.steps, "batch_size": self.settings.batch_size, "lr": self.settings.lr,
            "max_tokens": self.settings.max_tokens, "seed": self.settings.seed, "seconds": round(self.seconds, 1),
            "cpu_seconds": round(self.cpu_seconds, 1),
            "held_out": comparison_dict(self.result), "verdict": self.verdict,
            "elsewhere": [comparison_dict(c) for c in self.elsewhere], "warnings": self.warnings,
            "notes": list(self.notes),
        }  # fmt: skip


def techniques() -> list[str]:
    """Slugs of the recipes that can tune a model on anyone's data."""
    found = []
    for name in registry.recipes():
        source = registry.recipe(name).path.read_text(encoding="utf-8")
        if "\ndef plan(" in source:
            found.append(name)
    return sorted(found)


def plan_of(recipe: str) -> Callable[[Tuning], Plan]:
    """Return the function that turns a tuning into a plan.

    Raises
    ------
    UnknownName
        If there is no recipe of that name that tunes a model.
    """
    if recipe == DEFAULT:
        from isometry.training import default_plan

        return default_plan
    known = techniques()
    if recipe not in known:
        raise UnknownName("tuning recipe", recipe, [DEFAULT, *known])
    made: Callable[[Tuning], Plan] = import_module(registry.recipe(recipe).module).plan
    return made


def tune(
    source: str | Path, out: Path, *, base: str = "minilm", choices: Choices | None = None,
    elsewhere: Sequence[str] | None = None, root: Path | None = None, fresh: bool = False,
    progress: NamedProgress | None = None,
) -> Tuned:  # fmt: skip
    """Tune ``base`` on some data, judge it on the part held out, and write a sentence-transformers folder.

    Parameters
    ----------
    source
        See `tuning_data`.
    out
        The folder to write; made when all is done. Checkpoints are in a folder beside it until then, and a run that
        was interrupted goes on from the last one.
    elsewhere
        Other data to judge before and after; None: the three general sets of `ELSEWHERE` that can be found.
    fresh
        Start over, and replace what is at ``out``.

    Raises
    ------
    InputError
        If the data cannot train anything, or ``out`` is taken.
    """
    import time

    from isometry.encoders import load

    choices = choices or Choices()
    started, cpu, report = time.perf_counter(), time.process_time(), progress or silent
    check_out(out, fresh=fresh, sources=[base])
    data = tuning_data(source, root=root)
    encoder = load(base)
    others = _elsewhere(elsewhere, data.name, root)
    tasks = [(data.test, data.metric), *others]
    before = _measure("measuring before", tasks, encoder, report)
    with working(out, fresh=fresh) as work:
        model, settings, notes = train(data, base, choices, work, progress=report)
        with replacing(out) as folder:
            save_model(model, folder)
            after = _measure("measuring after", tasks, load(folder), report)
            found = [compare(b, a, metric) for (_, metric), a, b in zip(tasks, before, after, strict=True)]
            result = Tuned(
                out, base, choices.recipe, data, settings, found[0], found[1:], time.perf_counter() - started,
                time.process_time() - cpu, (*data.notes, *notes),
            )  # fmt: skip
            write_card(folder, result.to_dict(), title=out.name)
    return result


def train(
    data: TuningData, base: str, choices: Choices, folder: Path, *, progress: NamedProgress
) -> tuple[SentenceTransformer, Settings, list[str]]:
    """Train as many runs as the plan asks for and return their average; checkpoints go to ``folder``."""
    from isometry.encoders import load
    from isometry.training import Tuning
    from isometry.training.adapters import add_lora, merge_lora
    from isometry.training.fine_tuning import fine_tune

    make_folder(folder)
    make = plan_of(choices.recipe)
    encoder = load(base, engine="torch")
    check_work(folder, {"base": encoder.space.id, "recipe": choices.recipe, "lora": choices.lora})
    models, notes, settings, run, runs = [], list[str](), None, 0, 1
    while run < runs:
        model = copy.deepcopy(encoder.model)
        start = copy.deepcopy(model).eval().requires_grad_(False)
        if choices.lora is not None:
            add_lora(model, r=choices.lora, alpha=2 * choices.lora, seed=choices.seed)
        plan = make(Tuning(model, start, data.rows.kind, choices.seed + run))
        runs = plan.runs
        settings = settings or _settings(choices, data.rows, model, plan, folder)
        of = f" {run + 1} of {runs}" if runs > 1 else ""
        fine_tune(
            model, data.rows, plan.loss, _of_run(settings, run), folder=folder / f"run-{run}",
            same_class=plan.same_class_batches, judge=_judge(data),
            progress=partial(progress, f"training{of}"),
        )  # fmt: skip
        models.append(model if choices.lora is None else merge_lora(model))
        notes += [plan.note] if plan.note and not run else []
        run += 1
    assert settings is not None
    return _average(models), settings, notes


def _of_run(settings: Settings, run: int) -> Settings:
    from dataclasses import replace

    return replace(settings, seed=settings.seed + run)


def _average(models: list[SentenceTransformer]) -> SentenceTransformer:
    if len(models) == 1:
        return models[0]
    from isometry.training.merging import merge_models

    return merge_models(models, "average")


def _judge(data: TuningData) -> Callable[[SentenceTransformer], float]:
    return lambda model: data.dev.score(model).mean(data.metric)


def _settings(choices: Choices, rows: Rows, model: SentenceTransformer, plan: Plan, folder: Path) -> Settings:
    """Settle the number of steps: as asked, as it was settled before an interruption, or what the budget allows."""
    from isometry.training.fine_tuning import Settings, seconds_per_step
    from isometry.training.rows import fitting_size

    fits = fitting_size(rows, BATCHES[rows.kind], same_class=plan.same_class_batches, seed=choices.seed)
    size = min(choices.batch_size or fits, len(rows))
    values: dict[str, Any] = {
        "batch_size": size,
        "lr": RATES[rows.kind] if choices.lr is None else choices.lr,
        "max_tokens": choices.max_tokens or TRAINING_TOKENS,
        "seed": choices.seed,
    }

    def settle() -> int:
        enough = max(MIN_STEPS, EPOCHS[rows.kind] * len(rows) // size)
        each = seconds_per_step(model, rows, plan.loss, Settings(steps=1, **values))
        allowed = int(TRAINING_SHARE * choices.budget / each / plan.runs)
        if allowed < MIN_STEPS:
            raise InputError(
                f"A step takes {each:.1f} s here, so the budget of {choices.budget:.0f} s allows {allowed} steps; "
                f"give at least {MIN_STEPS * each * plan.runs / TRAINING_SHARE:.0f} s, or smaller --batch-size."
            )
        return min(enough, allowed)

    return Settings(steps=choices.steps or settled_steps(folder, settle), **values)


def _elsewhere(names: Sequence[str] | None, own: str, root: Path | None) -> list[tuple[Task, str]]:
    from isometry.data import find

    found = []
    for name in ELSEWHERE if names is None else names:
        if name == own or ((place := _place(name, root)) and place == _place(own, root)):
            continue
        if names is None:
            try:
                find(name, root)
            except UnknownName:
                continue
        found.append(elsewhere_task(name, root=root))
    return found


def _measure(what: str, tasks: Sequence[tuple[Task, str]], encoder: Any, report: NamedProgress) -> list[Scores]:
    scores = []
    for done, (task, _) in enumerate(tasks):
        report(what, done, len(tasks))
        scores.append(task.score(encoder))
    report(what, len(tasks), len(tasks))
    return scores


def _place(name: str, root: Path | None) -> Path | None:
    from isometry.data.sets import locate

    try:
        return locate(name, root).resolve()
    except InputError:  # a collection, or nothing
        return None
