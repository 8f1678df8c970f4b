"""Changing a model: training loops and what they need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isometry.lazy import exports

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

__getattr__, __dir__ = exports(__name__, _HOMES)
