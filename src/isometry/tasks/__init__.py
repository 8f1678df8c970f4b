"""Tasks: vectors and judgments to per-unit scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isometry.lazy import exports

if TYPE_CHECKING:
    from isometry.tasks.class_separation import neighbour_precision
    from isometry.tasks.classification import ClassificationTask, knn_probe, linear_probe
    from isometry.tasks.clustering import ClusteringTask, kmeans_scores
    from isometry.tasks.diversity import (
        alpha_ndcg,
        coverage,
        evaluate_diversity,
        intra_list_distance,
        planted_queries,
        redundancy,
        subtopic_recall,
    )
    from isometry.tasks.filtered import FilteredQueries
    from isometry.tasks.metrics import evaluate_run, metric_values
    from isometry.tasks.mteb import as_mteb
    from isometry.tasks.pair_classification import PairClassificationTask, best_thresholds, precision_at_positives
    from isometry.tasks.perplexity import text_losses
    from isometry.tasks.reranking import RerankingTask
    from isometry.tasks.retrieval import RetrievalTask
    from isometry.tasks.reverse_dictionary import entry_ranks
    from isometry.tasks.sts import STSTask, pearson_units, spearman_units
    from isometry.tasks.synthetic import inverse_cloze, synthetic_retrieval
    from isometry.tasks.two_hop import two_hop_questions

_HOMES = {
    "ClassificationTask": "classification",
    "ClusteringTask": "clustering",
    "FilteredQueries": "filtered",
    "PairClassificationTask": "pair_classification",
    "RerankingTask": "reranking",
    "RetrievalTask": "retrieval",
    "STSTask": "sts",
    "alpha_ndcg": "diversity",
    "as_mteb": "mteb",
    "best_thresholds": "pair_classification",
    "coverage": "diversity",
    "entry_ranks": "reverse_dictionary",
    "evaluate_diversity": "diversity",
    "evaluate_run": "metrics",
    "intra_list_distance": "diversity",
    "inverse_cloze": "synthetic",
    "kmeans_scores": "clustering",
    "knn_probe": "classification",
    "linear_probe": "classification",
    "metric_values": "metrics",
    "neighbour_precision": "class_separation",
    "pearson_units": "sts",
    "planted_queries": "diversity",
    "precision_at_positives": "pair_classification",
    "redundancy": "diversity",
    "spearman_units": "sts",
    "subtopic_recall": "diversity",
    "synthetic_retrieval": "synthetic",
    "text_losses": "perplexity",
    "two_hop_questions": "two_hop",
}

__all__ = [
    "ClassificationTask",
    "ClusteringTask",
    "FilteredQueries",
    "PairClassificationTask",
    "RerankingTask",
    "RetrievalTask",
    "STSTask",
    "alpha_ndcg",
    "as_mteb",
    "best_thresholds",
    "coverage",
    "entry_ranks",
    "evaluate_diversity",
    "evaluate_run",
    "intra_list_distance",
    "inverse_cloze",
    "kmeans_scores",
    "knn_probe",
    "linear_probe",
    "metric_values",
    "neighbour_precision",
    "pearson_units",
    "planted_queries",
    "precision_at_positives",
    "redundancy",
    "spearman_units",
    "subtopic_recall",
    "synthetic_retrieval",
    "text_losses",
    "two_hop_questions",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
