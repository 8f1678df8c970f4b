"""Retrieval: corpus, queries and judgments to per-query ranking metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from isometry.errors import InputError
from isometry.tasks.encoding import encode, system_name
from isometry.tasks.metrics import DEFAULT_METRICS, Qrels, evaluate_run, parse_metric
from isometry.types import Document, Hits, Json, Queries, Scores


@dataclass(frozen=True, eq=False)
class RetrievalTask:
    """Exact retrieval of documents for judged queries (BEIR's setting), scored by `evaluate_run`.

    A document is embedded as title, a space, text, stripped. Only queries with a relevant document are encoded, since
    no other counts.

    Parameters
    ----------
    corpus
        The documents.
    queries
        Text by query id.
    qrels
        Grade by query and document id.
    name
        Name of the task in the scores.
    k
        Depth of the ranking; metrics without a cut see this much.
    metrics
        See `metric_values`; no cut may exceed ``k``.
    facts
        Written to the scores, e.g. that the queries are synthetic.

    Raises
    ------
    InputError
        If a metric is cut below the ranking's depth, ids of documents repeat, or a judged query has no text.
    """

    corpus: Sequence[Document]
    queries: Mapping[str, str]
    qrels: Qrels
    name: str = "retrieval"
    k: int = 100
    metrics: Sequence[str] = DEFAULT_METRICS
    facts: Mapping[str, Json] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for metric in self.metrics:
            cut = parse_metric(metric)[1]
            if cut is not None and cut > self.k:
                raise InputError(f"The metric {metric!r} needs a ranking of {cut} documents; give k={cut} or more.")
        if len({document.id for document in self.corpus}) < len(self.corpus):
            raise InputError(f"Document ids of {self.name!r} must be distinct; give each document its own.")
        if missing := [query for query in self.qrels if query not in self.queries]:
            raise InputError(f"{len(missing)} judged queries of {self.name!r} have no text (first {missing[0]!r}).")

    def score(self, system: Any, seed: int = 0) -> Scores:
        """Score an encoder, or a pipeline of `isometry.protocols.Stage`, on every query with a relevant document."""
        texts = {q: self.queries[q] for q, grades in self.qrels.items() if any(g > 0 for g in grades.values())}
        hits = self.search(system, texts) if hasattr(system, "encode_document") else system(Queries.of(texts), None)
        return evaluate_run(
            self.qrels,
            hits,
            self.metrics,
            task=self.name,
            system=system_name(system),
            seed=seed,
            documents=len(self.corpus),
            depth=self.k,
            **self.facts,
        )

    def search(self, encoder: Any, texts: Mapping[str, str]) -> Hits:
        """Return the first ``k`` documents by exact search, for queries given as ``{id: text}``."""
        from isometry.indexes import Exact

        documents = encode(encoder, [d.content for d in self.corpus], "document", [d.id for d in self.corpus])
        queries = encode(encoder, list(texts.values()), "query", texts)
        return Exact.of(documents).search(queries, self.k)
