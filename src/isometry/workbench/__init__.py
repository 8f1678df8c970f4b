"""The main job in a few calls: `index` files into a collection, `Searcher` answers, `evaluate` says how well."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isometry.lazy import exports

if TYPE_CHECKING:
    from isometry.workbench.evaluation import Evaluation, evaluate_collection, evaluate_set
    from isometry.workbench.indexing import IndexReport, index, open_collection
    from isometry.workbench.late_interaction import TokenReport, keep_tokens, token_encoder
    from isometry.workbench.searching import Answer, Searcher

_HOMES = {
    "Answer": "searching",
    "Evaluation": "evaluation",
    "IndexReport": "indexing",
    "Searcher": "searching",
    "TokenReport": "late_interaction",
    "evaluate_collection": "evaluation",
    "evaluate_set": "evaluation",
    "index": "indexing",
    "keep_tokens": "late_interaction",
    "open_collection": "indexing",
    "token_encoder": "late_interaction",
}

__all__ = [
    "Answer",
    "Evaluation",
    "IndexReport",
    "Searcher",
    "TokenReport",
    "evaluate_collection",
    "evaluate_set",
    "index",
    "keep_tokens",
    "open_collection",
    "token_encoder",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
