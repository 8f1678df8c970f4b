"""Fuse the hits of several stages: reciprocal ranks, or weighted normalised scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from isometry.errors import InputError, UnknownName
from isometry.ranking.stage import AnyStage, Stage, carry, describe, join
from isometry.types import FloatArray, Hits, Queries

How = Literal["rrf", "weighted"]
Normalise = Literal["minmax", "zscore", "none"]


def fuse(
    *stages: AnyStage,
    how: How = "rrf",
    k: float = 60,
    weights: Sequence[float] | None = None,
    normalise: Normalise = "minmax",
) -> Fuse:
    """Combine stages that answer the same queries into one; see `Fuse`."""
    return Fuse(stages, how=how, k=k, weights=weights, normalise=normalise)


class Fuse(Stage):
    """Rank fusion of several stages: every hit of any of them, by the sum of what each gives it.

    ``how="rrf"``: reciprocal rank fusion, ``sum of w / (k + rank)`` over the stages that found it, rank from 1.
    ``how="weighted"``: ``sum of w * s``, s normalised per query and stage; a document that a stage did not find
    counts as the last that it found.

    Parameters
    ----------
    stages
        At least one; each is given the same queries and hits.
    k
        Constant of reciprocal rank fusion (60 in the paper).
    weights
        One per stage; default 1 each.
    normalise
        ``"minmax"``: to [0, 1] (1 where all are equal, 0 for what was not found); ``"zscore"``: to mean 0 and
        deviation 1; ``"none"``: as they are.

    References
    ----------
    Cormack, Clarke and Buettcher, Reciprocal Rank Fusion Outperforms Condorcet and Individual Rank Learning Methods,
    SIGIR 2009.
    """

    def __init__(
        self,
        stages: Sequence[AnyStage],
        *,
        how: How = "rrf",
        k: float = 60,
        weights: Sequence[float] | None = None,
        normalise: Normalise = "minmax",
    ) -> None:
        if how not in get_args(How):
            raise UnknownName("way to fuse", str(how), get_args(How))
        if normalise not in get_args(Normalise):
            raise UnknownName("normalisation", str(normalise), get_args(Normalise))
        if not stages or not all(callable(stage) for stage in stages):
            raise InputError("fuse needs at least one stage, and stages only.")
        self.weights = [1.0] * len(stages) if weights is None else [float(w) for w in weights]
        if len(self.weights) != len(stages) or not all(np.isfinite(w) and w >= 0 for w in self.weights):
            raise InputError(f"fuse needs {len(stages)} weights of at least 0, one per stage, got {weights!r}.")
        if not k >= 0 or not np.isfinite(k):
            raise InputError(f"The constant k of reciprocal rank fusion must be at least 0, got {k!r}.")
        self.stages, self.how, self.k, self.normalise = tuple(stages), how, k, normalise
        self.name: str = how

    def config(self) -> Mapping[str, Any]:
        """Fingerprints of the stages and the parameters."""
        settings = {"how": self.how, "k": self.k, "weights": self.weights, "normalise": self.normalise}
        return {"stages": [getattr(s, "fingerprint", describe(s)) for s in self.stages], **settings}

    def rank(self, queries: Queries, hits: Hits | None) -> Hits:
        """Ask every stage and add up."""
        branches = [stage(queries, hits) for stage in self.stages]
        inherited = set(hits.contributions) if hits is not None else set()
        found = Hits.build(queries.ids, [self._sum(branches, i) for i in range(len(queries))])
        given: dict[str, FloatArray] = {}
        for branch in branches:
            own = {name: values for name, values in carry(branch, found).items() if name not in inherited}
            given = join(given, own)
        return replace(found, contributions=given)

    def _sum(self, branches: Sequence[Hits], i: int) -> list[tuple[str, float]]:
        ids = sorted({identity for branch in branches for identity in branch.ids[branch.span(i)].tolist()})
        place = {identity: j for j, identity in enumerate(ids)}
        total = np.zeros(len(ids))
        for branch, weight in zip(branches, self.weights, strict=True):
            rows = [place[identity] for identity in branch.ids[branch.span(i)].tolist()]
            if rows:
                given, missing = self._worth(branch.scores[branch.span(i)].astype(np.float64))
                worth = np.full(len(ids), missing)
                worth[rows] = given
                total += weight * worth
        # In single precision, as hits hold it: what ties there must be sorted as a tie here.
        return list(zip(ids, total.astype(np.float32).tolist(), strict=True))

    def _worth(self, scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
        """What a stage gives its hits, best first, and what it gives to a document it did not find."""
        if self.how == "rrf":
            return 1 / (self.k + 1 + np.arange(len(scores))), 0.0
        if self.normalise == "minmax":
            width = scores.max() - scores.min()
            return (scores - scores.min()) / width if width > 0 else np.ones(len(scores)), 0.0
        if self.normalise == "zscore":
            width = scores.std()
            scores = (scores - scores.mean()) / width if width > 0 else np.zeros(len(scores))
        return scores, float(scores.min())
