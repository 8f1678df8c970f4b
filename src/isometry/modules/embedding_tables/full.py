"""The uncompressed table, as the yardstick."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from isometry.modules.embedding_tables.table import CompressedEmbedding, Store


class FullEmbedding(CompressedEmbedding):
    """An ordinary embedding table of ``4 n d`` bytes; feasible at budget 1 only."""

    def _build(self, limit: float, **options: Any) -> None:
        size = 4 * self.n * self.d
        self._need(True if limit >= size else None, size)
        self.table = self._normal(self.n, self.d)

    def _look(self, weights: Store, ids: Tensor) -> Tensor:
        return F.embedding(ids, weights["table"])

    def _fit_rows(self, table: Tensor) -> None:
        self.table.copy_(table)
