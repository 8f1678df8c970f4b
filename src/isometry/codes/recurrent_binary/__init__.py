"""Recurrent binarisation of embeddings (BEBR): network, losses, training, the code, and search over codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isometry.lazy import exports

_HOMES: dict[str, str] = {
    "Binariser": "network",
    "CodeQueue": "training",
    "CodeSearch": "search",
    "Old": "training",
    "RecurrentBinaryCode": "transform",
    "Training": "training",
    "both_ways": "losses",
    "hard_info_nce": "losses",
    "similarity_distillation": "losses",
    "straight_through_sign": "network",
    "train_binariser": "training",
}

if TYPE_CHECKING:
    from isometry.codes.recurrent_binary.losses import both_ways, hard_info_nce, similarity_distillation
    from isometry.codes.recurrent_binary.network import Binariser, straight_through_sign
    from isometry.codes.recurrent_binary.search import CodeSearch
    from isometry.codes.recurrent_binary.training import CodeQueue, Old, Training, train_binariser
    from isometry.codes.recurrent_binary.transform import RecurrentBinaryCode

__all__ = [
    "Binariser",
    "CodeQueue",
    "CodeSearch",
    "Old",
    "RecurrentBinaryCode",
    "Training",
    "both_ways",
    "hard_info_nce",
    "similarity_distillation",
    "straight_through_sign",
    "train_binariser",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
