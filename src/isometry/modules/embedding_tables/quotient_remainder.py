"""Two small tables, multiplied: one by the quotient of the id, one by its remainder."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from isometry.errors import InputError
from isometry.modules.embedding_tables.table import CompressedEmbedding, Store


class QuotientRemainderEmbedding(CompressedEmbedding):
    """Compositional embedding ``E[i] = Q[i // c] * R[i % c]`` (CompoEmb; Shi et al., KDD 2020).

    The collision c is the smallest whose ``ceil(n / c) + c`` rows fit the budget; at c = 1 the one remainder row is
    constant and not stored, so that the table is an ordinary one. The remainders start around 1 (for products), since
    a product of two values near 0 would start near 0 twice.

    Parameters
    ----------
    combine
        ``"product"`` or ``"sum"``.
    """

    def _build(self, limit: float, combine: Literal["product", "sum"] = "product", **options: Any) -> None:
        if combine not in ("product", "sum"):
            raise InputError(f"combine must be 'product' or 'sum', got {combine!r}.")
        best = max(1, round(math.sqrt(self.n)))
        fitting = (c for c in range(1, best + 1) if 4 * self.d * self._rows(c) <= limit)
        least = min(self._rows(c) for c in range(1, best + 1))
        collision = self._need(next(fitting, None), 4 * self.d * least)
        self.config |= {"collision": collision, "combine": combine}
        self.quotients = self._normal(math.ceil(self.n / collision), self.d)
        if collision > 1:
            self.remainders = self._normal(collision, self.d, mean=float(combine == "product"))

    def _rows(self, collision: int) -> int:
        return self.n if collision == 1 else math.ceil(self.n / collision) + collision

    def _look(self, weights: Store, ids: Tensor) -> Tensor:
        collision = self.config["collision"]
        first = F.embedding(ids // collision, weights["quotients"])
        if collision == 1:
            return first
        second = F.embedding(ids % collision, weights["remainders"])
        return first * second if self.config["combine"] == "product" else first + second

    def _fit_rows(self, table: Tensor) -> None:
        """Alternate the least-squares solutions of either factor."""
        collision, count = self.config["collision"], len(self.quotients)
        if collision == 1:
            self.quotients.copy_(table)
            return
        filled = torch.zeros(count * collision, self.d)
        mask = torch.zeros(count * collision, 1)
        filled[: self.n], mask[: self.n] = table, 1.0
        values, there = filled.reshape(count, collision, self.d), mask.reshape(count, collision, 1)
        for _ in range(25):
            for factor, other, axis in ((self.quotients, self.remainders.unsqueeze(0), 1),
                                        (self.remainders, self.quotients.unsqueeze(1), 0)):  # fmt: skip
                if self.config["combine"] == "product":
                    solved = (values * other * there).sum(axis) / (other**2 * there).sum(axis).clamp(min=1e-12)
                else:
                    solved = ((values - other) * there).sum(axis) / there.sum(axis).clamp(min=1)
                factor.copy_(solved)
