"""DeepFM: a factorisation machine and a network over the same embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isometry.modules.click_models.click_model import ClickModel, perceptron


class DeepFM(ClickModel):
    """Factorisation machine with a deep part (DeepFM; Guo et al., IJCAI 2017).

    First-order terms are linear in the embeddings instead of having a weight per id.
    """

    def _build(self, hidden: list[int]) -> None:
        width = self.fields * self.d + self.dense
        self.first, self.deep = nn.Linear(width, 1), perceptron([width, *hidden, 1])

    def _score(self, vectors: Tensor, dense: Tensor) -> Tensor:
        features = torch.cat([vectors.flatten(1), dense], 1)
        second = 0.5 * (vectors.sum(1) ** 2 - (vectors**2).sum(1)).sum(1)
        logits: Tensor = (self.first(features) + self.deep(features)).squeeze(1) + second
        return logits
