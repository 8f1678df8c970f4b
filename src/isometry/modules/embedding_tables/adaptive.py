"""Own rows for frequent ids, shared rows for the others."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from isometry.errors import InputError
from isometry.modules.embedding_tables.table import CompressedEmbedding, Store, bucket_means, positions
from isometry.numerics.budget import largest_within


class AdaptiveEmbedding(CompressedEmbedding):
    """Adaptive embedding (AdaptEmb; Deng et al., ISCAS 2021): the rare ids share rows ``id mod m``.

    Which ids are frequent is kept as their sorted list (4 bytes each), not as a map over all n rows, which alone would
    take the share ``1 / d`` of a full table.

    Parameters
    ----------
    hot_share
        Share of the stored rows that belong to frequent ids.
    """

    def _build(self, limit: float, hot_share: float = 0.7, **options: Any) -> None:
        if not 0 <= hot_share < 1:
            raise InputError(f"hot_share must lie in [0, 1), got {hot_share}.")
        row = 4 * self.d

        def size(rows: int) -> int:
            return rows * row + 4 * int(hot_share * rows)

        rows = self._need(largest_within(size, 1, self.n, limit), row)
        hot = min(int(hot_share * rows), self.n - 1)
        self.config |= {"hot": hot, "shared": rows - hot}
        self.register_buffer("ids", torch.from_numpy(self.hottest(hot)).to(torch.int32))
        self.table = self._normal(rows, self.d)

    def _places(self, chosen: Tensor, ids: Tensor) -> Tensor:
        place, hit = positions(chosen, ids)
        return torch.where(hit, place, self.config["hot"] + ids % self.config["shared"])

    def _look(self, weights: Store, ids: Tensor) -> Tensor:
        return F.embedding(self._places(weights["ids"], ids), weights["table"])

    def _fit_rows(self, table: Tensor) -> None:
        places = self._places(self.weights()["ids"], self.rows_of_all())
        self.table.copy_(bucket_means(table, places, len(self.table)))
