"""Which negatives count: masks of false negatives, guided selection, batches without duplicates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isometry.lazy import exports

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

__getattr__, __dir__ = exports(__name__, _HOMES)
