"""Whether a result list covers what a query may mean: subtopic metrics, redundancy, coverage."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isometry.errors import InputError
from isometry.types import Embeddings, Hits, Queries, Scores, check_vectors, id_array

Array = NDArray[np.float64]
Subtopics = Mapping[str, Mapping[str, Collection[str]]]
"""By query and document id, the subtopics the document is relevant to."""


def subtopic_recall(found: Sequence[str], subtopics: Mapping[str, Collection[str]], k: int) -> float:
    """S-recall@k: the share of a query's subtopics that the first k documents touch (Zhai, Cohen and Lafferty 2003).

    Parameters
    ----------
    found
        Document ids, best first.
    subtopics
        Subtopics of each relevant document.
    k
        Depth, at least 1.

    Examples
    --------
    >>> subtopic_recall(["a", "b", "c"], {"a": {"x"}, "b": {"x"}, "c": {"y"}}, 2)
    0.5
    """
    everything = {t for topics in subtopics.values() for t in topics}
    if not everything:
        return 0.0
    return len({t for d in found[: _depth(k)] for t in subtopics.get(d, ())}) / len(everything)


def alpha_ndcg(found: Sequence[str], subtopics: Mapping[str, Collection[str]], k: int, *, alpha: float = 0.5) -> float:
    """alpha-nDCG@k: nDCG in which a subtopic seen r times before gains (1 - alpha)^r (Clarke et al., SIGIR 2008).

    The ideal ranking is built greedily, as the paper does, since the best one is NP-hard. Arguments as for
    `subtopic_recall`; alpha = 0 counts every relevant subtopic alike.
    """
    if not 0 <= alpha < 1:
        raise InputError(f"alpha must lie in [0, 1), got {alpha!r}.")
    got = _alpha_gains(list(found[: _depth(k)]), subtopics, alpha)
    best = _alpha_gains(_ideal(subtopics, k, alpha), subtopics, alpha)
    ideal = _dcg(best)
    return _dcg(got) / ideal if ideal > 0 else 0.0


def _alpha_gains(ranking: Sequence[str], subtopics: Mapping[str, Collection[str]], alpha: float) -> list[float]:
    seen: dict[str, int] = {}
    gains = []
    for document in ranking:
        topics = set(subtopics.get(document, ()))
        gains.append(float(sum((1 - alpha) ** seen.get(t, 0) for t in topics)))
        for t in topics:
            seen[t] = seen.get(t, 0) + 1
    return gains


def _ideal(subtopics: Mapping[str, Collection[str]], k: int, alpha: float) -> list[str]:
    left, ranking = sorted(subtopics), list[str]()
    seen: dict[str, int] = {}
    while left and len(ranking) < k:
        worth = [sum((1 - alpha) ** seen.get(t, 0) for t in set(subtopics[d])) for d in left]
        best = left.pop(int(np.argmax(worth)))
        ranking.append(best)
        for t in set(subtopics[best]):
            seen[t] = seen.get(t, 0) + 1
    return ranking


def _dcg(gains: Sequence[float]) -> float:
    return float((np.asarray(gains) / np.log2(np.arange(2, len(gains) + 2))).sum())


def redundancy(vectors: Any) -> float:
    """Mean cosine between two different rows of ``[k, d]``; 0 for fewer than two.

    >>> redundancy([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    0.3333333333333333
    """
    unit = _unit(vectors)
    if len(unit) < 2:
        return 0.0
    total = unit.sum(axis=0)
    return float((total @ total - np.einsum("ij,ij->", unit, unit)) / (len(unit) * (len(unit) - 1)))


def intra_list_distance(vectors: Any) -> float:
    """ILD: mean cosine distance between two different rows, 1 - `redundancy`; 0 for fewer than two.

    Ziegler et al., Improving Recommendation Lists Through Topic Diversification, WWW 2005.
    """
    return 1 - redundancy(vectors) if len(vectors) > 1 else 0.0


def coverage(chosen: Any, pool: Any) -> float:
    """How well ``chosen`` ``[k, d]`` stands for ``pool`` ``[n, d]``: mean over the pool of the largest max(0, cosine).

    With the chosen rows taken from the pool this is facility location Cov(S) / Cov(pool), in [0, 1].
    """
    if not len(pool) or not len(chosen):
        return 0.0
    return float(np.maximum(_unit(pool) @ _unit(chosen).T, 0).max(axis=1).mean())


def planted_queries(
    emb: Embeddings, labels: Sequence[Hashable], count: int, *, wanted: int = 4, seed: int = 0
) -> tuple[Queries, dict[str, dict[str, set[str]]]]:
    """Ambiguous queries with known subtopics: each is the mean of the centres of ``wanted`` labels drawn at random.

    Parameters
    ----------
    emb
        Unit vectors ``[n, d]``.
    labels
        Topic of each, ``[n]``.
    count
        How many queries; their ids are ``"seed:number"``.
    wanted
        Topics of a query.
    seed
        Of the draws.

    Returns
    -------
    tuple
        The queries with their embeddings, and their `Subtopics`.
    """
    names = sorted(set(labels), key=str)
    if len(labels) != len(emb) or not 1 <= wanted <= len(names):
        raise InputError(f"{wanted} topics cannot be drawn from {len(names)}, with {len(labels)} labels of {len(emb)}.")
    centres = np.stack([emb.vectors[[label == name for label in labels]].mean(axis=0) for name in names])
    rng = np.random.default_rng(seed)
    drawn = [rng.choice(len(names), wanted, replace=False) for _ in range(count)]
    ids = id_array(f"{seed}:{i}" for i in range(count))
    between = _unit(np.stack([centres[topics].mean(axis=0) for topics in drawn])).astype(np.float32)
    members: dict[str, list[str]] = {}
    for identity, label in zip(emb.ids.tolist(), labels, strict=True):
        members.setdefault(str(label), []).append(identity)
    subtopics = {
        query: {i: {str(names[t])} for t in topics for i in members[str(names[t])]}
        for query, topics in zip(ids.tolist(), drawn, strict=True)
    }
    return Queries(ids, [""] * count, Embeddings(between, ids, emb.space, role="query")), subtopics


def evaluate_diversity(
    hits: Hits,
    subtopics: Subtopics,
    *,
    k: int = 10,
    alpha: float = 0.5,
    vectors: Mapping[str, Any] | None = None,
    queries: Embeddings | None = None,
    task: str = "diversity",
    system: str = "",
) -> Scores:
    """Score hits query by query by subtopic recall and alpha-nDCG, with vectors also by redundancy and ILD.

    Parameters
    ----------
    hits
        Rankings; queries without subtopics are left out.
    subtopics
        Judged apart from the vectors that selected the hits, or the figure flatters them.
    k, alpha
        Depth; see `alpha_ndcg`.
    vectors
        Vector by document id.
    queries
        Query embeddings, to add ``relevance@k``: the mean cosine to the query.
    task, system
        Written to the scores.
    """
    names = (f"s-recall@{k}", f"all-subtopics@{k}", f"alpha-ndcg@{k}")
    values: dict[str, dict[str, float]] = {name: {} for name in names}
    for query, row in hits:
        if not (judged := subtopics.get(query)):
            continue
        found = [document for document, _ in row]
        recall = subtopic_recall(found, judged, k)
        gain = alpha_ndcg(found, judged, k, alpha=alpha)
        for name, value in zip(names, (recall, float(recall == 1), gain), strict=True):
            values[name][query] = value
        if vectors is not None:
            x = np.asarray([vectors[document] for document in found[:k]], np.float64)
            values.setdefault(f"redundancy@{k}", {})[query] = redundancy(x)
            values.setdefault(f"ild@{k}", {})[query] = intra_list_distance(x)
            if queries is not None:
                asked = queries.vectors[queries.ids.tolist().index(query)]
                values.setdefault(f"relevance@{k}", {})[query] = float((_unit(x) @ _unit([asked])[0]).mean())
    if not values[names[0]]:
        raise InputError(f"None of the {len(hits)} queries has subtopics; use the same query ids in both.")
    return Scores.of(task, system, values)


def _unit(vectors: Any) -> Array:
    x = np.asarray(vectors, np.float64)
    x = check_vectors(x.reshape(0, 1) if not x.size else x).astype(np.float64)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(np.divide(x, norms, out=np.zeros_like(x), where=norms > 0), np.float64)


def _depth(k: int) -> int:
    if k < 1:
        raise InputError(f"The depth k must be at least 1, got {k}.")
    return k
