"""What training minimises: one pure function and its loss class per file.

The function `isometry.objectives.info_nce.info_nce` shares its name with its module and is imported from there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isometry.lazy import exports

if TYPE_CHECKING:
    from isometry.objectives.info_nce import (
        Candidates,
        InfoNCE,
        Masks,
        MaskSource,
        own_entries,
        score_blocks,
        settle,
    )
    from isometry.objectives.maxsim import MaxSimInfoNCE, maxsim_info_nce, maxsim_scores

_HOMES = {
    "Candidates": "info_nce",
    "InfoNCE": "info_nce",
    "MaskSource": "info_nce",
    "Masks": "info_nce",
    "MaxSimInfoNCE": "maxsim",
    "maxsim_info_nce": "maxsim",
    "maxsim_scores": "maxsim",
    "own_entries": "info_nce",
    "score_blocks": "info_nce",
    "settle": "info_nce",
}

__all__ = [
    "Candidates",
    "InfoNCE",
    "MaskSource",
    "Masks",
    "MaxSimInfoNCE",
    "maxsim_info_nce",
    "maxsim_scores",
    "own_entries",
    "score_blocks",
    "settle",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
