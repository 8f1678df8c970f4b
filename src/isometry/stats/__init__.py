"""Error bars: paired permutation tests, bootstrap intervals, corrections for many comparisons."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"isometry.stats.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'isometry.stats' has no attribute {name!r}")
