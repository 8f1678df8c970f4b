"""Ranking metrics with the semantics of trec_eval: per query, from judgments and a run.

Conventions, all trec_eval's: a document is relevant if its grade is 1 or more; documents without a judgment count as
not relevant, grades below 0 gain nothing; documents are ordered by falling score *in single precision*, ties by
falling id; the ideal ranking and the number of relevant documents come from the judgments, whatever was found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isometry.errors import EmptyInput, InputError, UnknownName
from isometry.types import Hits, Json, Scores

Qrels = Mapping[str, Mapping[str, int]]
Run = Mapping[str, Mapping[str, float]]

DEFAULT_METRICS = ("ndcg@10", "map", "mrr", "recall@10", "recall@100", "precision@10")


class _Ranking(NamedTuple):
    """Gains of the documents found, best first, cut at ``k``; gains of the relevant ones, falling."""

    gains: NDArray[np.float64]
    ideal: NDArray[np.float64]
    k: int | None


def _dcg(gains: NDArray[np.float64]) -> float:
    return float((gains / np.log2(np.arange(2, len(gains) + 2))).sum())


def _ndcg(r: _Ranking) -> float:
    return _dcg(r.gains) / _dcg(r.ideal[: r.k])


def _average_precision(r: _Ranking) -> float:
    ranks = np.flatnonzero(r.gains) + 1
    return float((np.arange(1, len(ranks) + 1) / ranks).sum()) / len(r.ideal)


def _reciprocal_rank(r: _Ranking) -> float:
    ranks = np.flatnonzero(r.gains)
    return 1.0 / (1 + int(ranks[0])) if len(ranks) else 0.0


def _recall(r: _Ranking) -> float:
    return np.count_nonzero(r.gains) / len(r.ideal)


def _precision(r: _Ranking) -> float:
    return np.count_nonzero(r.gains) / (r.k or len(r.gains))


def _success(r: _Ranking) -> float:
    return float(r.gains.any())


_METRICS: dict[str, Callable[[_Ranking], float]] = {
    "map": _average_precision,
    "mrr": _reciprocal_rank,
    "ndcg": _ndcg,
    "precision": _precision,
    "recall": _recall,
    "success": _success,
}


def parse_metric(metric: str) -> tuple[Callable[[_Ranking], float], int | None]:
    """Split ``"ndcg@10"`` into its function and its cut (None without one)."""
    name, at, cut = metric.partition("@")
    if name not in _METRICS:
        raise UnknownName("metric", metric, _METRICS, "A cut is written after it, as in 'ndcg@10'.")
    if at and not (cut.isdecimal() and int(cut) > 0):
        raise InputError(f"The cut of the metric {metric!r} must be a whole number above 0, as in '{name}@10'.")
    return _METRICS[name], int(cut) if at else None


def metric_values(
    judgments: Mapping[str, int], found: Mapping[str, float], metrics: Sequence[str] = DEFAULT_METRICS
) -> dict[str, float]:
    """Score one query: nDCG, average precision, reciprocal rank, recall, precision, success.

    ``ndcg`` uses linear gains and a log2 discount (Järvelin and Kekäläinen 2002, as trec_eval does). A metric may be
    cut, ``"ndcg@10"``; without a cut it sees everything found (``precision`` then divides by how much that is). With a
    cut, ``precision@k`` divides by k and ``map@k`` by the number of relevant documents, even where fewer were found.

    Parameters
    ----------
    judgments
        Grade by document id.
    found
        Score by document id.
    metrics
        Names among ndcg, map, mrr, recall, precision, success, with or without ``@k``.

    Returns
    -------
    dict
        Value in [0, 1] by metric; all 0 where nothing is relevant or nothing was found.

    Raises
    ------
    UnknownName
        If a metric is not known.
    InputError
        If a cut is no positive number or a score is NaN.

    Examples
    --------
    >>> metric_values({"a": 2, "b": 1}, {"c": 0.9, "b": 0.8, "a": 0.7}, ["mrr", "recall@2", "map"])
    {'mrr': 0.5, 'recall@2': 0.5, 'map': 0.5833333333333333}
    """
    parsed = {metric: parse_metric(metric) for metric in metrics}
    ideal = np.sort([float(grade) for grade in judgments.values() if grade > 0])[::-1]
    gains = np.array([max(judgments.get(document, 0), 0) for document in _ranked(found)], np.float64)
    if not len(ideal) or not len(gains):
        return dict.fromkeys(parsed, 0.0)
    return {metric: float(function(_Ranking(gains[:k], ideal, k))) for metric, (function, k) in parsed.items()}


def _ranked(found: Mapping[str, float]) -> list[str]:
    with np.errstate(over="ignore"):
        scores = np.fromiter(found.values(), np.float64, len(found)).astype(np.float32)
    if np.isnan(scores).any():
        raise InputError(f"The score of document {list(found)[int(np.isnan(scores).argmax())]!r} is NaN.")
    return [document for _, document in sorted(zip(scores.tolist(), found, strict=True), reverse=True)]


def evaluate_run(
    qrels: Qrels,
    run: Hits | Run,
    metrics: Sequence[str] = DEFAULT_METRICS,
    *,
    task: str = "retrieval",
    system: str = "",
    seed: int = 0,
    **facts: Json,
) -> Scores:
    """Score a run query by query, equal to trec_eval's figures.

    Which queries count: every query with at least one relevant document in ``qrels``. One that the run does not answer
    scores 0 (trec_eval's ``-c``). Judged queries without any relevant document cannot be scored and are left out, as
    are queries of the run without judgments; ``facts`` says how many there were of each.

    Parameters
    ----------
    qrels
        Grade by query and document id.
    run
        `Hits`, or score by query and document id.
    metrics
        See `metric_values`.
    task, system, seed, **facts
        Written to the scores.

    Raises
    ------
    EmptyInput
        If no query has a relevant document.
    InputError
        If the run answers none of the judged queries: most likely the ids differ.

    Examples
    --------
    >>> evaluate_run({"q": {"a": 1}, "r": {"b": 1}}, {"q": {"a": 0.3, "b": 0.1}}, ["mrr"]).by_unit("mrr")
    {'q': 1.0, 'r': 0.0}
    """
    found = run.to_run() if isinstance(run, Hits) else run
    judged = [query for query, grades in qrels.items() if any(grade > 0 for grade in grades.values())]
    if not judged:
        raise EmptyInput(f"No query of {task!r} has a relevant document; give judgments with grades above 0.")
    if found and not any(query in found for query in judged):
        raise InputError(
            f"The run of {system or task!r} answers none of the {len(judged)} judged queries "
            f"(it has {next(iter(found))!r}, the judgments have {judged[0]!r}); use the same query ids."
        )
    rows = {query: metric_values(qrels[query], found.get(query, {}), metrics) for query in judged}
    by_metric = {metric: {query: row[metric] for query, row in rows.items()} for metric in dict.fromkeys(metrics)}
    return Scores.of(
        task,
        system,
        by_metric,
        seed=seed,
        unanswered=sum(not found.get(query) for query in judged),
        without_relevant=len(qrels) - len(judged),
        without_judgments=sum(query not in qrels for query in found),
        **facts,
    )
