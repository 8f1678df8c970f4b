"""What is wrong, or right, with these vectors: arrays in, numbers out.

inspect_vectors     every figure below at once, with findings in plain language; `write_html` draws them
isotropy            mean cosine, uniformity, alignment, effective rank, participation ratio, IsoScore, partition
intrinsic_dimension pointwise and overall: maximum likelihood, TwoNN; `inspect_recall`: what it means for a graph index
limit               can single vectors of some width rank these judgments: sign rank, free embeddings, LIMIT
hubness, duplicates, length, outliers
depth, rank_sum     how central a text is in a corpus, and whether two corpora differ; `energy` as companion
neighbours, sphere  exact neighbours and distances, shared by all
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isometry.lazy import exports

# Public names and their homes; each is imported when first asked for. No name is that of a module.
_HOMES = {
    "CorpusComparison": "rank_sum",
    "DepthProfile": "depth",
    "DepthTest": "rank_sum",
    "Duplicates": "duplicates",
    "EnergyTest": "energy",
    "Finding": "inspection",
    "Hubness": "hubness",
    "Inspection": "inspection",
    "LengthEffect": "length",
    "RecallForecast": "inspect_recall",
    "TensorChange": "weight_difference",
    "WeightDifference": "weight_difference",
    "alignment": "isotropy",
    "angular_depth": "depth",
    "cluster_depth": "depth",
    "compare_corpora": "rank_sum",
    "compare_weights": "weight_difference",
    "compress_vectors": "compression_study",
    "contrast_by_dimension": "concentration",
    "cosine_depth": "depth",
    "depth_profile": "depth",
    "depth_test": "rank_sum",
    "effective_rank": "isotropy",
    "energy_test": "energy",
    "exact_duplicates": "duplicates",
    "find_outliers": "outliers",
    "forecast_recall": "inspect_recall",
    "inspect_vectors": "inspect",
    "isoscore": "isotropy",
    "k_occurrence": "hubness",
    "knn": "neighbours",
    "length_effect": "length",
    "lid": "intrinsic_dimension",
    "lid_of_distances": "intrinsic_dimension",
    "mean_cosine": "isotropy",
    "mean_knn_distance": "outliers",
    "measure_recall": "inspect_recall",
    "mle_dimension": "intrinsic_dimension",
    "near_duplicates": "duplicates",
    "outlier_scores": "outliers",
    "participation_ratio": "isotropy",
    "partition_isotropy": "isotropy",
    "relative_contrast": "concentration",
    "select_deepest": "depth",
    "spectrum": "isotropy",
    "two_nn": "intrinsic_dimension",
    "uniformity": "isotropy",
    "write_html": "report",
}

if TYPE_CHECKING:
    from isometry.diagnostics.compression_study import compress_vectors
    from isometry.diagnostics.concentration import contrast_by_dimension, relative_contrast
    from isometry.diagnostics.depth import (
        DepthProfile,
        angular_depth,
        cluster_depth,
        cosine_depth,
        depth_profile,
        select_deepest,
    )
    from isometry.diagnostics.duplicates import Duplicates, exact_duplicates, near_duplicates
    from isometry.diagnostics.energy import EnergyTest, energy_test
    from isometry.diagnostics.hubness import Hubness, k_occurrence
    from isometry.diagnostics.inspect import inspect_vectors
    from isometry.diagnostics.inspect_recall import RecallForecast, forecast_recall, measure_recall
    from isometry.diagnostics.inspection import Finding, Inspection
    from isometry.diagnostics.intrinsic_dimension import lid, lid_of_distances, mle_dimension, two_nn
    from isometry.diagnostics.isotropy import (
        alignment,
        effective_rank,
        isoscore,
        mean_cosine,
        participation_ratio,
        partition_isotropy,
        spectrum,
        uniformity,
    )
    from isometry.diagnostics.length import LengthEffect, length_effect
    from isometry.diagnostics.neighbours import knn
    from isometry.diagnostics.outliers import find_outliers, mean_knn_distance, outlier_scores
    from isometry.diagnostics.rank_sum import CorpusComparison, DepthTest, compare_corpora, depth_test
    from isometry.diagnostics.report import write_html
    from isometry.diagnostics.weight_difference import TensorChange, WeightDifference, compare_weights

__all__ = [
    "CorpusComparison",
    "DepthProfile",
    "DepthTest",
    "Duplicates",
    "EnergyTest",
    "Finding",
    "Hubness",
    "Inspection",
    "LengthEffect",
    "RecallForecast",
    "TensorChange",
    "WeightDifference",
    "alignment",
    "angular_depth",
    "cluster_depth",
    "compare_corpora",
    "compare_weights",
    "compress_vectors",
    "contrast_by_dimension",
    "cosine_depth",
    "depth_profile",
    "depth_test",
    "effective_rank",
    "energy_test",
    "exact_duplicates",
    "find_outliers",
    "forecast_recall",
    "inspect_vectors",
    "isoscore",
    "k_occurrence",
    "knn",
    "length_effect",
    "lid",
    "lid_of_distances",
    "mean_cosine",
    "mean_knn_distance",
    "measure_recall",
    "mle_dimension",
    "near_duplicates",
    "outlier_scores",
    "participation_ratio",
    "partition_isotropy",
    "relative_contrast",
    "select_deepest",
    "spectrum",
    "two_nn",
    "uniformity",
    "write_html",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
