"""Changing a model: training loops and what they need."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isometry.training.collate import keep_texts
    from isometry.training.loop import seeded, train
    from isometry.training.students import apply_head, layer_features, mlp_head

_HOMES = {
    "apply_head": "students",
    "keep_texts": "collate",
    "layer_features": "students",
    "mlp_head": "students",
    "seeded": "loop",
    "train": "loop",
}

__all__ = ["apply_head", "keep_texts", "layer_features", "mlp_head", "seeded", "train"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"isometry.training.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'isometry.training' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
