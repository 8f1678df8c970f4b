"""Stages over hits: retrieve, match words, fuse, rerank, diversify; composed with ``>>``.

>>> from isometry.ranking import BM25, fuse
>>> from isometry.types import Queries
>>> words = BM25({"a": "a red apple", "b": "green pears", "c": "red red wine"}, k=2)
>>> hits = fuse(words, words, how="rrf")(Queries.of(["red"]))
>>> hits.ids.tolist()
['c', 'a']
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isometry.lazy import exports

# Public names and their homes; each is imported when first asked for.
_HOMES = {
    "BM25": "bm25",
    "Diversify": "diversify",
    "Fuse": "fusion",
    "KeywordSearch": "keyword_search",
    "MaxSim": "maxsim",
    "Pipeline": "stage",
    "Rerank": "rerank",
    "Retrieve": "retrieve",
    "Stage": "stage",
    "explain": "stage",
    "fuse": "fusion",
}

if TYPE_CHECKING:
    from isometry.ranking.bm25 import BM25
    from isometry.ranking.diversify import Diversify
    from isometry.ranking.fusion import Fuse, fuse
    from isometry.ranking.keyword_search import KeywordSearch
    from isometry.ranking.maxsim import MaxSim
    from isometry.ranking.rerank import Rerank
    from isometry.ranking.retrieve import Retrieve
    from isometry.ranking.stage import Pipeline, Stage, explain

__all__ = [
    "BM25",
    "Diversify",
    "Fuse",
    "KeywordSearch",
    "MaxSim",
    "Pipeline",
    "Rerank",
    "Retrieve",
    "Stage",
    "explain",
    "fuse",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
