"""Pair classification: does similarity tell the pairs that belong together from the others?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isometry.errors import InputError
from isometry.tasks.encoding import encode_pairs, row_similarity, system_name
from isometry.types import Role, Scores


def precision_at_positives(labels: ArrayLike, scores: ArrayLike) -> NDArray[np.float64]:
    """Precision at the rank of each positive: their mean is average precision.

    Ties count together: the precision at a score is the share of positives among all pairs that score at least that.

    Parameters
    ----------
    labels
        0 or 1, ``[n]``, at least one 1.
    scores
        Higher means more likely 1, ``[n]``.

    Returns
    -------
    numpy.ndarray
        float64, one value per positive in the order given.

    Examples
    --------
    >>> precision_at_positives([1, 0, 1], [0.9, 0.5, 0.4]).round(3).tolist()
    [1.0, 0.667]
    """
    gold, values = _checked(labels, scores)
    asked = values[gold == 1]
    return _at_least(values[gold == 1], asked) / _at_least(values, asked)


def best_thresholds(labels: ArrayLike, scores: ArrayLike) -> dict[str, float]:
    """Best accuracy and best F1 over all thresholds ("1 if the score is at least ..."), with the thresholds.

    Chosen on the same pairs they are measured on, hence optimistic: facts to describe a run by, not results.

    Parameters
    ----------
    labels, scores
        See `precision_at_positives`.

    Examples
    --------
    >>> best_thresholds([1, 0, 1], [0.9, 0.5, 0.4])["accuracy_threshold"]
    0.9
    """
    gold, values = _checked(labels, scores)
    thresholds = np.append(np.unique(values), np.nextafter(values.max(), np.inf))[::-1]  # the highest: none is 1
    chosen, right = _at_least(values, thresholds), _at_least(values[gold == 1], thresholds)
    positives = int(gold.sum())
    accuracy = (2 * right - chosen + len(gold) - positives) / len(gold)
    f1 = 2 * right / (chosen + positives)
    best = {}
    for name, column in (("accuracy", accuracy), ("f1", f1)):
        best[name], best[f"{name}_threshold"] = float(column.max()), float(thresholds[column.argmax()])
    return best


def _at_least(values: NDArray[np.float64], thresholds: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many of ``values`` reach each threshold."""
    return len(values) - np.searchsorted(np.sort(values), thresholds, side="left")


def _checked(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    gold, values = np.asarray(labels), np.asarray(scores, np.float64)
    if gold.ndim != 1 or gold.shape != values.shape:
        raise InputError(f"Pairs need one label and one score each, got shapes {gold.shape} and {values.shape}.")
    if not np.isin(gold, (0, 1)).all() or not gold.any():
        raise InputError("Labels of pairs must be 0 or 1, and at least one must be 1.")
    if not np.isfinite(values).all():
        raise InputError("Scores of pairs must be finite.")
    return gold.astype(np.int64), values


@dataclass(frozen=True, eq=False)
class PairClassificationTask:
    """Tell pairs that belong together from the others by similarity: average precision.

    The unit is the positive pair and its value the precision at its rank (see `precision_at_positives`); best
    accuracy, best F1 and their thresholds are facts. Similarity is the space's own.

    Parameters
    ----------
    left, right
        Texts ``[n]``.
    labels
        1 where a pair belongs together, else 0, ``[n]``.
    name
        Name of the task in the scores.
    role
        Role both sides are encoded in.
    """

    left: Sequence[str]
    right: Sequence[str]
    labels: Sequence[int]
    name: str = "pair classification"
    role: Role = "query"

    def __post_init__(self) -> None:
        if len(self.left) != len(self.right):
            raise InputError(f"{self.name!r} has {len(self.left)} left and {len(self.right)} right texts.")
        _checked(self.labels, np.zeros(len(self.left)))

    def score(self, system: Any, seed: int = 0) -> Scores:
        """Score an encoder on every positive pair."""
        similarity = row_similarity(*encode_pairs(system, self.left, self.right, self.role))
        units = np.flatnonzero(self.labels).tolist()
        precision = precision_at_positives(self.labels, similarity).tolist()
        values = {str(unit): value for unit, value in zip(units, precision, strict=True)}
        return Scores.of(
            self.name, system_name(system), {"ap": values}, seed=seed, **best_thresholds(self.labels, similarity)
        )
