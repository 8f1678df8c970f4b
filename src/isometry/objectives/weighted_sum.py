"""Several losses over one batch that is embedded once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from isometry.errors import EmptyInput, InputError
from isometry.objectives.loss import EmbeddingLoss


class WeightedSum(EmbeddingLoss):
    """Weighted sum of losses over the same columns, such as a contrastive one and a distillation.

    Parameters
    ----------
    model
        The model in training, or None when only embeddings are given; the parts need none.
    parts
        ``(weight, loss)``; a part of weight 0 is not computed.

    Examples
    --------
    >>> import torch
    >>> from isometry.objectives import InfoNCE
    >>> q, part = torch.eye(2), InfoNCE(temperature=1.0)
    >>> both = WeightedSum(parts=[(1.0, part), (0.5, part)])
    >>> float(both.compute_loss_from_embeddings([q, q]) / part.compute_loss_from_embeddings([q, q]))
    1.5
    """

    def __init__(self, model: nn.Module | None = None, *, parts: Sequence[tuple[float, EmbeddingLoss]]) -> None:
        super().__init__(model)
        if not any(weight for weight, _ in parts):
            raise EmptyInput("A weighted sum needs a loss with a weight other than 0.")
        if any(weight < 0 for weight, _ in parts):
            raise InputError(f"Weights of losses must be >= 0, got {[weight for weight, _ in parts]}.")
        self.weights = tuple(weight for weight, _ in parts)
        self.losses = nn.ModuleList(loss for _, loss in parts)

    def compute_loss_from_embeddings(
        self,
        embeddings: Sequence[Tensor],
        labels: Tensor | None = None,
        texts: Sequence[Sequence[str]] | None = None,
    ) -> Tensor:
        """Return the sum over columns of embeddings, each ``[b, d]``."""
        values = [
            weight * loss.compute_loss_from_embeddings(embeddings, labels, texts)  # type: ignore[operator]
            for weight, loss in zip(self.weights, self.losses, strict=True)
            if weight
        ]
        total: Tensor = sum(values[1:], values[0])
        return total

    def get_config_dict(self) -> dict[str, Any]:
        """Return what a model card should say about this loss."""
        return {type(loss).__name__: weight for weight, loss in zip(self.weights, self.losses, strict=True)}
