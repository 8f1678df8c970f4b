"""Rows shared by the remainder of the id: the naive baseline."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from isometry.modules.embedding_tables.table import CompressedEmbedding, Store, bucket_means
from isometry.numerics.budget import largest_within


class ModuloHashEmbedding(CompressedEmbedding):
    """Hashing trick: row ``id mod m`` of m rows (Weinberger et al. 2009)."""

    def _build(self, limit: float, **options: Any) -> None:
        rows = self._need(largest_within(lambda m: 4 * m * self.d, 1, self.n, limit), 4 * self.d)
        self.config["rows"] = rows
        self.table = self._normal(rows, self.d)

    def _look(self, weights: Store, ids: Tensor) -> Tensor:
        return F.embedding(ids % self.config["rows"], weights["table"])

    def _fit_rows(self, table: Tensor) -> None:
        rows = self.config["rows"]
        self.table.copy_(bucket_means(table, self.rows_of_all() % rows, rows))
