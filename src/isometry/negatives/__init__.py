"""Which negatives count: masks of false negatives, guided selection, batches without duplicates."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isometry.negatives.guided import Guide, Guided, doubtful_negatives, gist_loss, guided_mask
    from isometry.negatives.masks import AnyOf, OwnScores, same_label, same_text
    from isometry.negatives.quality import MaskQuality, check_guide, mask_quality, top1_accuracy
    from isometry.negatives.sampling import DistinctBatches

_HOMES = {
    "AnyOf": "masks",
    "DistinctBatches": "sampling",
    "Guide": "guided",
    "Guided": "guided",
    "MaskQuality": "quality",
    "OwnScores": "masks",
    "check_guide": "quality",
    "doubtful_negatives": "guided",
    "gist_loss": "guided",
    "guided_mask": "guided",
    "mask_quality": "quality",
    "same_label": "masks",
    "same_text": "masks",
    "top1_accuracy": "quality",
}

__all__ = [
    "AnyOf",
    "DistinctBatches",
    "Guide",
    "Guided",
    "MaskQuality",
    "OwnScores",
    "check_guide",
    "doubtful_negatives",
    "gist_loss",
    "guided_mask",
    "mask_quality",
    "same_label",
    "same_text",
    "top1_accuracy",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"isometry.negatives.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'isometry.negatives' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
