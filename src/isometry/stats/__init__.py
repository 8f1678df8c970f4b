"""Error bars: paired permutation tests, bootstrap intervals, corrections for many comparisons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isometry.lazy import exports

if TYPE_CHECKING:
    from isometry.stats.borda import Standing, borda_points, standings
    from isometry.stats.comparison import Comparison, compare, compare_all
    from isometry.stats.multiplicity import benjamini_hochberg, holm
    from isometry.stats.resampling import bootstrap_mean_ci, sign_flip_p
    from isometry.stats.wilcoxon import PairTest, SignedRank, pairwise_signed_rank, signed_rank

_HOMES = {
    "Comparison": "comparison",
    "PairTest": "wilcoxon",
    "SignedRank": "wilcoxon",
    "Standing": "borda",
    "benjamini_hochberg": "multiplicity",
    "bootstrap_mean_ci": "resampling",
    "borda_points": "borda",
    "compare": "comparison",
    "compare_all": "comparison",
    "holm": "multiplicity",
    "pairwise_signed_rank": "wilcoxon",
    "sign_flip_p": "resampling",
    "signed_rank": "wilcoxon",
    "standings": "borda",
}

__all__ = [
    "Comparison",
    "PairTest",
    "SignedRank",
    "Standing",
    "benjamini_hochberg",
    "bootstrap_mean_ci",
    "borda_points",
    "compare",
    "compare_all",
    "holm",
    "pairwise_signed_rank",
    "sign_flip_p",
    "signed_rank",
    "standings",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
