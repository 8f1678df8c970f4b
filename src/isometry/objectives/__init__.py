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

__all__ = ["Candidates", "InfoNCE", "MaskSource", "Masks", "own_entries", "score_blocks", "settle"]

__getattr__, __dir__ = exports(__name__, dict.fromkeys(__all__, "info_nce"))
