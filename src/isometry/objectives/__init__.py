"""What training minimises: one pure function and its loss class per file.

The function `isometry.objectives.info_nce.info_nce` shares its name with its module and is imported from there.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

_HOMES = dict.fromkeys(__all__, "isometry.objectives.info_nce")


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'isometry.objectives' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
