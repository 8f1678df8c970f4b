"""DLRM: a network over the pairwise products of the features."""

from __future__ import annotations

import torch
from torch import Tensor

from isometry.modules.click_models.click_model import ClickModel, perceptron


class DLRM(ClickModel):
    """Deep learning recommendation model (Naumov et al., arXiv:1906.00091).

    Dense features pass a bottom network to one vector of width d; the inner products of all pairs of vectors, with the
    vectors, enter the top network.
    """

    def _build(self, hidden: list[int]) -> None:
        vectors = self.fields + bool(self.dense)
        self.bottom = perceptron([self.dense, *hidden[:1], self.d]) if self.dense else None
        self.register_buffer("pairs", torch.triu_indices(vectors, vectors, 1), persistent=False)
        self.top = perceptron([vectors * (vectors - 1) // 2 + vectors * self.d, *hidden, 1])

    def _score(self, vectors: Tensor, dense: Tensor) -> Tensor:
        if self.bottom is not None:
            vectors = torch.cat([vectors, self.bottom(dense).unsqueeze(1)], 1)
        pairs = self.get_buffer("pairs")
        products = torch.bmm(vectors, vectors.transpose(1, 2))[:, pairs[0], pairs[1]]
        logits: Tensor = self.top(torch.cat([products, vectors.flatten(1)], 1))
        return logits.squeeze(1)
