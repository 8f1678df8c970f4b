"""Learned soft thresholds prune entries while they train."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from isometry.modules.embedding_tables.pruned_table import PrunedEmbedding
from isometry.modules.embedding_tables.table import Stage, StageContext, Store


class SoftThresholdEmbedding(PrunedEmbedding):
    """Plug-in embedding pruning (PEP; Liu et al., ICLR 2021): ``sign(x) max(0, |x| - sigmoid(s))``.

    One threshold s per dimension, learned with the values; then the largest entries that the budget allows are trained
    again from their first values.

    Parameters
    ----------
    start
        First value of s.
    """

    stages: ClassVar[tuple[Stage, ...]] = (Stage("search"), Stage("retrain", fresh=True))

    def _build(self, limit: float, start: float = -5.0, **options: Any) -> None:
        super()._build(limit, **options)
        self.thresholds = nn.Parameter(torch.full((self.d,), start))

    def _look(self, weights: Store, ids: Tensor) -> Tensor:
        rows = super()._look(weights, ids)
        if "thresholds" not in weights:
            return rows
        return rows.sign() * (rows.abs() - weights["thresholds"].sigmoid()).relu()

    def begin_stage(self, stage: Stage, context: StageContext) -> None:
        """Fix the entries before retraining."""
        if stage.name == "retrain":
            self.retrain_under(self.keep_largest(self.effective()))
