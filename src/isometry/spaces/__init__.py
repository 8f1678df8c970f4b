"""Vectors to vectors: maps with scikit-learn's ``fit`` and ``transform``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isometry.lazy import exports

# Public names and their homes; each is imported when first asked for.
_HOMES = {
    "FDE": "fde",
    "carve": "query_carving",
    "carve_queries": "query_carving",
}

if TYPE_CHECKING:
    from isometry.spaces.fde import FDE
    from isometry.spaces.query_carving import carve, carve_queries

__all__ = ["FDE", "carve", "carve_queries"]

__getattr__, __dir__ = exports(__name__, _HOMES)
