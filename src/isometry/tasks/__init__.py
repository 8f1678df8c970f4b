"""Tasks: vectors and judgments to per-unit scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isometry.lazy import exports

if TYPE_CHECKING:
    from isometry.tasks.classification import ClassificationTask, knn_probe, linear_probe
    from isometry.tasks.clustering import ClusteringTask, kmeans_scores
    from isometry.tasks.metrics import evaluate_run, metric_values
    from isometry.tasks.mteb import as_mteb
    from isometry.tasks.pair_classification import PairClassificationTask, best_thresholds, precision_at_positives
    from isometry.tasks.reranking import RerankingTask
    from isometry.tasks.retrieval import RetrievalTask
    from isometry.tasks.sts import STSTask, pearson_units, spearman_units
    from isometry.tasks.synthetic import inverse_cloze, synthetic_retrieval

_HOMES = {
    "ClassificationTask": "classification",
    "ClusteringTask": "clustering",
    "PairClassificationTask": "pair_classification",
    "RerankingTask": "reranking",
    "RetrievalTask": "retrieval",
    "STSTask": "sts",
    "as_mteb": "mteb",
    "best_thresholds": "pair_classification",
    "evaluate_run": "metrics",
    "inverse_cloze": "synthetic",
    "kmeans_scores": "clustering",
    "knn_probe": "classification",
    "linear_probe": "classification",
    "metric_values": "metrics",
    "pearson_units": "sts",
    "precision_at_positives": "pair_classification",
    "spearman_units": "sts",
    "synthetic_retrieval": "synthetic",
}

__all__ = [
    "ClassificationTask",
    "ClusteringTask",
    "PairClassificationTask",
    "RerankingTask",
    "RetrievalTask",
    "STSTask",
    "as_mteb",
    "best_thresholds",
    "evaluate_run",
    "inverse_cloze",
    "kmeans_scores",
    "knn_probe",
    "linear_probe",
    "metric_values",
    "pearson_units",
    "precision_at_positives",
    "spearman_units",
    "synthetic_retrieval",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
