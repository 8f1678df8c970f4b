"""What single vectors of a given width can rank: sign rank, free embeddings, and the judgments that ask for too much.

patterns         relevance as pairs; judgments of LIMIT: dense, random, cycle, disjoint
witness          explicit vectors of 2k dimensions that return every k-subset
margins          by how much a ranking holds, and what that costs in dimensions
free_embeddings  vectors trained on the judgments themselves; `critical_n` finds where that stops working
sign_rank        lower and upper bounds of the width that given judgments need
density          how much queries share their answers
corpus           texts that carry a given relevance, from a template
capacity         all of it for the user's own judgments
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isometry.lazy import exports

_HOMES = {
    "Capacity": "capacity",
    "CriticalN": "critical_n",
    "FreeEmbeddings": "free_embeddings",
    "QueryGraph": "density",
    "RankBounds": "sign_rank",
    "Relevance": "patterns",
    "TemplateCorpus": "corpus",
    "all_subsets": "patterns",
    "find_critical_n": "critical_n",
    "forster_bound": "sign_rank",
    "linear_separation": "sign_rank",
    "make_corpus": "corpus",
    "moment_curve": "witness",
    "packing_bound": "margins",
    "query_graph": "density",
    "radon_bound": "sign_rank",
    "rank_bounds": "sign_rank",
    "rank_capacity": "capacity",
    "ranking_margins": "margins",
    "relevance_pattern": "patterns",
    "shattering_bound": "sign_rank",
    "strict_accuracy": "margins",
    "subset_queries": "witness",
    "train_free_embeddings": "free_embeddings",
}

if TYPE_CHECKING:
    from isometry.diagnostics.limit.capacity import Capacity, rank_capacity
    from isometry.diagnostics.limit.corpus import TemplateCorpus, make_corpus
    from isometry.diagnostics.limit.critical_n import CriticalN, find_critical_n
    from isometry.diagnostics.limit.density import QueryGraph, query_graph
    from isometry.diagnostics.limit.free_embeddings import FreeEmbeddings, train_free_embeddings
    from isometry.diagnostics.limit.margins import packing_bound, ranking_margins, strict_accuracy
    from isometry.diagnostics.limit.patterns import Relevance, all_subsets, relevance_pattern
    from isometry.diagnostics.limit.sign_rank import (
        RankBounds,
        forster_bound,
        linear_separation,
        radon_bound,
        rank_bounds,
        shattering_bound,
    )
    from isometry.diagnostics.limit.witness import moment_curve, subset_queries

__all__ = [
    "Capacity",
    "CriticalN",
    "FreeEmbeddings",
    "QueryGraph",
    "RankBounds",
    "Relevance",
    "TemplateCorpus",
    "all_subsets",
    "find_critical_n",
    "forster_bound",
    "linear_separation",
    "make_corpus",
    "moment_curve",
    "packing_bound",
    "query_graph",
    "radon_bound",
    "rank_bounds",
    "rank_capacity",
    "ranking_margins",
    "relevance_pattern",
    "shattering_bound",
    "strict_accuracy",
    "subset_queries",
    "train_free_embeddings",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
