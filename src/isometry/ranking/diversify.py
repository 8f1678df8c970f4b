"""Do not say the same thing twice: maximal marginal relevance, coverage or a determinantal point process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from isometry.errors import InputError, UnknownName
from isometry.ranking.compress import POOL, Compress, Objective, capped, min_max
from isometry.ranking.lookup import Lookup, vectors_of
from isometry.ranking.stage import Stage, check_count
from isometry.types import Hits, Queries

Method = Literal["mmr", "coverage", "dpp"]
METHODS: Final[tuple[Method, ...]] = get_args(Method)


class Diversify(Stage):
    """Take hits one by one so that they do not repeat each other, with one knob from relevance to diversity.

    - ``"mmr"``, maximal marginal relevance: the value of a hit is ``lam * r - (1 - lam) * s``, where s is its largest
      cosine similarity to a hit taken before, -1 for the first (the lowest there is, so that values fall);
    - ``"coverage"``: ``lam * Rel + (1 - lam) * Cov``, facility location over the candidates;
    - ``"dpp"``: ``lam * Rel + (1 - lam) * log det``, greedy inference of a determinantal point process.

    r is a hit's score, min-max normalised within the query. The last two are `Compress` with that `Objective`; a hit's
    score is its marginal gain.

    *Differs from the papers:* relevance is normalised, because scores of fused or reranked hits are on other scales
    than a cosine.

    Parameters
    ----------
    lam
        1: relevance alone, order and scores stay as they are; 0: diversity alone.
    k
        How many hits of each query to take.
    vectors
        ``ids -> [n, d]``, e.g. ``index.vectors``; or a mapping from id to vector.
    method
        One of the three.
    pool
        At most so many hits of a query are compared, the best ones; a `DataWarning` says when there are more.

    References
    ----------
    Carbonell and Goldstein, The Use of MMR, Diversity-Based Reranking for Reordering Documents and Producing
    Summaries, SIGIR 1998. Lin and Bilmes, A Class of Submodular Functions for Document Summarization, ACL 2011. Chen,
    Zhang and Zhou, Fast Greedy MAP Inference for Determinantal Point Process, NeurIPS 2018.
    """

    name = "diversify"

    def __init__(
        self, *, lam: float = 0.5, k: int = 10, vectors: Lookup, method: str = "mmr", pool: int = POOL
    ) -> None:
        if not 0 <= lam <= 1:
            raise InputError(f"lam (--diverse) must be between 0 (diversity) and 1 (relevance), got {lam!r}.")
        if method not in METHODS:
            raise UnknownName("way to diversify", str(method), METHODS)
        self.lam, self.k, self.vectors = float(lam), check_count(k, "k"), vectors
        self.method, self.pool = method, check_count(pool, "pool")

    def config(self) -> Mapping[str, Any]:
        """The method, the trade-off and k."""
        return {"lam": self.lam, "k": self.k, "method": self.method, "pool": self.pool}

    def rank(self, queries: Queries, hits: Hits | None) -> Hits:
        """Take k hits of each query; `InputError` if there are no hits to choose from."""
        if hits is None:
            raise InputError("Diversify needs the hits of a stage before it: Retrieve(...) >> Diversify(...).")
        if self.lam == 1:
            return Hits.build(queries.ids, [hits.row(i) for i in range(len(hits))], k=self.k)
        if self.method != "mmr":
            cover, spread = (1 - self.lam, 0.0) if self.method == "coverage" else (0.0, 1 - self.lam)
            objective = Objective(self.lam, cover, spread)
            return Compress(objective, k=self.k, vectors=self.vectors, pool=self.pool).rank(queries, hits)
        hits = capped(hits, self.pool)
        x = vectors_of(self.vectors, hits).astype(np.float64)
        norms = np.linalg.norm(x, axis=1, keepdims=True)
        x = np.divide(x, norms, out=np.zeros_like(x), where=norms > 0)
        rows = []
        for i in range(len(hits)):
            span = hits.span(i)
            taken, values = mmr(hits.scores[span].astype(np.float64), x[span], hits.ids[span], self.lam, self.k)
            rows.append(list(zip(hits.ids[span][taken].tolist(), values, strict=True)))
        return Hits.build(queries.ids, rows)


def mmr(
    scores: NDArray[np.float64], x: NDArray[np.float64], ids: NDArray[np.object_], lam: float, k: int
) -> tuple[list[int], list[float]]:
    """Rows in the order taken, and their values, which never rise; ``x`` ``[n, d]`` are unit vectors."""
    if not len(scores):
        return [], []
    relevance = min_max(scores)
    order = np.argsort(ids, kind="stable")  # candidates by id, so that the first of equal values has the lowest
    relevance, x = relevance[order], x[order]
    likeness = np.full(len(order), -1.0)
    left = np.ones(len(order), bool)
    taken: list[int] = []
    values: list[float] = []
    for _ in range(min(k, len(order))):
        # In single precision, as the value is returned: what ties there must tie here.
        value = np.where(left, (lam * relevance - (1 - lam) * likeness).astype(np.float32), -np.inf)
        best = int(value.argmax())
        taken.append(int(order[best]))
        values.append(float(value[best]))
        left[best] = False
        likeness = np.maximum(likeness, np.clip(x @ x[best], -1, 1))
    return taken, values
