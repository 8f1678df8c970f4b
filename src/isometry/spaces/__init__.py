"""Vectors to vectors: maps with scikit-learn's ``fit`` and ``transform``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isometry.lazy import exports

# Public names and their homes; each is imported when first asked for.
_HOMES = {
    "FDE": "fde",
    "ICA": "whitening",
    "LeastSquaresMap": "least_squares",
    "Whitening": "whitening",
    "agreement": "least_squares",
    "carve": "query_carving",
    "carve_queries": "query_carving",
}

if TYPE_CHECKING:
    from isometry.spaces.fde import FDE
    from isometry.spaces.least_squares import LeastSquaresMap, agreement
    from isometry.spaces.query_carving import carve, carve_queries
    from isometry.spaces.whitening import ICA, Whitening

__all__ = [
    "FDE",
    "ICA",
    "LeastSquaresMap",
    "Whitening",
    "agreement",
    "carve",
    "carve_queries",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
