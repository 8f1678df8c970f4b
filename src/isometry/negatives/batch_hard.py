"""Triplets from the batch: each row's negative is chosen among the other rows' documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from isometry.errors import UnknownName
from isometry.objectives.info_nce import Candidates, MaskSource, score_blocks
from isometry.objectives.loss import EmbeddingLoss
from isometry.objectives.triplet import triplet_loss

Choice = Literal["hard", "semi-hard"]
CHOICES: tuple[Choice, ...] = get_args(Choice)


def batch_negatives(scores: Tensor, targets: Tensor, drop: Tensor | None = None, *, choose: str = "hard") -> Tensor:
    """Return each row's negative among the candidates of a batch, int64 ``[b]``; -1 where none is left.

    Parameters
    ----------
    scores
        Similarities ``[b, m]``.
    targets
        int64 ``[b]``: columns of the positives.
    drop
        bool ``[b, m]``: candidates that are no negatives of the row.
    choose
        ``"hard"``: the most similar candidate (batch hard, Hermans et al. 2017, arXiv:1703.07737). ``"semi-hard"``: the
        most similar one below the positive, or the least similar of those above it where there is none below (FaceNet,
        arXiv:1503.03832); the hardest candidates of a batch are often unlabelled positives.

    Examples
    --------
    >>> scores, targets = torch.tensor([[0.5, 0.9, 0.2]]), torch.tensor([0])
    >>> [int(batch_negatives(scores, targets, choose=way)) for way in ("hard", "semi-hard")]
    [1, 2]
    """
    if choose not in CHOICES:
        raise UnknownName("choice of negatives", choose, CHOICES)
    own = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, targets[:, None], True)
    allowed = ~(own if drop is None else own | drop)
    value = scores.masked_fill(~allowed, -torch.inf)
    if choose == "semi-hard":
        positive = scores.gather(1, targets[:, None])
        # Everything above the positive comes after everything below it, least similar first.
        value = torch.where(allowed & (scores >= positive), -10.0 - (scores - positive), value)
    return torch.where(allowed.any(1), value.argmax(1), -1)


class BatchTriplet(EmbeddingLoss):
    """Triplet loss with cosine distance over columns (anchor, positive, negative ...), negatives from the whole batch.

    ``active`` holds the share of the last batch's triplets with a loss above 0.

    Parameters
    ----------
    model
        The model in training, or None when only embeddings are given.
    margin
        As in `isometry.objectives.triplet_loss`.
    choose
        As in `batch_negatives`.
    mask
        Which candidates are no negatives: called with `Candidates`, as for `isometry.objectives.InfoNCE`.
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        *,
        margin: float = 0.3,
        choose: str = "semi-hard",
        mask: MaskSource | None = None,
    ) -> None:
        super().__init__(model)
        if choose not in CHOICES:
            raise UnknownName("choice of negatives", choose, CHOICES)
        self.margin, self.choose, self.mask, self.active = margin, choose, mask, float("nan")

    def compute_loss_from_embeddings(
        self,
        embeddings: Sequence[Tensor],
        labels: Tensor | None = None,
        texts: Sequence[Sequence[str]] | None = None,
    ) -> Tensor:
        """Return the loss of columns of embeddings, each ``[b, d]``; rows without a negative teach nothing."""
        self.need_columns(embeddings, 2, "(anchor, positive, negative ...)")
        anchor, docs = embeddings[0], torch.cat(list(embeddings[1:]))
        targets = torch.arange(len(anchor), device=anchor.device)
        scores = score_blocks(anchor.detach(), docs.detach())
        drop = None
        if self.mask is not None:
            flat = None if texts is None else (texts[0], [text for column in texts[1:] for text in column])
            drop = self.mask(Candidates(scores, targets, flat, _classes(labels, len(docs))))["qd"]
        chosen = batch_negatives(scores["qd"], targets, drop, choose=self.choose)
        rows = chosen >= 0
        if not rows.any():
            self.active = 0.0
            return anchor.sum() * 0.0
        losses = triplet_loss(
            anchor[rows], docs[targets[rows]], docs[chosen[rows]], margin=self.margin, reduction="none"
        )
        self.active = float((losses.detach() > 0).double().mean())
        return losses.mean()

    def get_config_dict(self) -> dict[str, float | str]:
        """Return what a model card should say about this loss."""
        return {"margin": self.margin, "choose": self.choose}


def _classes(labels: Tensor | None, m: int) -> tuple[Tensor, Tensor] | None:
    if labels is None or labels.is_floating_point():
        return None
    return labels, torch.cat([labels, labels.new_full((m - len(labels),), -1)])  # a negative's class is not known
