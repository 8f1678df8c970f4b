"""Triplet loss (Schroff et al. 2015, arXiv:1503.03832), by cosine or Euclidean distance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from isometry.errors import DimensionMismatch, InputError, UnknownName
from isometry.objectives.loss import EmbeddingLoss

Distance = Literal["cosine", "euclidean"]


def triplet_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    margin: float = 0.3,
    distance: Distance = "cosine",
    reduction: Literal["mean", "none"] = "mean",
) -> Tensor:
    """Triplet loss: ``max(0, d(a, p) - d(a, n) + margin)``, zero if and only if the margin is kept.

    Parameters
    ----------
    anchor, positive, negative
        ``[b, d]``.
    margin
        How much further the negative should be. Below 2 for the cosine, whose distances differ by 2 at most.
    distance
        ``"cosine"``: ``1 - cos``. ``"euclidean"``: of the vectors as they are; on the unit sphere its square is twice
        the cosine distance.
    reduction
        ``"mean"`` over rows, or ``"none"`` for the losses ``[b]``: the share above 0 tells how many still teach.

    Raises
    ------
    DimensionMismatch
        If the shapes differ or are not ``[b, d]``.
    InputError
        If the margin cannot be kept.
    UnknownName
        If the distance has no meaning.

    Examples
    --------
    >>> a, n = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]])
    >>> round(float(triplet_loss(a, a, n, margin=0.5)), 4)    # 0 - 0.4 + 0.5
    0.1
    """
    if not anchor.shape == positive.shape == negative.shape or anchor.ndim != 2 or not len(anchor):
        raise DimensionMismatch(
            f"Triplets need three matrices of one shape [b, d], got {list(anchor.shape)}, {list(positive.shape)} and "
            f"{list(negative.shape)}."
        )
    if distance not in ("cosine", "euclidean"):
        raise UnknownName("distance", distance, ("cosine", "euclidean"))
    if not margin >= 0 or (distance == "cosine" and margin >= 2):
        raise InputError(f"margin must be >= 0, and < 2 for the cosine, whose distances differ by 2 at most; {margin}.")
    near, far = (_distance(anchor, other, distance) for other in (positive, negative))
    losses = (near - far + margin).clamp_min(0.0)
    return losses.mean() if reduction == "mean" else losses


def _distance(a: Tensor, b: Tensor, distance: Distance) -> Tensor:
    return torch.linalg.vector_norm(a - b, dim=1) if distance == "euclidean" else 1.0 - cosine_similarity(a, b)


class TripletLoss(EmbeddingLoss):
    """Triplet loss as a loss object: columns (anchor, positive, negative, negative ...).

    ``active`` holds the share of the last batch's triplets with a loss above 0: below a twentieth, mine harder ones.

    Parameters
    ----------
    model
        The model in training, or None when only embeddings are given.
    margin, distance
        As in `triplet_loss`.
    """

    def __init__(self, model: nn.Module | None = None, *, margin: float = 0.3, distance: Distance = "cosine") -> None:
        super().__init__(model)
        self.margin, self.distance, self.active = margin, distance, float("nan")

    def compute_loss_from_embeddings(
        self,
        embeddings: Sequence[Tensor],
        labels: Tensor | None = None,
        texts: Sequence[Sequence[str]] | None = None,
    ) -> Tensor:
        """Return the loss of columns of embeddings, each ``[b, d]``; labels and texts are not needed."""
        self.need_columns(embeddings, 3, "(anchor, positive, negative ...)")
        anchor, positive, *negatives = embeddings
        losses = torch.cat(
            [
                triplet_loss(anchor, positive, n, margin=self.margin, distance=self.distance, reduction="none")
                for n in negatives
            ]
        )
        self.active = float((losses.detach() > 0).double().mean())
        return losses.mean()

    def get_config_dict(self) -> dict[str, float | str]:
        """Return what a model card should say about this loss."""
        return {"margin": self.margin, "distance": self.distance}
