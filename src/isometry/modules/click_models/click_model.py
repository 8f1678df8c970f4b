"""The interface of click models: embedded fields, and dense features, to a logit."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from isometry.errors import DimensionMismatch


def perceptron(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers of these widths with ReLU between them."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class ClickModel(nn.Module):
    """Base of click models. All that depends on a single id is in the embedding table, whose memory is studied.

    Parameters
    ----------
    table
        Maps ids ``[b, F]`` to vectors ``[b, F, d]``.
    fields, d
        F and d.
    dense
        Number of numeric features.
    hidden
        Widths of the network's hidden layers.
    """

    def __init__(
        self, table: nn.Module, fields: int, d: int, *, dense: int = 0, hidden: Sequence[int] = (64, 32)
    ) -> None:
        super().__init__()
        self.table, self.fields, self.d, self.dense = table, fields, d, dense
        self._build(list(hidden))

    def _build(self, hidden: list[int]) -> None:
        raise TypeError(f"{type(self).__name__} must define _build.")

    def _score(self, vectors: Tensor, dense: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} must define _score.")

    def forward(self, ids: Tensor, dense: Tensor | None = None) -> Tensor:
        """Logits ``[b]`` for ids ``[b, F]`` and dense features ``[b, dense]`` (none where the model has none).

        Raises
        ------
        DimensionMismatch
            If the dense features are missing or of another number.
        """
        given = torch.zeros(len(ids), 0) if dense is None else dense
        if given.shape != (len(ids), self.dense):
            raise DimensionMismatch(f"dense features must be [{len(ids)}, {self.dense}], got {tuple(given.shape)}.")
        return self._score(self.table(ids), given)
