"""CoSENT: order pairs of texts as people do (Su 2022; used for graded data by QZhou-Embedding, arXiv:2508.21632)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from isometry.errors import DimensionMismatch, InputError
from isometry.objectives.loss import ScoredPairLoss


def cosent(similarities: Tensor, gold: Tensor, *, scale: float | Tensor = 20.0, decimals: int | None = None) -> Tensor:
    """CoSENT: ``log(1 + sum over (i, j) with y_i > y_j of e^{scale (s_j - s_i)})``.

    The gold scores count through their order alone. Where all of them tie, no pair is left and the loss is 0.

    Parameters
    ----------
    similarities
        ``[b]``: cosine of the two texts of each pair.
    gold
        ``[b]``: what people said.
    scale
        The inverse of a temperature.
    decimals
        Round gold scores to the grid of the data first, where they were computed and equal ones may differ by a hair.

    Raises
    ------
    DimensionMismatch
        If the shapes differ or are not ``[b]``.
    InputError
        If scale is not positive or a score is not finite.

    Examples
    --------
    >>> round(float(cosent(torch.tensor([0.5, 0.5]), torch.tensor([5.0, 1.0]))), 4)    # log 2
    0.6931
    >>> float(cosent(torch.tensor([0.5, 0.1]), torch.tensor([3.0, 3.0])))
    0.0
    """
    if similarities.ndim != 1 or similarities.shape != gold.shape or not len(gold):
        raise DimensionMismatch(
            f"CoSENT needs similarities and gold scores of one shape [b], got {list(similarities.shape)} and "
            f"{list(gold.shape)}."
        )
    if not torch.as_tensor(scale).gt(0).all():
        raise InputError(f"scale must be > 0, got {scale}.")
    if not torch.isfinite(gold).all():
        raise InputError("Gold scores must be finite numbers; leave pairs without a score out of the batch.")
    gold = gold if decimals is None else gold.double().round(decimals=decimals)
    s = similarities.to(torch.promote_types(similarities.dtype, torch.float32)) * scale
    wrong = (s[None, :] - s[:, None])[gold[:, None] > gold[None, :]]
    return torch.logsumexp(torch.cat([s.new_zeros(1), wrong]), 0) + 0.0 * s.sum()  # a gradient even if all tie


class CoSENT(ScoredPairLoss):
    """CoSENT as a loss object: columns (left, right), float labels ``[b]``.

    Parameters
    ----------
    model
        The model in training, or None when only embeddings are given.
    scale, decimals
        As in `cosent`.

    Examples
    --------
    >>> left, right = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    >>> loss = CoSENT(scale=1.0).compute_loss_from_embeddings([left, right], torch.tensor([1.0, 0.0]))
    >>> round(float(loss), 4)    # log(1 + 1/e)
    0.3133
    """

    def __init__(self, model: nn.Module | None = None, *, scale: float = 20.0, decimals: int | None = None) -> None:
        super().__init__(model)
        self.scale, self.decimals = scale, decimals

    def of_pairs(self, left: Tensor, right: Tensor, gold: Tensor) -> Tensor:
        """Return `cosent` of the cosines."""
        return cosent(cosine_similarity(left, right), gold, scale=self.scale, decimals=self.decimals)

    def get_config_dict(self) -> dict[str, float | int | None]:
        """Return what a model card should say about this loss."""
        return {"scale": self.scale, "decimals": self.decimals}
