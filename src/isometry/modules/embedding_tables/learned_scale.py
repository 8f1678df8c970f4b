"""Tables of integers with a learned scale for every row."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isometry.errors import InputError
from isometry.modules.embedding_tables.integer import INTEGERS, bits_within, stochastic_round
from isometry.modules.embedding_tables.table import CompressedEmbedding, Stage, StageContext, Store


def round_through(x: Tensor) -> Tensor:
    """Round to nearest; the gradient passes as if nothing had happened (straight-through)."""
    return x + (x.round() - x).detach()


class LearnedScaleEmbedding(CompressedEmbedding):
    """Adaptive low-precision training (ALPT; Li et al., AAAI 2023).

    Alternates a step on the values with a step on the rows' scales (through ``s * round(x / s)``, its gradient times
    ``1 / sqrt(batch d (2^(b-1) - 1))``, learning rate 2e-5), then rounds the values stochastically to the new grid.

    Parameters
    ----------
    bits
        8 or 16; the most that fits the budget where not given.
    """

    stages: ClassVar[tuple[Stage, ...]] = (Stage("train", second="train"),)
    second_lr = 2e-5

    def _build(self, limit: float, bits: int | None = None, **options: Any) -> None:
        if bits not in (None, 8, 16):
            raise InputError(f"bits must be 8 or 16, got {bits}.")
        sizes = {b: self.n * (b // 8 * self.d + 4.0) for b in (8, 16) if bits in (None, b)}
        self.config["bits"] = bits = self._need(bits_within(limit, sizes), min(sizes.values()))
        self.top = 2 ** (bits - 1) - 1
        self.table = self._normal(self.n, self.d)
        self.scales = nn.Parameter(torch.full((self.n, 1), 1.27 / self.top))
        self.slow = 1.0
        self.after_step()

    def begin_stage(self, stage: Stage, context: StageContext) -> None:
        """Set the factor of the scales' gradients by the batch size."""
        self.slow = (context.batch * self.d * self.top) ** -0.5

    def second_parameters(self) -> list[nn.Parameter]:
        """The scales."""
        return [self.scales]

    def _look(self, weights: Store, ids: Tensor) -> Tensor:
        scale = F.embedding(ids, weights["scales"])
        scale = scale * self.slow + (scale * (1 - self.slow)).detach()
        x = F.embedding(ids, weights["table"])
        return scale * round_through((x / scale).clamp(-self.top, self.top))

    @torch.no_grad()
    def after_step(self) -> None:
        """Round the values stochastically to the grids of their rows."""
        self.scales.clamp_(min=1e-8)
        steps = stochastic_round(self.table / self.scales, self.generator).clamp(-self.top, self.top)
        self.table.copy_(steps * self.scales)

    def _pack(self) -> dict[str, Tensor]:
        steps = (self.table / self.scales).round().clamp(-self.top, self.top)
        return {"table": steps.detach().to(INTEGERS[self.config["bits"]]), "scales": self.scales.detach().clone()}

    def _look_stored(self, store: Store, ids: Tensor) -> Tensor:
        return store["table"][ids].float() * store["scales"][ids]

    def _fit_rows(self, table: Tensor) -> None:
        self.scales.copy_((table.abs().amax(1, keepdim=True) / self.top).clamp(min=1e-12))
        self.table.copy_(table)
        self.after_step()
