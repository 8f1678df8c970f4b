"""Stages over hits: retrieve, match words, fuse, rerank, expand along a graph, diversify; composed with ``>>``.

>>> from isometry.ranking import BM25, fuse
>>> from isometry.types import Queries
>>> words = BM25({"a": "a red apple", "b": "green pears", "c": "red red wine"}, k=2)
>>> hits = fuse(words, words, how="rrf")(Queries.of(["red"]))
>>> hits.ids.tolist()
['c', 'a']
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isometry.lazy import exports

# Public names and their homes; each is imported when first asked for.
_HOMES = {
    "BM25": "bm25",
    "CandidateLabels": "candidate_labels",
    "ClusterReward": "submodular",
    "Compress": "compress",
    "CrossEncoderScorer": "cross_encoder",
    "Dispersion": "submodular",
    "Diversify": "diversify",
    "Edge": "neighbour_graph",
    "EmbeddingListwise": "embedding_listwise",
    "Expand": "expand",
    "FacilityLocation": "submodular",
    "Feedback": "feedback",
    "Fuse": "fusion",
    "KeywordSearch": "keyword_search",
    "ListwisePrompt": "embedding_listwise",
    "LogDeterminant": "determinantal",
    "MaxSim": "maxsim",
    "Mixture": "submodular",
    "Modular": "submodular",
    "NeighbourGraph": "neighbour_graph",
    "Objective": "compress",
    "Pipeline": "stage",
    "Provenance": "provenance",
    "Rerank": "rerank",
    "Retrieve": "retrieve",
    "SaturatedCoverage": "submodular",
    "SetFunction": "submodular",
    "Stage": "stage",
    "Surroundings": "neighbour_graph",
    "Walk": "expand",
    "YesNo": "yes_no",
    "best_paths": "pagerank",
    "best_subset": "submodular",
    "dpp_map": "determinantal",
    "exact_pagerank": "pagerank",
    "explain": "stage",
    "fuse": "fusion",
    "greedy": "submodular",
    "knn_edges": "neighbour_graph",
    "label_candidates": "candidate_labels",
    "links_of": "neighbour_graph",
    "mention_edges": "mentions",
    "personalised_pagerank": "pagerank",
    "push_pagerank": "pagerank",
    "read_edges": "neighbour_graph",
    "trace": "provenance",
}

if TYPE_CHECKING:
    from isometry.ranking.bm25 import BM25
    from isometry.ranking.candidate_labels import CandidateLabels, label_candidates
    from isometry.ranking.compress import Compress, Objective
    from isometry.ranking.cross_encoder import CrossEncoderScorer
    from isometry.ranking.determinantal import LogDeterminant, dpp_map
    from isometry.ranking.diversify import Diversify
    from isometry.ranking.embedding_listwise import EmbeddingListwise, ListwisePrompt
    from isometry.ranking.expand import Expand, Walk
    from isometry.ranking.feedback import Feedback
    from isometry.ranking.fusion import Fuse, fuse
    from isometry.ranking.keyword_search import KeywordSearch
    from isometry.ranking.maxsim import MaxSim
    from isometry.ranking.mentions import mention_edges
    from isometry.ranking.neighbour_graph import Edge, NeighbourGraph, Surroundings, knn_edges, links_of, read_edges
    from isometry.ranking.pagerank import best_paths, exact_pagerank, personalised_pagerank, push_pagerank
    from isometry.ranking.provenance import Provenance, trace
    from isometry.ranking.rerank import Rerank
    from isometry.ranking.retrieve import Retrieve
    from isometry.ranking.stage import Pipeline, Stage, explain
    from isometry.ranking.submodular import (
        ClusterReward,
        Dispersion,
        FacilityLocation,
        Mixture,
        Modular,
        SaturatedCoverage,
        SetFunction,
        best_subset,
        greedy,
    )
    from isometry.ranking.yes_no import YesNo

__all__ = [
    "BM25",
    "CandidateLabels",
    "ClusterReward",
    "Compress",
    "CrossEncoderScorer",
    "Dispersion",
    "Diversify",
    "Edge",
    "EmbeddingListwise",
    "Expand",
    "FacilityLocation",
    "Feedback",
    "Fuse",
    "KeywordSearch",
    "ListwisePrompt",
    "LogDeterminant",
    "MaxSim",
    "Mixture",
    "Modular",
    "NeighbourGraph",
    "Objective",
    "Pipeline",
    "Provenance",
    "Rerank",
    "Retrieve",
    "SaturatedCoverage",
    "SetFunction",
    "Stage",
    "Surroundings",
    "Walk",
    "YesNo",
    "best_paths",
    "best_subset",
    "dpp_map",
    "exact_pagerank",
    "explain",
    "fuse",
    "greedy",
    "knn_edges",
    "label_candidates",
    "links_of",
    "mention_edges",
    "personalised_pagerank",
    "push_pagerank",
    "read_edges",
    "trace",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
