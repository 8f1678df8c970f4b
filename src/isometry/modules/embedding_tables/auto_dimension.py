"""The width of each field searched by gradients over candidate tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isometry.modules.embedding_tables.field_dimensions import FieldDimensionEmbedding
from isometry.modules.embedding_tables.table import Stage, StageContext, Store


def choose_widths(gains: Tensor, costs: Tensor, limit: float) -> list[int] | None:
    """Choose one candidate per field of greatest total gain within the budget: a Lagrangian, then filling what is left.

    Parameters
    ----------
    gains, costs
        ``[F, C]``; costs in bytes, rising with the candidate.

    Returns
    -------
    list of int or None
        Candidate per field; None if not even the cheapest fit.
    """
    fields = torch.arange(len(gains))
    if float(costs.min(1).values.sum()) > limit:
        return None
    low, high, best = 0.0, 1.0, costs.argmin(1)
    for step in range(80):
        price = 0.0 if step == 0 else (low + high) / 2
        chosen = (gains.double() - price * costs.double()).argmax(1)
        if float(costs[fields, chosen].sum()) <= limit:
            best, high = chosen, price
            if step == 0:
                break
        else:
            low = price
    while True:
        spare = limit - float(costs[fields, best].sum())
        better = (gains - gains[fields, best][:, None]).masked_fill(costs - costs[fields, best][:, None] > spare, 0.0)
        if float(better.max()) <= 0:
            return [int(c) for c in best]
        f, c = divmod(int(better.argmax()), gains.shape[1])
        best = best.clone()
        best[f] = c


class AutoDimensionEmbedding(FieldDimensionEmbedding):
    """Searched dimensions (AutoDim; Zhao et al., WWW 2021): candidate tables mixed by Gumbel-softmax weights.

    In the search each field has a table, a projection and a batch normalisation per candidate width (2, 4, ..., d); the
    architecture weights step on validation batches (first order). Then widths of the greatest total log-weight within
    the budget are kept and trained anew.
    """

    stages: ClassVar[tuple[Stage, ...]] = (Stage("search", second="validation"), Stage("retrain", fresh=True))

    def _build(self, limit: float, **options: Any) -> None:
        self.widths = [2**k for k in range(1, 12) if 2**k < self.d] + [self.d]
        self.limit, self.batch, self.steps = limit, 128, 0
        costs = [[float(self.field_bytes(size, w)) for w in self.widths] for size in self.fields.values()]
        self.costs = torch.tensor(costs, dtype=torch.float64)
        uniform = torch.zeros(len(self.fields), len(self.widths))
        self._need(choose_widths(uniform, self.costs, limit), float(self.costs.min(1).values.sum()))
        self.alphas = nn.Parameter(uniform)
        for f, size in enumerate(self.fields.values()):
            for width in self.widths:
                self.register_parameter(f"table{f}_{width}", self._normal(size, width))
                self.register_parameter(f"projection{f}_{width}", self._normal(width, self.d, std=width**-0.5))
                self.register_buffer(f"mean{f}_{width}", torch.zeros(self.d))
                self.register_buffer(f"variance{f}_{width}", torch.ones(self.d))

    def begin_stage(self, stage: Stage, context: StageContext) -> None:
        """Keep the batch size for the temperature; before retraining settle the widths."""
        self.batch = context.batch
        if stage.name == "retrain":
            self._settle(self.alphas.detach().log_softmax(1))

    def second_parameters(self) -> list[nn.Parameter]:
        """The architecture weights, while searching."""
        return [self.alphas] if "alphas" in self._parameters else []

    def after_step(self) -> None:
        """Count steps: the temperature falls with them."""
        self.steps += 1

    @property
    def temperature(self) -> float:
        """``max(.01, 1 - 5e-5 / 2000 * batch * step)``."""
        return max(0.01, 1 - 5e-5 / 2000 * self.batch * self.steps)

    def _field_rows(self, weights: Store, f: int, ids: Tensor) -> Tensor:
        if "alphas" not in weights:
            return super()._field_rows(weights, f, ids)
        logits = weights["alphas"][f].log_softmax(0)
        if self.training:
            uniform = torch.rand(len(logits), generator=self.generator).clamp(1e-9, 1 - 1e-7)
            logits = logits - (-uniform.log()).log()
        mixture: Tensor = torch.zeros(())
        for share, width in zip((logits / self.temperature).softmax(0), self.widths, strict=True):
            rows = F.embedding(ids, weights[f"table{f}_{width}"]) @ weights[f"projection{f}_{width}"]
            rows = F.batch_norm(rows, weights[f"mean{f}_{width}"], weights[f"variance{f}_{width}"],
                                training=self.training and len(rows) > 1)  # fmt: skip
            mixture = mixture + share * rows
        return mixture

    def _settle(self, gains: Tensor) -> None:
        chosen: Sequence[int] = choose_widths(gains, self.costs, self.limit) or []
        for group in (self._parameters, self._buffers):
            group.clear()
        self._make_fields([self.widths[c] for c in chosen])

    def _pack(self) -> dict[str, Tensor]:
        if "alphas" in self._parameters:
            self._settle(self.alphas.detach().log_softmax(1))
        return super()._pack()

    def _fit_rows(self, table: Tensor) -> None:
        """Choose widths by the energy of the rows they keep, then fit each field."""
        gains = []
        for rows in torch.split(table, list(self.fields.values())):
            energy = torch.linalg.svdvals(rows.double()) ** 2
            gains.append([math.log(float(energy[:w].sum()) + 1e-300) * len(rows) for w in self.widths])
        self._settle(torch.tensor(gains))
        super()._fit_rows(table)
