"""What training minimises: one pure function and its loss class per file.

The function `isometry.objectives.info_nce.info_nce` shares its name with its module and is imported from there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isometry.lazy import exports

if TYPE_CHECKING:
    from isometry.objectives.alignment import Alignment, align
    from isometry.objectives.angle import AnglE, angle_similarity
    from isometry.objectives.cosent import CoSENT
    from isometry.objectives.cosine_regression import CosineRegression
    from isometry.objectives.definitions import EntryCrossEntropy, entry_cross_entropy
    from isometry.objectives.distillation import (
        Distillation,
        candidate_scores,
        listwise_distillation,
        margin_mse,
        score_mse,
        soft_labels,
    )
    from isometry.objectives.espresso import pca_alignment, pca_target
    from isometry.objectives.focal import Focal, focal_weights
    from isometry.objectives.generation import (
        agreement_loss,
        next_token_loss,
        passage_labels,
        preference_loss,
        sequence_log_probs,
    )
    from isometry.objectives.info_nce import Candidates, InfoNCE, Masks, MaskSource, own_entries, score_blocks, settle
    from isometry.objectives.loss import EmbeddingLoss, Teacher
    from isometry.objectives.matryoshka import (
        Matryoshka,
        SizedLoss,
        align_coordinates,
        align_principal,
        align_scores,
        prefix,
    )
    from isometry.objectives.maxsim import MaxSimInfoNCE, maxsim_info_nce, maxsim_scores
    from isometry.objectives.nt_xent import NTXent, group_labels, multi_similarity_pairs
    from isometry.objectives.ranking import Ranking, list_mle, list_net, p_list_mle, ranknet
    from isometry.objectives.sizes import (
        EveryLayer,
        FullOnly,
        Menu,
        Sampled,
        SampledWeighted,
        Size,
        Terms,
        check_menu,
        draw_size,
        size_menu,
    )
    from isometry.objectives.triplet import TripletLoss, triplet_loss
    from isometry.objectives.views import MultiView, multi_view, symmetric_info_nce
    from isometry.objectives.weighted_sum import WeightedSum

_HOMES = {
    "CosineRegression": "cosine_regression",
    "Alignment": "alignment",
    "AnglE": "angle",
    "Candidates": "info_nce",
    "CoSENT": "cosent",
    "Distillation": "distillation",
    "EmbeddingLoss": "loss",
    "EntryCrossEntropy": "definitions",
    "EveryLayer": "sizes",
    "Focal": "focal",
    "FullOnly": "sizes",
    "InfoNCE": "info_nce",
    "MaskSource": "info_nce",
    "Masks": "info_nce",
    "Matryoshka": "matryoshka",
    "MaxSimInfoNCE": "maxsim",
    "Menu": "sizes",
    "MultiView": "views",
    "NTXent": "nt_xent",
    "Ranking": "ranking",
    "Sampled": "sizes",
    "SampledWeighted": "sizes",
    "Size": "sizes",
    "SizedLoss": "matryoshka",
    "Teacher": "loss",
    "Terms": "sizes",
    "TripletLoss": "triplet",
    "WeightedSum": "weighted_sum",
    "agreement_loss": "generation",
    "align": "alignment",
    "align_coordinates": "matryoshka",
    "align_principal": "matryoshka",
    "align_scores": "matryoshka",
    "angle_similarity": "angle",
    "candidate_scores": "distillation",
    "check_menu": "sizes",
    "draw_size": "sizes",
    "entry_cross_entropy": "definitions",
    "focal_weights": "focal",
    "group_labels": "nt_xent",
    "list_mle": "ranking",
    "list_net": "ranking",
    "listwise_distillation": "distillation",
    "margin_mse": "distillation",
    "maxsim_info_nce": "maxsim",
    "maxsim_scores": "maxsim",
    "multi_similarity_pairs": "nt_xent",
    "multi_view": "views",
    "next_token_loss": "generation",
    "own_entries": "info_nce",
    "p_list_mle": "ranking",
    "passage_labels": "generation",
    "pca_alignment": "espresso",
    "pca_target": "espresso",
    "preference_loss": "generation",
    "prefix": "matryoshka",
    "ranknet": "ranking",
    "score_blocks": "info_nce",
    "score_mse": "distillation",
    "sequence_log_probs": "generation",
    "settle": "info_nce",
    "size_menu": "sizes",
    "soft_labels": "distillation",
    "symmetric_info_nce": "views",
    "triplet_loss": "triplet",
}

__all__ = [
    "Alignment",
    "AnglE",
    "Candidates",
    "CoSENT",
    "CosineRegression",
    "Distillation",
    "EmbeddingLoss",
    "EntryCrossEntropy",
    "EveryLayer",
    "Focal",
    "FullOnly",
    "InfoNCE",
    "MaskSource",
    "Masks",
    "Matryoshka",
    "MaxSimInfoNCE",
    "Menu",
    "MultiView",
    "NTXent",
    "Ranking",
    "Sampled",
    "SampledWeighted",
    "Size",
    "SizedLoss",
    "Teacher",
    "Terms",
    "TripletLoss",
    "WeightedSum",
    "agreement_loss",
    "align",
    "align_coordinates",
    "align_principal",
    "align_scores",
    "angle_similarity",
    "candidate_scores",
    "check_menu",
    "draw_size",
    "entry_cross_entropy",
    "focal_weights",
    "group_labels",
    "list_mle",
    "list_net",
    "listwise_distillation",
    "margin_mse",
    "maxsim_info_nce",
    "maxsim_scores",
    "multi_similarity_pairs",
    "multi_view",
    "next_token_loss",
    "own_entries",
    "p_list_mle",
    "passage_labels",
    "pca_alignment",
    "pca_target",
    "preference_loss",
    "prefix",
    "ranknet",
    "score_blocks",
    "score_mse",
    "sequence_log_probs",
    "settle",
    "size_menu",
    "soft_labels",
    "symmetric_info_nce",
    "triplet_loss",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
