"""Score the first hits again by reading query and document together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from isometry.errors import InputError
from isometry.ranking.lookup import Lookup, texts_of
from isometry.ranking.stage import Stage, check_count, describe
from isometry.types import FloatArray, Hits, Queries


class Rerank(Stage):
    """Reranking: a slower, better scorer orders what a first stage found.

    Parameters
    ----------
    scorer
        A cross-encoder (``predict(pairs) -> [n]``, as sentence-transformers' ``CrossEncoder``), or a function
        ``(query, texts) -> [n]``, such as `isometry.ranking.MaxSim` of a late-interaction encoder.
    depth
        How many hits of each query are scored; those behind are dropped, because their scores mean something else.
    texts
        ``ids -> texts`` (or documents), e.g. ``collection.get``; or a mapping from id to text.
    """

    name = "rerank"

    def __init__(self, scorer: Any, *, depth: int = 100, texts: Lookup) -> None:
        if not callable(scorer) and not hasattr(scorer, "predict"):
            raise InputError(f"The scorer must have predict(pairs) or be a function (query, texts), got {scorer!r}.")
        self.scorer, self.depth, self.texts = scorer, check_count(depth, "depth"), texts

    def config(self) -> Mapping[str, Any]:
        """The scorer by its name, and the depth."""
        return {"scorer": describe(self.scorer), "depth": self.depth}

    def rank(self, queries: Queries, hits: Hits | None) -> Hits:
        """Score and sort.

        Raises
        ------
        InputError
            If there are no hits to rerank, or the scorer returns something else than one finite number per text.
        """
        if hits is None:
            raise InputError("Rerank needs the hits of a stage before it: Retrieve(...) >> Rerank(...).")
        head = [hits.row(i)[: self.depth] for i in range(len(hits))]
        cut = Hits.build(queries.ids, head)
        texts = texts_of(self.texts, cut)
        scores = self._scores(queries, cut, texts)
        spans = [cut.span(i) for i in range(len(cut))]
        return Hits.build(
            queries.ids, (zip(cut.ids[s].tolist(), scores[s].tolist(), strict=True) for s in spans)
        )  # fmt: skip

    def _scores(self, queries: Queries, hits: Hits, texts: list[str]) -> FloatArray:
        asked = np.repeat(np.arange(len(hits)), np.diff(hits.offsets)).tolist()
        if not texts:
            return np.empty(0, np.float32)
        if hasattr(self.scorer, "predict"):
            pairs = [(queries.texts[q], text) for q, text in zip(asked, texts, strict=True)]
            return _checked(self.scorer.predict(pairs), len(texts))
        parts = []
        for i, query in enumerate(queries.texts):
            if some := texts[hits.span(i)]:
                parts.append(_checked(self.scorer(query, some), len(some)))
        return np.concatenate(parts)


def _checked(values: Any, n: int) -> FloatArray:
    if hasattr(values, "detach"):  # a torch tensor, perhaps on another device
        values = values.detach().float().cpu().numpy()
    scores = np.asarray(values, np.float32)
    if scores.shape == (n, 1):
        scores = scores[:, 0]
    if scores.shape != (n,) or not np.isfinite(scores).all():
        raise InputError(f"The scorer must return one finite number per text ({n}), got an array of {scores.shape}.")
    return scores
