"""Base of tables whose fields have different widths."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isometry.modules.embedding_tables.table import INIT_STD, CompressedEmbedding, Store


class FieldDimensionEmbedding(CompressedEmbedding):
    """Tables ``[n_f, d_f]`` and, where ``d_f < d``, a projection ``[d_f, d]`` for each field."""

    def field_bytes(self, size: int, width: int) -> int:
        """Bytes of a field of that many rows at that width."""
        return 4 * (size * width + (width * self.d if width < self.d else 0))

    def _make_fields(self, dims: Sequence[int]) -> None:
        self.config["dims"] = list(dims)
        for f, (size, width) in enumerate(zip(self.fields.values(), dims, strict=True)):
            self.register_parameter(f"table{f}", self._normal(size, width, std=INIT_STD))
            if width < self.d:
                self.register_parameter(f"projection{f}", self._normal(width, self.d, std=width**-0.5))

    def _look(self, weights: Store, ids: Tensor) -> Tensor:
        field, start = self.field_of(ids), 0
        order, rows = [], []
        for f, size in enumerate(self.fields.values()):
            mine = (field == f).nonzero().squeeze(1)
            if len(mine) or not len(ids):
                order.append(mine)
                rows.append(self._field_rows(weights, f, ids[mine] - start))
            start += size
        return F.embedding(torch.cat(order).argsort(), torch.cat(rows))

    def _field_rows(self, weights: Store, f: int, ids: Tensor) -> Tensor:
        rows = F.embedding(ids, weights[f"table{f}"])
        return rows @ weights[f"projection{f}"] if f"projection{f}" in weights else rows

    def _fit_rows(self, table: Tensor) -> None:
        """Give each field its best approximation of rank d_f (truncated SVD)."""
        for f, rows in enumerate(torch.split(table, list(self.fields.values()))):
            width = self.config["dims"][f]
            target: nn.Parameter = getattr(self, f"table{f}")
            if width == self.d:
                target.copy_(rows)
                continue
            left, values, right = torch.linalg.svd(rows, full_matrices=False)
            kept = min(width, len(values))
            target.zero_()[:, :kept] = left[:, :kept] * values[:kept]
            getattr(self, f"projection{f}").zero_()[:kept] = right[:kept]
