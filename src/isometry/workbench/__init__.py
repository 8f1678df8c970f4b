"""The main job in a few calls: `index` files into a collection, `Searcher` answers, `evaluate` says how well."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isometry.workbench.evaluation import Evaluation, evaluate_collection, evaluate_set
    from isometry.workbench.indexing import IndexReport, index, open_collection
    from isometry.workbench.searching import Answer, Searcher

_HOMES = {
    "Answer": "searching",
    "Evaluation": "evaluation",
    "IndexReport": "indexing",
    "Searcher": "searching",
    "evaluate_collection": "evaluation",
    "evaluate_set": "evaluation",
    "index": "indexing",
    "open_collection": "indexing",
}

__all__ = [
    "Answer",
    "Evaluation",
    "IndexReport",
    "Searcher",
    "evaluate_collection",
    "evaluate_set",
    "index",
    "open_collection",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"isometry.workbench.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'isometry.workbench' has no attribute {name!r}")
