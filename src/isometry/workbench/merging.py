"""Merge tuned copies of one model, and see whether the merged one is better than they are."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from isometry.errors import InputError
from isometry.stats import compare
from isometry.types import Scores
from isometry.types.progress import NamedProgress, silent
from isometry.workbench.model_card import write_card
from isometry.workbench.outputs import check_out, replacing, save_model, working
from isometry.workbench.reports import comparison_dict, verdict_of
from isometry.workbench.tuning_data import tuning_data

METHODS = {"average": "average", "slerp": "slerp", "task-arithmetic": "task_arithmetic"}


def merge(
    names: Sequence[str], out: Path, *, method: str = "average", weights: Sequence[float] | None = None,
    base: str | None = None, data: Sequence[str] = (), root: Path | None = None, fresh: bool = False,
    progress: NamedProgress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Merge models and write the result; with ``data``, compare it with the best of them on the held-out part.

    Parameters
    ----------
    names
        Two or more models tuned from one start.
    method
        A key of `METHODS`; see `isometry.training.merging.merge_models`.
    data
        See `tuning_data`; several sets are judged one by one.

    Returns
    -------
    dict
        What the model card says; each comparison is with the best single model on that data.
    """
    from isometry.encoders import load
    from isometry.errors import UnknownName
    from isometry.training.merging import merge_models

    started, report = time.perf_counter(), progress or silent
    if len(names) < 2:
        raise InputError(f"Merging needs at least two models, got {len(names)}.")
    if method not in METHODS:
        raise UnknownName("merging method", method, METHODS)
    if (base is None) == (method == "task-arithmetic"):
        raise InputError("--method task-arithmetic needs --base, the models' common start; other methods take none.")
    if weights is not None and method == "slerp":
        raise InputError("--method slerp takes no --weights; use average or task-arithmetic, or leave them out.")
    check_out(out, fresh=fresh, sources=[*names, *([] if base is None else [base])])
    tasks = [(found.test, found.metric) for found in (tuning_data(d, root=root) for d in data)]
    models = [load(name, engine="torch").model for name in names]
    start = None if base is None else load(base, engine="torch").model
    merged = merge_models(models, METHODS[method], weights=weights, base=start)  # type: ignore[arg-type]
    rows, singles = [], []
    with working(out, fresh=fresh), replacing(out) as folder:
        save_model(merged, folder)
        done, todo = 0, len(tasks) * (len(names) + 1)
        comparisons = []
        encoders = [load(name) for name in [*names, str(folder)]] if tasks else []
        for task, metric in tasks:
            scores: list[Scores] = []
            for encoder in encoders:
                report("measuring", done, todo)
                scores.append(task.score(encoder))
                done += 1
            values = [s.mean(metric) for s in scores[:-1]]
            best = max(range(len(names)), key=values.__getitem__)
            comparisons.append(compare(scores[-1], scores[best], metric))
            rows.append({**comparison_dict(comparisons[-1]), "task": f"{task.name}: against {names[best]}"})
            singles.append(dict(zip(names, values, strict=True)))
        verdict = " ".join(verdict_of(c, "the best single model") for c in comparisons)
        facts = {
            "out": str(out), "models": list(names), "method": method, "weights": list(weights or []), "base": base,
            "seconds": round(time.perf_counter() - started, 1), "singles": singles,
            "held_out": rows[0] if rows else None, "elsewhere": rows[1:],
            "verdict": verdict or "Not measured: give --data to compare it with the models it was made of.",
            "warnings": [], "notes": [], "compared": ["best single", "merged"],
        }  # fmt: skip
        write_card(folder, facts, title=out.name)
    return facts
