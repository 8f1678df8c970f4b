"""Gates per frequency group and dimension decide which entries stay."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from isometry.errors import InputError
from isometry.modules.embedding_tables.pruned_table import PrunedEmbedding
from isometry.modules.embedding_tables.table import Stage, StageContext, Store


class AutoSrhEmbedding(PrunedEmbedding):
    """Single-shot embedding dimension search (AutoSrh; Kong et al., TKDE 2022).

    Rows are grouped by frequency; each group has a soft gate in [0, 1] per dimension (L1 penalty 1e-5, learning rate
    1e-3, stepping on validation batches). The entries of largest ``|gate * value|`` in the whole table stay, and are
    trained again.

    Parameters
    ----------
    groups
        Frequency groups, of about equal numbers of rows.
    """

    stages: ClassVar[tuple[Stage, ...]] = (Stage("search", second="validation"), Stage("retrain", fresh=True))

    def _build(self, limit: float, groups: int = 6, **options: Any) -> None:
        super()._build(limit, **options)
        if not 1 <= groups <= 256:
            raise InputError(f"groups must lie in [1, 256], got {groups}.")
        ranks = np.empty(self.n, np.int64)
        ranks[np.argsort(-self.freq, kind="stable")] = np.arange(self.n)
        self.gates = nn.Parameter(torch.ones(groups, self.d))
        self.register_buffer("group", torch.from_numpy((ranks * groups // self.n).astype(np.uint8)))

    def second_parameters(self) -> list[nn.Parameter]:
        """The gates, while searching."""
        return [] if self._parameters.get("gates") is None else [self.gates]

    def _look(self, weights: Store, ids: Tensor) -> Tensor:
        rows = super()._look(weights, ids)
        return rows * weights["gates"][weights["group"][ids].long()] if "gates" in weights else rows

    def penalty(self) -> Tensor | None:
        """L1 of the gates, times 1e-5."""
        return 1e-5 * self.gates.abs().sum() if self.second_parameters() else None

    @torch.no_grad()
    def after_step(self) -> None:
        """Clip the gates to [0, 1]."""
        for gates in self.second_parameters():
            gates.clamp_(0, 1)

    def begin_stage(self, stage: Stage, context: StageContext) -> None:
        """Fix the entries before retraining."""
        if stage.name == "retrain":
            self.retrain_under(self.keep_largest(self.effective()))
