"""Regression of cosines on people's scores: the plain loss for pairs of graded similarity (Sentence-BERT)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import cosine_similarity

from isometry.errors import InputError
from isometry.objectives.distillation import score_mse
from isometry.objectives.loss import EmbeddingLoss


class CosineRegression(EmbeddingLoss):
    """Mean squared error between the cosine of a pair and its score in 0..1: columns (left, right), labels ``[b]``.

    The regression objective of Sentence-BERT (arXiv:1908.10084). For a model whose cosines already mean something it is
    the gentler choice beside `CoSENT`, which knows the order of scores only.

    Examples
    --------
    >>> import torch
    >>> left, right = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    >>> float(CosineRegression().compute_loss_from_embeddings([left, right], torch.tensor([0.5, 0.0])))
    0.125
    """

    def compute_loss_from_embeddings(
        self,
        embeddings: Sequence[Tensor],
        labels: Tensor | None = None,
        texts: Sequence[Sequence[str]] | None = None,
    ) -> Tensor:
        """Return the loss of columns of embeddings, each ``[b, d]``: left, right."""
        self.need_columns(embeddings, 2, "(left, right)", most=2)
        if labels is None:
            raise InputError("Cosine regression reads similarities; pass float labels [b], one for each pair.")
        cosine = cosine_similarity(embeddings[0], embeddings[1])
        return score_mse(cosine, labels.to(cosine.dtype))
