"""Regression of cosines on people's scores: the plain loss for pairs of graded similarity (Sentence-BERT)."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cosine_similarity

from isometry.objectives.distillation import score_mse
from isometry.objectives.loss import ScoredPairLoss


class CosineRegression(ScoredPairLoss):
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

    def of_pairs(self, left: Tensor, right: Tensor, gold: Tensor) -> Tensor:
        """Return the mean squared error of the cosines."""
        cosine = cosine_similarity(left, right)
        return score_mse(cosine, gold.to(cosine.dtype))
