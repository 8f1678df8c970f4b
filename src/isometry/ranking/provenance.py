"""Why a result is there: its rank in plain search, the path that led to it, what it adds, and which copies it hides."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from isometry.ranking.expand import Expand
from isometry.ranking.lookup import Lookup, vectors_of
from isometry.types import Hits

COPY = 1 - 1e-6  # cosine from which two vectors are one and the same up to rounding


@dataclass(frozen=True)
class Provenance:
    """Where one result comes from.

    Parameters
    ----------
    rank
        Its rank in plain search, from 1; None if that did not find it.
    path
        Ids from a seed (one of the first results of plain search) to it; empty unless a path of the graph leads to it.
    gain
        What it added to the set when it was taken, where results were diversified.
    copies
        Ids of results with the same vector that were passed over because they would have added nothing.
    """

    rank: int | None = None
    path: tuple[str, ...] = ()
    gain: float | None = None
    copies: tuple[str, ...] = field(default=())

    @property
    def seed(self) -> str | None:
        """The result of plain search that the path starts from."""
        return self.path[0] if self.path else None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; stable keys."""
        return {"rank": self.rank, "seed": self.seed, "path": list(self.path), "gain": self.gain,
                "copies": list(self.copies)}  # fmt: skip


def trace(
    found: Hits, direct: Hits, *, expand: Expand | None = None, pool: Hits | None = None, vectors: Lookup | None = None
) -> list[list[Provenance]]:
    """Provenance of every row of ``found``, by query.

    Parameters
    ----------
    found
        The final hits.
    direct
        What plain search found, before any expansion or diversification.
    expand
        The stage that expanded them.
    pool
        What a diversifying stage chose from; the scores of ``found`` are then marginal gains.
    vectors
        ``ids -> [n, d]``, to tell copies in the pool.
    """
    return [_of_query(found, direct, i, expand, pool, vectors) for i in range(len(found))]


def _of_query(
    found: Hits, direct: Hits, i: int, expand: Expand | None, pool: Hits | None, vectors: Lookup | None
) -> list[Provenance]:
    row, ids = direct.row(i), found.ids[found.span(i)].tolist()
    ranks = {identity: rank for rank, (identity, _) in enumerate(row, 1)}
    paths = _paths(expand, row, ids) if expand is not None and row else {}
    copies = _copies(pool, i, ids, vectors) if pool is not None and vectors is not None else {}
    gains = found.scores[found.span(i)].tolist() if pool is not None else [None] * len(ids)
    return [
        Provenance(ranks.get(identity), paths.get(identity, ()), gain, copies.get(identity, ()))
        for identity, gain in zip(ids, gains, strict=True)
    ]


def _paths(expand: Expand, row: list[tuple[str, float]], ids: list[str]) -> dict[str, tuple[str, ...]]:
    graph = expand.graph_around(row)
    paths = expand.walk.paths(graph, expand.walk.start(graph, row))
    routes = {i: paths.to(graph.place[i]) for i in ids if i in graph.place}
    return {i: tuple(str(graph.ids[j]) for j in route) for i, route in routes.items() if len(route) > 1}


def _copies(pool: Hits, i: int, ids: list[str], vectors: Lookup) -> dict[str, tuple[str, ...]]:
    """By id of a result, those candidates that were left out and have its vector."""
    span = pool.span(i)
    names = np.asarray(pool.ids[span], object)
    one = Hits(pool.query_ids[i : i + 1], np.asarray([0, len(names)]), names, pool.scores[span])
    x = vectors_of(vectors, one).astype(np.float64)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    x = np.divide(x, norms, out=np.zeros_like(x), where=norms > 0)
    taken = np.isin(names, ids)
    same = x[taken] @ x[~taken].T >= COPY
    return {str(n): tuple(names[~taken][hit].tolist()) for n, hit in zip(names[taken], same, strict=True) if hit.any()}
