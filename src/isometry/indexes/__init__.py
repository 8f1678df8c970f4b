"""Vectors to neighbours: exact search, HNSW graphs, and how much of the one the other finds.

>>> import numpy as np
>>> from isometry.indexes import Exact
>>> from isometry.types import Embeddings, Space, id_array
>>> emb = Embeddings(np.eye(3), id_array("abc"), Space("toy", 3))
>>> Exact.of(emb).search(emb.take([1]), k=2).row(0)
[('b', 1.0), ('a', 0.0)]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isometry.lazy import exports

# Public names and their homes; each is imported when first asked for.
_HOMES = {
    "CodeGraph": "code_graph",
    "CodeScan": "code_scan",
    "Coded": "coded",
    "Exact": "exact",
    "HNSW": "hnsw",
    "IVF": "ivf",
    "MultiVectorIndex": "multi_vector",
    "candidate_recall": "candidates",
    "check_recall": "recall",
    "maxsim_scores": "maxsim",
    "ranked_candidates": "candidates",
    "token_candidates": "candidates",
}

if TYPE_CHECKING:
    from isometry.indexes.candidates import candidate_recall, ranked_candidates, token_candidates
    from isometry.indexes.code_graph import CodeGraph
    from isometry.indexes.code_scan import CodeScan
    from isometry.indexes.coded import Coded
    from isometry.indexes.exact import Exact
    from isometry.indexes.hnsw import HNSW
    from isometry.indexes.ivf import IVF
    from isometry.indexes.maxsim import maxsim_scores
    from isometry.indexes.multi_vector import MultiVectorIndex
    from isometry.indexes.recall import check_recall

__all__ = [
    "HNSW",
    "IVF",
    "CodeGraph",
    "CodeScan",
    "Coded",
    "Exact",
    "MultiVectorIndex",
    "candidate_recall",
    "check_recall",
    "maxsim_scores",
    "ranked_candidates",
    "token_candidates",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
