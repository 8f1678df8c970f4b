"""Torch modules between tokens and a vector, and compressed embedding tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isometry.lazy import exports

# Public names and their homes; each is imported when first asked for.
_HOMES: dict[str, str] = {}

if TYPE_CHECKING:
    pass

__all__: list[str] = []

__getattr__, __dir__ = exports(__name__, _HOMES)
