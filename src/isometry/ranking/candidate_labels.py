"""Soft labels of a two-stage pipeline: a retriever finds candidates, a slower scorer says how relevant each is.

With word and vector search in the first stage and a cross-encoder in the second (LG-ANNA-Embedding, 2506.07438)::

    first = fuse(BM25(documents, k=50, k1=1.2), Retrieve(index, encoder, k=50), how="weighted")
    labels = label_candidates(queries, positives, first, CrossEncoderScorer.load(path).stage(texts), negatives=7)
    train, scores = labels.agreeing(), labels.agreeing().probabilities()
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from isometry.errors import EmptyInput, InputError
from isometry.ranking.stage import AnyStage, check_count
from isometry.types import FloatArray, Hits, Queries, id_array


@dataclass(frozen=True, eq=False)
class CandidateLabels:
    """Of each query its positive and its hardest candidates, with the scorer's opinion of each.

    Parameters
    ----------
    query_ids
        object ``[n]``.
    ids
        object ``[n, k]``: the positive first, then negatives, best first in the eyes of the first stage; padded by
        ``""``.
    scores
        float32 ``[n, k]``: of the scorer, each query on its own scale; 0 where padded.
    keep
        bool ``[n, k]``: what is no padding.
    """

    query_ids: NDArray[np.object_]
    ids: NDArray[np.object_]
    scores: FloatArray
    keep: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.query_ids)

    def probabilities(self, temperature: float = 1.0) -> FloatArray:
        """Softmax within each query, float32 ``[n, k]``, 0 where padded: scales of queries never mix."""
        if not temperature > 0:
            raise InputError(f"temperature must be > 0, got {temperature}.")
        logits = np.where(self.keep, self.scores.astype(np.float64) / temperature, -np.inf)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        found: FloatArray = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
        return found

    @property
    def agrees(self) -> NDArray[np.bool_]:
        """Bool ``[n]``: whether the scorer puts the labelled positive first (or beside the first)."""
        found: NDArray[np.bool_] = self.scores[:, 0] >= np.where(self.keep, self.scores, -np.inf).max(axis=1)
        return found

    @property
    def disagreement(self) -> float:
        """Share of the queries whose positive the scorer does not put first: there hard and soft labels fight."""
        return float(1 - self.agrees.mean())

    def agreeing(self) -> CandidateLabels:
        """Only the queries where the scorer agrees with the label."""
        rows = self.agrees
        return replace(
            self, query_ids=self.query_ids[rows], ids=self.ids[rows], scores=self.scores[rows], keep=self.keep[rows]
        )


def label_candidates(
    queries: Queries,
    positives: Sequence[str],
    candidates: AnyStage,
    scorer: AnyStage,
    *,
    negatives: int = 7,
    margin: float | None = None,
    related: Mapping[str, Collection[str]] | None = None,
) -> CandidateLabels:
    """Find candidates of each query with one stage and score them, and the positive, with another.

    Parameters
    ----------
    positives
        Of each query, the id of its labelled document; scored whether it was found or not.
    candidates
        Finds hits from nothing, such as ``fuse(BM25(...), Retrieve(...))``.
    scorer
        Scores given hits, such as a cross-encoder's stage; its depth must hold all candidates.
    negatives
        How many candidates each query keeps, the first stage's best.
    margin
        Leave out candidates that the scorer puts above the positive less ``margin``, as unlabelled positives; the next
        ones take their places. None keeps them, to be taught as what they are.
    related
        Further ids, by query id, that are no negatives.

    Raises
    ------
    InputError
        If there is not one positive for each query, or the scorer lost a positive.
    EmptyInput
        If there is no query.
    """
    check_count(negatives, "negatives")
    if len(positives) != len(queries):
        raise InputError(f"Each query needs one positive; got {len(positives)} for {len(queries)} queries.")
    if not len(queries):
        raise EmptyInput("There is no query to label candidates of.")
    known = related or {}
    found = candidates(queries, None)
    orders = [[identity for identity, _ in row] for _, row in found]
    pooled = [dict.fromkeys([positive, *order]) for positive, order in zip(positives, orders, strict=True)]
    given = Hits.build(queries.ids, ([(identity, 0.0) for identity in pool] for pool in pooled))
    scored = scorer(queries, replace(given, contributions={}))
    ids = np.full((len(queries), negatives + 1), "", object)
    scores, keep = np.zeros(ids.shape, np.float32), np.zeros(ids.shape, bool)
    for i, (query, row) in enumerate(scored):
        opinion = dict(row)
        if positives[i] not in opinion:
            raise InputError(f"The scorer gave the positive of query {query!r} no score; let its depth be larger.")
        limit = np.inf if margin is None else opinion[positives[i]] - margin
        barred = {positives[i], *known.get(query, ())}
        rest = [d for d in orders[i] if d not in barred and d in opinion and opinion[d] <= limit]
        chosen = [positives[i], *rest[:negatives]]
        ids[i, : len(chosen)] = id_array(chosen)
        scores[i, : len(chosen)] = [opinion[identity] for identity in chosen]
        keep[i, : len(chosen)] = True
    return CandidateLabels(queries.ids, ids, scores, keep)
