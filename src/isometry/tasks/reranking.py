"""Reranking: order the candidates of each query by similarity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from isometry.errors import InputError
from isometry.tasks.encoding import encode, row_similarity, system_name
from isometry.tasks.metrics import Qrels, evaluate_run
from isometry.types import Scores


@dataclass(frozen=True, eq=False)
class RerankingTask:
    """Order each query's own candidates by similarity; MAP and MRR per query.

    Parameters
    ----------
    queries
        Text by query id.
    documents
        Text by document id.
    qrels
        Grade by query and document id: a query's candidates are the documents it has a grade for, so candidates that
        are not relevant need the grade 0. Queries without a relevant candidate do not count.
    name
        Name of the task in the scores.
    metrics
        See `isometry.tasks.metric_values`.
    """

    queries: Mapping[str, str]
    documents: Mapping[str, str]
    qrels: Qrels
    name: str = "reranking"
    metrics: Sequence[str] = ("map", "mrr")

    def __post_init__(self) -> None:
        if missing := [q for q in self.qrels if q not in self.queries]:
            raise InputError(f"{len(missing)} judged queries of {self.name!r} have no text (first {missing[0]!r}).")
        if lost := [d for grades in self.qrels.values() for d in grades if d not in self.documents]:
            raise InputError(f"{len(lost)} candidates of {self.name!r} have no text (first {lost[0]!r}).")

    @classmethod
    def of_pairs(
        cls, left: Sequence[str], right: Sequence[str], labels: Sequence[int], name: str = "reranking"
    ) -> RerankingTask:
        """Build from labelled pairs: equal left texts are one query, right texts its candidates.

        A pair that occurs twice keeps its higher label.
        """
        if not len(left) == len(right) == len(labels):
            raise InputError(f"{name!r} needs as many left as right texts as labels.")
        queries = {text: f"q{i}" for i, text in enumerate(dict.fromkeys(left))}
        documents = {text: f"d{i}" for i, text in enumerate(dict.fromkeys(right))}
        qrels: dict[str, dict[str, int]] = {query: {} for query in queries.values()}
        for query, document, label in zip(left, right, labels, strict=True):
            grades = qrels[queries[query]]
            grades[documents[document]] = max(int(label), grades.get(documents[document], 0))
        return cls({i: text for text, i in queries.items()}, {i: text for text, i in documents.items()}, qrels, name)

    def score(self, system: Any, seed: int = 0) -> Scores:
        """Score an encoder on every query with a relevant candidate."""
        pairs = [(q, d) for q, grades in self.qrels.items() if any(g > 0 for g in grades.values()) for d in grades]
        asked, named = list(dict.fromkeys(q for q, _ in pairs)), list(dict.fromkeys(d for _, d in pairs))
        queries = encode(system, [self.queries[q] for q in asked], "query")
        documents = encode(system, [self.documents[d] for d in named], "document")
        row_of_query, row_of_document = {q: i for i, q in enumerate(asked)}, {d: i for i, d in enumerate(named)}
        similarity = row_similarity(
            queries.take([row_of_query[q] for q, _ in pairs]), documents.take([row_of_document[d] for _, d in pairs])
        )
        run: dict[str, dict[str, float]] = {q: {} for q in asked}
        for (query, document), value in zip(pairs, similarity.tolist(), strict=True):
            run[query][document] = value
        return evaluate_run(self.qrels, run, self.metrics, task=self.name, system=system_name(system), seed=seed)
