"""Magnitude pruning while training."""

from __future__ import annotations

from typing import Any

import torch

from isometry.modules.embedding_tables.pruned_table import PrunedEmbedding
from isometry.modules.embedding_tables.table import Stage, StageContext


def pruned_share(step: float, target: float, *, decay: float = 0.99, period: float = 100.0) -> float:
    """Share pruned after a step: ``target (1 - decay^(step / period))``.

    >>> pruned_share(0, 0.9), round(pruned_share(100, 0.9), 3)
    (0.0, 0.009)
    """
    return target * float(1 - decay ** (step / period))


class DeepLightEmbedding(PrunedEmbedding):
    """Pruning during training (DeepLight; Deng et al., WSDM 2021): every 10 steps the smallest entries become zero.

    The schedule comes within 1e-3 of its target after ``period * log(1e-3) / log(.99)`` steps (68,700 at the paper's
    period of 100); in shorter runs the period is shortened so that this is after 60 % of them. Pruned entries may grow
    back until the target is reached.

    Parameters
    ----------
    period
        Steps of one decay by .99; by default 100, or less in short runs.
    """

    def _build(self, limit: float, period: float | None = None, **options: Any) -> None:
        super()._build(limit, **options)
        self.period, self.fixed, self.steps = period or 100.0, period is not None, 0

    def begin_stage(self, stage: Stage, context: StageContext) -> None:
        """Fit the schedule to the length of the run."""
        if not self.fixed:
            self.period = min(100.0, 0.6 * context.steps / 687.3)

    @property
    def settled(self) -> bool:
        """Whether the target is reached."""
        return "mask" in self._buffers

    @torch.no_grad()
    def after_step(self) -> None:
        """Prune by the schedule; at the target, for good."""
        self.steps += 1
        if self.steps % 10 or "mask" in self._buffers:
            return
        share = pruned_share(self.steps, self.target, period=self.period)
        if share >= self.target - 1e-3:
            self.register_buffer("mask", self.keep_largest(self.table))
            self.table.mul_(self.weights()["mask"])
            return
        count = int(share * self.table.numel())
        if count:
            self.table[self.table.abs() <= self.table.abs().flatten().kthvalue(count).values] = 0.0
