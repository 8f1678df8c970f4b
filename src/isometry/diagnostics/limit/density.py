"""How much queries share their answers: the graph that makes judgments hard for single vectors."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from isometry.diagnostics.limit.patterns import Relevance


@dataclass(frozen=True)
class QueryGraph:
    """Statistics of the graph that joins two queries if they share a relevant document.

    Parameters
    ----------
    queries, documents, pairs
        Judged queries, documents relevant to any, relevant pairs.
    density
        Edges over possible edges, in [0, 1].
    mean_strength, max_strength
        Sum over a query's neighbours of the Jaccard similarity of their answers: mean and maximum over queries.
    most_answers
        Relevant documents of the query that has most.
    """

    queries: int
    documents: int
    pairs: int
    density: float
    mean_strength: float
    max_strength: float
    most_answers: int

    def to_dict(self) -> dict[str, float]:
        """Return the JSON form."""
        return asdict(self)


def query_graph(relevance: Relevance) -> QueryGraph:
    """Density and strength of the query graph (arXiv:2508.21038, section 5.4).

    Examples
    --------
    >>> from isometry.diagnostics.limit.patterns import relevance_pattern
    >>> dense = query_graph(relevance_pattern("dense", 1000))
    >>> round(dense.density, 3), round(dense.mean_strength, 1)
    (0.085, 28.5)
    """
    strength, edges = _strengths(relevance)
    m = relevance.shape[0]
    return QueryGraph(
        queries=m,
        documents=len(np.unique(relevance.documents)),
        pairs=len(relevance.queries),
        density=edges / (m * (m - 1) / 2) if m > 1 else 0.0,
        mean_strength=float(strength.mean()),
        max_strength=float(strength.max()),
        most_answers=int(relevance.counts.max()),
    )


def _strengths(relevance: Relevance) -> tuple[np.ndarray, int]:
    """Sum of Jaccard similarities of each query with all others, float64 ``[m]``, and the number of edges."""
    from scipy.sparse import csr_matrix

    ones = np.ones(len(relevance.queries), np.int64)
    matrix = csr_matrix((ones, (relevance.queries, relevance.documents)), shape=relevance.shape)
    shared = (matrix @ matrix.T).tocoo()
    rows, columns = shared.row[shared.row != shared.col], shared.col[shared.row != shared.col]
    common, counts = shared.data[shared.row != shared.col], relevance.counts
    jaccard = common / (counts[rows] + counts[columns] - common)
    return np.bincount(rows, jaccard, minlength=relevance.shape[0]), len(rows) // 2


def densest_queries(relevance: Relevance, count: int) -> np.ndarray:
    """Rows of the ``count`` queries of greatest strength, rising; all of them where there are no more."""
    strength, _ = _strengths(relevance)
    return np.sort(np.argsort(-strength, kind="stable")[:count])
