"""Base of tables most of whose entries are zero in the end."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from isometry.modules.embedding_tables.table import CompressedEmbedding, Store, as_numpy
from isometry.numerics.sparse_rows import most_kept, sparse_bytes, sparse_rows, to_sparse, top_mask


class PrunedEmbedding(CompressedEmbedding):
    """A table of which the entries of largest magnitude are kept, as CSR or COO; how many, the budget decides.

    Training holds the full table. Positions count: 9 bytes an entry as COO, 5 and a row pointer as CSR (width <= 256).
    """

    def _build(self, limit: float, **options: Any) -> None:
        kept = most_kept(self.n, self.d, limit)
        self.config["kept"] = self._need(kept if kept >= 1 else None, sparse_bytes(self.n, self.d, 1))
        self.table = self._normal(self.n, self.d)

    @property
    def target(self) -> float:
        """Share of the entries to prune."""
        return 1 - float(self.config["kept"]) / (self.n * self.d)

    def effective(self) -> Tensor:
        """The table as the forward pass sees it, ``[n, d]``."""
        return self._look(self.weights(), self.rows_of_all()).detach()

    def _look(self, weights: Store, ids: Tensor) -> Tensor:
        rows = F.embedding(ids, weights["table"])
        return rows * weights["mask"][ids] if "mask" in weights else rows

    def keep_largest(self, scores: Tensor) -> Tensor:
        """Mark the entries of largest magnitude that the budget allows, bool ``[n, d]``."""
        return torch.from_numpy(top_mask(scores.detach().numpy(), self.config["kept"]))

    def retrain_under(self, mask: Tensor) -> None:
        """Start again from the first values, with only the entries under the mask."""
        self.generator.manual_seed(self.seed)
        for group in (self._parameters, self._buffers):
            group.clear()
        self.table = self._normal(self.n, self.d)
        self.register_buffer("mask", mask)

    def _pack(self) -> dict[str, Tensor]:
        values = self.effective()
        mask = self.weights().get("mask")
        arrays = to_sparse(values.numpy(), (self.keep_largest(values) if mask is None else mask).numpy())
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def _look_stored(self, store: Store, ids: Tensor) -> Tensor:
        return torch.from_numpy(sparse_rows(as_numpy(store), ids.numpy(), self.d))

    def _fit_rows(self, table: Tensor) -> None:
        self.retrain_under(self.keep_largest(table))
        self.table.copy_(table)
