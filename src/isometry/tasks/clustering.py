"""Clustering: k-means against labels, per replicate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isometry.errors import InputError
from isometry.tasks.encoding import encode, system_name
from isometry.types import FloatArray, Role, Scores


def kmeans_scores(vectors: FloatArray, labels: Sequence[str], *, seed: int = 0) -> dict[str, float]:
    """Cluster by k-means (k-means++, k = number of distinct labels) and compare with the labels.

    Parameters
    ----------
    vectors
        float32 ``[n, d]``.
    labels
        Labels ``[n]``.
    seed
        Seed of k-means' first centres.

    Returns
    -------
    dict
        ``v_measure`` (Rosenberg and Hirschberg 2007, beta 1) and ``ari`` (adjusted Rand index, 0 by chance).

    Raises
    ------
    InputError
        If there are not as many labels as vectors, or distinct vectors are fewer than distinct labels.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score, v_measure_score

    if len(labels) != len(vectors):
        raise InputError(f"{len(vectors)} vectors need {len(vectors)} labels, got {len(labels)}.")
    k, distinct = len(set(labels)), len(np.unique(vectors, axis=0))
    if distinct < k:
        raise InputError(f"{distinct} distinct vectors cannot form {k} clusters, one for each label.")
    found = KMeans(k, n_init=1, random_state=seed).fit_predict(vectors)
    return {"v_measure": float(v_measure_score(labels, found)), "ari": float(adjusted_rand_score(labels, found))}


@dataclass(frozen=True, eq=False)
class ClusteringTask:
    """Group texts by k-means and compare with their labels, on bootstrap subsets (as MTEB does).

    The unit is the replicate: its own subset, drawn with replacement, and its own first centres. Every system meets the
    same replicates for a seed, so systems can be compared pair by pair. All texts are encoded once.

    Parameters
    ----------
    texts, labels
        The items.
    name
        Name of the task in the scores.
    replicates
        How many.
    size
        Items in a subset; None: as many as there are, at most 2048.
    role
        Role texts are encoded in.
    """

    texts: Sequence[str]
    labels: Sequence[str]
    name: str = "clustering"
    replicates: int = 10
    size: int | None = None
    role: Role = "query"

    def __post_init__(self) -> None:
        if len(self.texts) != len(self.labels) or len(set(self.labels)) < 2:
            raise InputError(f"{self.name!r} needs one label per text and at least two distinct labels.")
        if self.replicates < 1 or (self.size is not None and self.size < 2):
            raise InputError(f"{self.name!r} needs at least one replicate of at least two items.")

    def score(self, system: Any, seed: int = 0) -> Scores:
        """Score an encoder on every replicate."""
        vectors = encode(system, self.texts, self.role).vectors
        labels = np.asarray(self.labels)
        size = min(len(labels), 2048) if self.size is None else self.size
        values: dict[str, dict[str, float]] = {"v_measure": {}, "ari": {}}
        for replicate in range(self.replicates):
            rng = np.random.default_rng([seed, replicate])
            rows = rng.integers(0, len(labels), size)
            for metric, value in kmeans_scores(vectors[rows], labels[rows].tolist(), seed=replicate).items():
                values[metric][str(replicate)] = value
        return Scores.of(self.name, system_name(system), values, seed=seed, subset_size=size)
