"""Tables that keep one of several similar blocks of rows."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isometry.errors import InputError
from isometry.modules.embedding_tables.table import CompressedEmbedding, Stage, StageContext, Store
from isometry.numerics.block_sharing import blocks_of, share_blocks


class DedupEmbedding(CompressedEmbedding):
    """Deduplicated table (Dedup; Zhou et al., PVLDB 2022): train in full, share similar blocks, fine-tune these.

    How close entries must be to count as equal is the smallest closeness (in standard deviations of the table) that
    meets the budget, found by bisection. Which block stands for which takes 4 bytes a block.

    Parameters
    ----------
    block_rows
        Rows of a block; by default what makes about 500 blocks, at most 10,000 rows.
    """

    stages: ClassVar[tuple[Stage, ...]] = (Stage("pretrain"), Stage("finetune"))

    def _build(self, limit: float, block_rows: int | None = None, **options: Any) -> None:
        rows = block_rows or min(10_000, max(1, self.n // 500))
        if not 1 <= rows <= self.n:
            raise InputError(f"block_rows must lie in [1, {self.n}], got {rows}.")
        count, size = -(-self.n // rows), 4 * rows * self.d
        allowed = count if self.budget >= 1 else int((limit - 4 * count) // size)
        allowed = self._need(allowed if allowed >= 1 else None, 4 * count + size)
        self.config |= {"block_rows": rows, "allowed": min(allowed, count)}
        self.table = self._normal(self.n, self.d)

    def begin_stage(self, stage: Stage, context: StageContext) -> None:
        """Share blocks before fine-tuning."""
        if stage.name == "finetune":
            self._share(self.table.detach())

    def _share(self, table: Tensor) -> None:
        blocks = blocks_of(table.numpy(), self.config["block_rows"])
        owner, low, high = np.arange(len(blocks)), 1e-3, 20.0
        if self.config["allowed"] < len(blocks):
            for _ in range(9):
                middle = float(np.sqrt(low * high))
                found = share_blocks(blocks, closeness=middle, keep=self.config["allowed"], seed=self.seed)
                fits = len(np.unique(found)) <= self.config["allowed"]
                owner, low, high = (found, low, middle) if fits else (owner, middle, high)
            if len(np.unique(owner)) > self.config["allowed"]:
                owner = share_blocks(blocks, closeness=1e3, keep=self.config["allowed"], seed=self.seed)
        kept, place = np.unique(owner, return_inverse=True)
        self.config["closeness"] = high
        self.blocks = nn.Parameter(torch.from_numpy(blocks[kept]).clone())
        self.register_buffer("owner", torch.from_numpy(place.astype(np.int32)))
        del self.table

    def _look(self, weights: Store, ids: Tensor) -> Tensor:
        if "table" in weights:
            return F.embedding(ids, weights["table"])
        rows = self.config["block_rows"]
        places = weights["owner"][ids // rows].long() * rows + ids % rows
        return F.embedding(places, weights["blocks"].reshape(-1, self.d))

    def _pack(self) -> dict[str, Tensor]:
        if "table" in self._parameters:
            self._share(self.table.detach())
        return super()._pack()

    def _fit_rows(self, table: Tensor) -> None:
        self._share(table)
