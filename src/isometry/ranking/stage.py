"""What every stage has: a name, a fingerprint, ``>>``, and a record of what it gave each hit."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from isometry.errors import InputError
from isometry.types import FloatArray, Hits, Queries

RANK: Final = " (rank)"  # the contribution "bm25 (rank)" holds the ranks that belong to the scores of "bm25"
AnyStage = Callable[[Queries, Hits | None], Hits]


class Stage(ABC):
    """One step of a ranking pipeline: a callable ``(queries, hits) -> hits`` that composes with ``>>``.

    A subclass sets ``name`` and writes `rank` and `config`. Calling the stage runs `rank` and records in
    ``Hits.contributions`` the score and rank it gave each row, after what earlier stages gave.
    """

    name: str

    @abstractmethod
    def rank(self, queries: Queries, hits: Hits | None) -> Hits:
        """Return the new hits; their contributions are those found on the way, if any."""

    @abstractmethod
    def config(self) -> Mapping[str, Any]:
        """What the result depends on."""

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of the configuration."""
        return digest({"stage": type(self).__name__, **self.config()})

    def __call__(self, queries: Queries, hits: Hits | None = None) -> Hits:
        """Run the stage and record what it gave; `InputError` if the hits are those of other queries."""
        if hits is not None and hits.query_ids.tolist() != queries.ids.tolist():
            raise InputError(
                f"{self.name} got hits of other queries than it was asked; pass the hits of these queries."
            )
        found = self.rank(queries, hits)
        earlier = carry(hits, found) if hits is not None else {}
        counts = np.diff(found.offsets)
        ranks = np.arange(len(found.ids)) - np.repeat(found.offsets[:-1], counts) + 1
        own = {self.name: found.scores, self.name + RANK: ranks.astype(np.float32)}
        return replace(found, contributions=join(join(earlier, found.contributions), own))

    def __rshift__(self, other: AnyStage) -> Pipeline:
        return Pipeline([self, other])


class Pipeline(Stage):
    """Stages one after the other; ``a >> b >> c`` builds one, and grouping makes no difference."""

    def __init__(self, stages: Sequence[AnyStage]) -> None:
        flat: list[AnyStage] = []
        for stage in stages:
            if not callable(stage):
                raise InputError(f"A pipeline is made of stages, {stage!r} is none.")
            flat += stage.stages if isinstance(stage, Pipeline) else [stage]
        if not flat:
            raise InputError("A pipeline needs at least one stage.")
        self.stages: tuple[AnyStage, ...] = tuple(flat)
        self.name = " >> ".join(getattr(stage, "name", type(stage).__name__) for stage in flat)

    def config(self) -> Mapping[str, Any]:
        """Fingerprints of the stages, in order."""
        return {"stages": [getattr(stage, "fingerprint", describe(stage)) for stage in self.stages]}

    def rank(self, queries: Queries, hits: Hits | None) -> Hits:
        """Run the stages in order."""
        for stage in self.stages:
            hits = stage(queries, hits)
        assert hits is not None  # there is at least one stage, and a stage returns hits
        return hits

    def __call__(self, queries: Queries, hits: Hits | None = None) -> Hits:
        """Run the stages in order; each records what it gave."""
        return self.rank(queries, hits)

    @staticmethod
    def explain(hits: Hits, i: int = 0) -> list[list[dict[str, Any]]]:
        """See `isometry.ranking.explain`."""
        return explain(hits, i)


def explain(hits: Hits, i: int = 0) -> list[list[dict[str, Any]]]:
    """What each stage gave each hit of the i-th query: per hit a list of ``{stage, score, rank}``.

    The rank counts from 1 in the stage's own list, also where later stages dropped what stood around it.
    """
    span = hits.span(i)
    given = {name: values[span] for name, values in hits.contributions.items()}
    stages = [name for name in given if not name.endswith(RANK)]
    unknown = np.full(span.stop - span.start, np.nan, np.float32)
    rows = []
    for j in range(span.stop - span.start):
        seen = [(s, float(given[s][j]), given.get(s + RANK, unknown)[j]) for s in stages if not np.isnan(given[s][j])]
        rows.append([{"stage": s, "score": v, "rank": None if np.isnan(r) else int(r)} for s, v, r in seen])
    return rows


def carry(before: Hits, after: Hits) -> dict[str, FloatArray]:
    """Contributions of ``before`` in the rows of ``after``, NaN for rows it did not have; same queries."""
    source = np.full(len(after.ids), -1, np.int64)
    for i in range(len(after)):
        start = int(before.offsets[i])
        place = {identity: start + j for j, identity in enumerate(before.ids[before.span(i)].tolist())}
        source[after.span(i)] = [place.get(identity, -1) for identity in after.ids[after.span(i)].tolist()]
    padded = ((name, np.r_[values, np.float32(np.nan)]) for name, values in before.contributions.items())
    return {name: values[source].astype(np.float32) for name, values in padded}


def join(first: Mapping[str, FloatArray], second: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """Both together; a stage of the second that has a taken name becomes "name 2", and so on."""
    joined = dict(first)
    for name in (n for n in second if not n.endswith(RANK)):
        free, number = name, 2
        while free in joined:
            free, number = f"{name} {number}", number + 1
        joined[free] = second[name]
        if name + RANK in second:
            joined[free + RANK] = second[name + RANK]
    return joined


def require_none(stage: Stage, hits: Hits | None) -> None:
    """Raise `InputError` if a stage that starts from nothing is given hits."""
    if hits is not None:
        raise InputError(f"{stage.name} finds hits by itself and must stand first; combine two with fuse(a, b).")


def check_count(value: Any, what: str) -> int:
    """Return a whole number of at least 1, or raise `InputError`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise InputError(f"{what} must be a whole number of at least 1, got {value!r}.")
    return int(value)


def describe(value: Any) -> Any:
    """A JSON-able description that changes with what matters; functions by name, indexes by space and size."""
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, np.ndarray):
        return [str(value.dtype), list(value.shape), hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()]
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe(item) for item in value]
    if hasattr(value, "fingerprint"):
        return str(value.fingerprint)
    named = value if hasattr(value, "__qualname__") else type(value)
    facts = [f"{named.__module__}.{named.__qualname__}"]
    if space := getattr(value, "space", None) or getattr(value, "default_space", None):
        facts.append(str(getattr(space, "id", space)))
    if path := getattr(getattr(value, "config", None), "_name_or_path", None):
        facts.append(str(path))
    if hasattr(value, "__len__"):
        facts.append(str(len(value)))
    return facts


def digest(value: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of a configuration."""
    text = json.dumps(describe(value), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
