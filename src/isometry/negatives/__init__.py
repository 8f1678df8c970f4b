"""Which negatives count: masks of false negatives, guided selection, batches without duplicates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isometry.lazy import exports

if TYPE_CHECKING:
    from isometry.negatives.batch_hard import BatchTriplet, batch_negatives
    from isometry.negatives.consistency import consistent, positive_ranks, removal_quality
    from isometry.negatives.five_term import five_term_loss, hard_negative_loss
    from isometry.negatives.guided import Guide, Guided, doubtful_negatives, gist_loss, guided_mask
    from isometry.negatives.guided_hinge import GuidedTriplet, guided_triplet
    from isometry.negatives.judged import Judge, judge_candidates, select_judged
    from isometry.negatives.margins import Absolute, Ceiling, Margin, Relative
    from isometry.negatives.masks import AnyOf, OwnScores, other_rows, same_label, same_text
    from isometry.negatives.mining import Mined, mine
    from isometry.negatives.mixing import Mixer, mix_lists, mix_pairs
    from isometry.negatives.quality import MaskQuality, check_guide, mask_quality, top1_accuracy
    from isometry.negatives.sampling import DistinctBatches, SourceBatches, WeightedBatches, with_share

_HOMES = {
    "Absolute": "margins",
    "AnyOf": "masks",
    "BatchTriplet": "batch_hard",
    "Ceiling": "margins",
    "DistinctBatches": "sampling",
    "Guide": "guided",
    "Guided": "guided",
    "GuidedTriplet": "guided_hinge",
    "Judge": "judged",
    "Margin": "margins",
    "MaskQuality": "quality",
    "Mined": "mining",
    "Mixer": "mixing",
    "OwnScores": "masks",
    "Relative": "margins",
    "SourceBatches": "sampling",
    "WeightedBatches": "sampling",
    "batch_negatives": "batch_hard",
    "check_guide": "quality",
    "consistent": "consistency",
    "doubtful_negatives": "guided",
    "five_term_loss": "five_term",
    "gist_loss": "guided",
    "guided_mask": "guided",
    "guided_triplet": "guided_hinge",
    "hard_negative_loss": "five_term",
    "judge_candidates": "judged",
    "mask_quality": "quality",
    "mine": "mining",
    "mix_lists": "mixing",
    "mix_pairs": "mixing",
    "other_rows": "masks",
    "positive_ranks": "consistency",
    "removal_quality": "consistency",
    "same_label": "masks",
    "same_text": "masks",
    "select_judged": "judged",
    "top1_accuracy": "quality",
    "with_share": "sampling",
}

__all__ = [
    "Absolute",
    "AnyOf",
    "BatchTriplet",
    "Ceiling",
    "DistinctBatches",
    "Guide",
    "Guided",
    "GuidedTriplet",
    "Judge",
    "Margin",
    "MaskQuality",
    "Mined",
    "Mixer",
    "OwnScores",
    "Relative",
    "SourceBatches",
    "WeightedBatches",
    "batch_negatives",
    "check_guide",
    "consistent",
    "doubtful_negatives",
    "five_term_loss",
    "gist_loss",
    "guided_mask",
    "guided_triplet",
    "hard_negative_loss",
    "judge_candidates",
    "mask_quality",
    "mine",
    "mix_lists",
    "mix_pairs",
    "other_rows",
    "positive_ranks",
    "removal_quality",
    "same_label",
    "same_text",
    "select_judged",
    "top1_accuracy",
    "with_share",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
