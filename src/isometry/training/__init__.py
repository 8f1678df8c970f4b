"""Changing a model: training loops and what they need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isometry.lazy import exports

if TYPE_CHECKING:
    from isometry.training.click_through import ClickLog, ClickRun, ClickTrainer, train_click_model
    from isometry.training.collate import keep_texts
    from isometry.training.late_interaction import MaxSimTraining, train_head, train_late_interaction
    from isometry.training.loop import seeded, train
    from isometry.training.students import apply_head, layer_features, mlp_head

_HOMES = {
    "ClickLog": "click_through",
    "ClickRun": "click_through",
    "ClickTrainer": "click_through",
    "MaxSimTraining": "late_interaction",
    "apply_head": "students",
    "keep_texts": "collate",
    "layer_features": "students",
    "mlp_head": "students",
    "seeded": "loop",
    "train": "loop",
    "train_click_model": "click_through",
    "train_head": "late_interaction",
    "train_late_interaction": "late_interaction",
}

__all__ = [
    "ClickLog",
    "ClickRun",
    "ClickTrainer",
    "MaxSimTraining",
    "apply_head",
    "keep_texts",
    "layer_features",
    "mlp_head",
    "seeded",
    "train",
    "train_click_model",
    "train_head",
    "train_late_interaction",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
