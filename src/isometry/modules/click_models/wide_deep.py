"""Wide & Deep: a linear model and a network side by side."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isometry.modules.click_models.click_model import ClickModel, perceptron


class WideDeep(ClickModel):
    """Wide & Deep learning (Cheng et al., DLRS 2016).

    The wide part is linear in the embeddings instead of having a weight per id, which would be a second, uncompressed
    table.
    """

    def _build(self, hidden: list[int]) -> None:
        width = self.fields * self.d + self.dense
        self.wide, self.deep = nn.Linear(width, 1), perceptron([width, *hidden, 1])

    def _score(self, vectors: Tensor, dense: Tensor) -> Tensor:
        features = torch.cat([vectors.flatten(1), dense], 1)
        logits: Tensor = self.wide(features) + self.deep(features)
        return logits.squeeze(1)
