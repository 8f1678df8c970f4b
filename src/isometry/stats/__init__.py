"""Error bars: paired permutation tests, bootstrap intervals, corrections for many comparisons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isometry.lazy import exports

if TYPE_CHECKING:
    from isometry.stats.comparison import Comparison, compare, compare_all
    from isometry.stats.multiplicity import benjamini_hochberg, holm
    from isometry.stats.resampling import bootstrap_mean_ci, sign_flip_p

_HOMES = {
    "Comparison": "comparison",
    "benjamini_hochberg": "multiplicity",
    "bootstrap_mean_ci": "resampling",
    "compare": "comparison",
    "compare_all": "comparison",
    "holm": "multiplicity",
    "sign_flip_p": "resampling",
}

__all__ = [
    "Comparison",
    "benjamini_hochberg",
    "bootstrap_mean_ci",
    "compare",
    "compare_all",
    "holm",
    "sign_flip_p",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
