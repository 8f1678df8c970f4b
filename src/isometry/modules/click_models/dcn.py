"""DCN: explicit feature crosses of growing degree beside a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isometry.modules.click_models.click_model import ClickModel, perceptron


class DCN(ClickModel):
    """Deep and cross network (Wang et al., ADKDD 2017): three layers ``x0 (w . x) + b + x``, and a deep part."""

    def _build(self, hidden: list[int]) -> None:
        width = self.fields * self.d + self.dense
        self.crosses = nn.ModuleList(nn.Linear(width, 1, bias=False) for _ in range(3))
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(width)) for _ in range(3))
        self.deep, self.head = perceptron([width, *hidden]), nn.Linear(width + hidden[-1], 1)

    def _score(self, vectors: Tensor, dense: Tensor) -> Tensor:
        start = crossed = torch.cat([vectors.flatten(1), dense], 1)
        for cross, bias in zip(self.crosses, self.biases, strict=True):
            crossed = start * cross(crossed) + bias + crossed
        logits: Tensor = self.head(torch.cat([crossed, self.deep(start).relu()], 1))
        return logits.squeeze(1)
