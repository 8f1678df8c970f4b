"""Classification on frozen vectors: linear probe and nearest neighbours, per test item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from isometry.errors import InputError
from isometry.tasks.encoding import encode, system_name
from isometry.types import FloatArray, Role, Scores

Probe = Literal["linear", "knn"]


def linear_probe(
    train: FloatArray, labels: Sequence[str], test: FloatArray, *, C: float = 1.0, max_iter: int = 1000
) -> NDArray[Any]:
    """Predict by multinomial logistic regression (L2, L-BFGS) on frozen vectors; deterministic.

    Parameters
    ----------
    train, test
        float32 ``[n, d]`` and ``[m, d]``.
    labels
        Labels ``[n]``, at least two distinct ones.
    C
        Inverse strength of the L2 penalty.
    max_iter
        Most steps of L-BFGS.

    Returns
    -------
    numpy.ndarray
        Predicted labels ``[m]``.
    """
    from sklearn.linear_model import LogisticRegression

    targets = _labels(labels, len(train))
    return np.asarray(LogisticRegression(C=C, max_iter=max_iter).fit(train, targets).predict(test))


def knn_probe(train: FloatArray, labels: Sequence[str], test: FloatArray, *, k: int = 5) -> NDArray[Any]:
    """Predict by majority of the k nearest training vectors by cosine; equal votes go to the label that sorts first.

    Parameters
    ----------
    train, test
        float32 ``[n, d]`` and ``[m, d]``.
    labels
        Labels ``[n]``, at least two distinct ones.
    k
        Neighbours; all of them where there are fewer.

    Returns
    -------
    numpy.ndarray
        Predicted labels ``[m]``.
    """
    from sklearn.neighbors import KNeighborsClassifier

    if k < 1:
        raise InputError(f"k must be at least 1, got {k}.")
    targets = _labels(labels, len(train))
    model = KNeighborsClassifier(min(k, len(train)), metric="cosine", algorithm="brute")
    return np.asarray(model.fit(train, targets).predict(test))


def _labels(labels: Sequence[str], n: int) -> NDArray[Any]:
    targets = np.asarray(labels)
    if len(targets) != n:
        raise InputError(f"{n} training vectors need {n} labels, got {len(targets)}.")
    if len(np.unique(targets)) < 2:
        raise InputError("A classifier needs training items of at least two labels.")
    return targets


@dataclass(frozen=True, eq=False)
class ClassificationTask:
    """Train a probe on the vectors of one set, judge it on another: accuracy per test item, macro-F1 as a fact.

    Parameters
    ----------
    train_texts, train_labels, test_texts, test_labels
        The two sets.
    name
        Name of the task in the scores.
    probe
        ``"linear"`` (see `linear_probe`) or ``"knn"`` (see `knn_probe`).
    per_label
        Train on at most this many items of each label, drawn by the seed; None: on all.
    role
        Role texts are encoded in.
    """

    train_texts: Sequence[str]
    train_labels: Sequence[str]
    test_texts: Sequence[str]
    test_labels: Sequence[str]
    name: str = "classification"
    probe: Probe = "linear"
    per_label: int | None = None
    role: Role = "query"

    def __post_init__(self) -> None:
        if len(self.train_texts) != len(self.train_labels) or len(self.test_texts) != len(self.test_labels):
            raise InputError(f"{self.name!r} needs one label per text in training and test set.")
        if self.probe not in ("linear", "knn"):
            raise InputError(f"probe must be 'linear' or 'knn', got {self.probe!r}.")

    def score(self, system: Any, seed: int = 0) -> Scores:
        """Score an encoder on every test item."""
        from sklearn.metrics import f1_score

        rows = self._training_rows(seed)
        train = encode(system, [self.train_texts[i] for i in rows], self.role).vectors
        test = encode(system, self.test_texts, self.role).vectors
        predict = linear_probe if self.probe == "linear" else knn_probe
        predicted = predict(train, [self.train_labels[i] for i in rows], test)
        gold = np.asarray(self.test_labels)
        hits = {str(i): float(right) for i, right in enumerate(predicted == gold)}
        macro_f1 = float(f1_score(gold, predicted, average="macro", zero_division=0))
        facts = {"macro_f1": macro_f1, "probe": self.probe, "train_items": len(rows)}
        return Scores.of(self.name, system_name(system), {"accuracy": hits}, seed=seed, **facts)

    def _training_rows(self, seed: int) -> list[int]:
        if self.per_label is None:
            return list(range(len(self.train_labels)))
        taken: dict[str, int] = {}
        rows = []
        for i in np.random.default_rng(seed).permutation(len(self.train_labels)).tolist():
            label = self.train_labels[i]
            if taken.get(label, 0) < self.per_label:
                taken[label] = taken.get(label, 0) + 1
                rows.append(i)
        return sorted(rows)
