"""Standings of several models over several tasks: Borda count, mean over tasks, mean over kinds of task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from isometry.errors import EmptyInput, InputError, UnknownName

Missing = Literal["refuse", "among present", "last"]


@dataclass(frozen=True)
class Standing:
    """One model's place.

    Parameters
    ----------
    model
        Its name.
    rank
        1 for the most Borda points; equal points share the better rank.
    borda
        Points: for every task, the number of models it beat, and half of those it tied with.
    borda_share
        ``borda`` as a share of the points it could have had on the tasks it has results of.
    tasks
        How many tasks it has results of.
    mean_task
        Mean over tasks; None where a result is missing, since such means are of different tasks.
    mean_type
        Mean over kinds of task of the mean in each; None where a result is missing.
    """

    model: str
    rank: int
    borda: float
    borda_share: float
    tasks: int
    mean_task: float | None
    mean_type: float | None


def borda_points(values: NDArray[np.float64], *, missing: Missing = "refuse") -> NDArray[np.float64]:
    """Borda count: every task ranks the models, each gets a point for every model below it and half for every tie.

    Parameters
    ----------
    values
        ``[models, tasks]``, higher is better, NaN where there is no result.
    missing
        ``"refuse"`` raises. ``"among present"``: a task ranks only the models that have a result of it, the others get
        nothing from it. ``"last"``: they rank below all that have one, tied.

    Returns
    -------
    ndarray
        float64 ``[models]``; with nothing missing, the sum is tasks * models * (models - 1) / 2.

    Examples
    --------
    >>> borda_points(np.array([[0.9, 0.5], [0.8, 0.5], [0.1, 0.7]])).tolist()
    [2.5, 1.5, 2.0]
    """
    if missing not in get_args(Missing):
        raise UnknownName("rule for missing results", missing, get_args(Missing))
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or not values.size or np.isinf(values).any():
        raise InputError(f"Borda needs finite values [models, tasks] (NaN: none), got shape {values.shape}.")
    absent = np.isnan(values)
    if missing == "refuse" and absent.any():
        model, task = np.argwhere(absent)[0].tolist()
        raise InputError(
            f"Model {model} has no result of task {task} ({int(absent.sum())} results are missing); "
            "choose missing='among present' or missing='last'."
        )
    ranks = rankdata(np.where(absent, -np.inf, values), axis=0)  # mean ranks from 1, the lowest value first
    below = 0 if missing == "last" else absent.sum(axis=0)
    points: NDArray[np.float64] = np.where(absent & (missing != "last"), 0.0, ranks - 1 - below).sum(axis=1)
    return points


def standings(
    scores: Mapping[str, Mapping[str, float]],
    types: Mapping[str, str] | None = None,
    *,
    missing: Missing = "refuse",
) -> list[Standing]:
    """Rank models by Borda count, with the mean over tasks and over kinds of task (MMTEB, arXiv:2502.13595).

    Parameters
    ----------
    scores
        By model, its result of each task, higher is better.
    types
        The kind of each task; without it every task is of one kind.
    missing
        See `borda_points`.

    Returns
    -------
    list
        Best first; equal points in the order of names.

    Raises
    ------
    EmptyInput
        If there is no model or no task.
    InputError
        If a result is missing under ``"refuse"``, is infinite, or a task has no kind.
    """
    models, tasks = sorted(scores), sorted({task for row in scores.values() for task in row})
    if not models or not tasks:
        raise EmptyInput("Standings need at least one model with one result.")
    kinds = dict.fromkeys(tasks, "") if types is None else types
    if unknown := [task for task in tasks if task not in kinds]:
        raise InputError(f"{len(unknown)} task(s) have no kind: {unknown[:5]}; name one for each.")
    values = np.array([[scores[model].get(task, np.nan) for task in tasks] for model in models])
    points = borda_points(values, missing=missing)
    present = ~np.isnan(values)
    rivals = np.where(present, (present.sum(axis=0) if missing == "among present" else len(models)) - 1, 0).sum(axis=1)
    of_kind = {kind: [i for i, task in enumerate(tasks) if kinds[task] == kind] for kind in map(kinds.get, tasks)}
    rows = []
    for i, model in enumerate(models):
        whole = bool(present[i].all())
        by_kind = [float(values[i, columns].mean()) for columns in of_kind.values()] if whole else []
        rows.append(
            Standing(
                model,
                rank=1 + int((points > points[i]).sum()),
                borda=float(points[i]),
                borda_share=float(points[i] / rivals[i]) if rivals[i] else 0.0,
                tasks=int(present[i].sum()),
                mean_task=float(values[i].mean()) if whole else None,
                mean_type=float(np.mean(by_kind)) if whole else None,
            )
        )
    return sorted(rows, key=lambda row: (row.rank, row.model))
