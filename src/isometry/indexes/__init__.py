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
    "Exact": "exact",
    "HNSW": "hnsw",
    "check_recall": "recall",
}

if TYPE_CHECKING:
    from isometry.indexes.exact import Exact
    from isometry.indexes.hnsw import HNSW
    from isometry.indexes.recall import check_recall

__all__ = ["HNSW", "Exact", "check_recall"]

__getattr__, __dir__ = exports(__name__, _HOMES)
