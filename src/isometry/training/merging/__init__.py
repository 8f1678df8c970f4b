"""Merging models that share one start: averages, spherical interpolation, task vectors, and the barrier between them.

average, merge_by_slerp, slerp, task_arithmetic    state dicts to a state dict
merge_models                                       the same for ``SentenceTransformer`` models, with more checks
loss_barrier                                       whether two sets of weights may be merged at all
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isometry.lazy import exports

if TYPE_CHECKING:
    from isometry.training.merging.barrier import Barrier, loss_barrier
    from isometry.training.merging.models import merge_models
    from isometry.training.merging.states import average, merge_by_slerp, slerp, task_arithmetic

_HOMES = {
    "Barrier": "barrier",
    "average": "states",
    "loss_barrier": "barrier",
    "merge_by_slerp": "states",
    "merge_models": "models",
    "slerp": "states",
    "task_arithmetic": "states",
}

__all__ = ["Barrier", "average", "loss_barrier", "merge_by_slerp", "merge_models", "slerp", "task_arithmetic"]

__getattr__, __dir__ = exports(__name__, _HOMES)
