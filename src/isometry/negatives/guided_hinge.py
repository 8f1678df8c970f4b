"""The guided triplet of GISTEmbed: a guide tells positives from negatives, a hinge sets them apart."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from isometry.errors import InputError
from isometry.negatives.guided import Guide, Guided
from isometry.objectives.info_nce import Candidates, Masks, own_entries, score_blocks
from isometry.objectives.loss import EmbeddingLoss
from isometry.protocols import Encoder


def guided_triplet(scores: Masks, near: Masks, targets: Tensor, *, margin: float = 0.1, soft: bool = False) -> Tensor:
    """Hinge between a row's positives and negatives as a guide parts them, mean over rows.

    ``max(0, closest negative - farthest positive + margin)``, or of their means if ``soft``. Positives of a row are its
    own and every candidate that the guide finds closer than that; all others are negatives. A row without negatives
    costs nothing.

    Parameters
    ----------
    scores
        Similarities of the model in training by block, from `isometry.objectives.score_blocks`.
    near
        What the guide takes for positives, from `isometry.negatives.guided_mask`.
    targets
        int64 ``[b]``: columns of the positives in ``qd``.

    Examples
    --------
    >>> scores, near = {"qd": torch.tensor([[0.9, 0.5, 0.6]])}, {"qd": torch.tensor([[False, True, False]])}
    >>> round(float(guided_triplet(scores, near, torch.tensor([0]))), 4)    # 0.6 - 0.5 + 0.1
    0.2
    >>> round(float(guided_triplet(scores, near, torch.tensor([0]), soft=True)), 4)    # 0.6 - 0.7 + 0.1
    0.0
    """
    if not margin >= 0:
        raise InputError(f"margin must be >= 0, got {margin}.")
    own = {block: own_entries(block, targets, s.shape[1]) for block, s in scores.items()}
    s = torch.cat(list(scores.values()), dim=1)
    positive = torch.cat([own[b] if b == "qd" else torch.zeros_like(own[b]) for b in scores], dim=1)
    positive = positive | torch.cat([near[b] & ~own[b] for b in scores], dim=1)
    negative = ~positive & ~torch.cat(list(own.values()), dim=1)
    if soft:
        far = (s * positive).sum(1) / positive.sum(1)
        close = (s * negative).sum(1) / negative.sum(1).clamp_min(1)
    else:
        far = s.masked_fill(~positive, torch.inf).amin(1)
        close = s.masked_fill(~negative, -torch.inf).amax(1)
    return (relu(close - far + margin) * negative.any(1)).mean()


class GuidedTriplet(EmbeddingLoss):
    """`guided_triplet` as a loss object; GISTEmbed adds it to `isometry.negatives.gist_loss`.

    Parameters
    ----------
    model
        The model in training, or None when only embeddings are given.
    guide
        A frozen guide of raw texts.
    margin, soft
        As in `guided_triplet`.
    blocks
        Sets of candidates, ``"qd"`` first.
    """

    def __init__(
        self, model: nn.Module | None = None, guide: Encoder | None = None, *, margin: float = 0.1, soft: bool = False,
        blocks: Sequence[str] = ("qd", "qq", "pp"),
    ) -> None:  # fmt: skip
        super().__init__(model)
        if guide is None or id(guide) == id(model):
            raise InputError("A guided triplet needs a frozen guide that is not the model in training.")
        self.mask, self.margin, self.soft, self.blocks = Guided(Guide(guide)), margin, soft, tuple(blocks)

    def compute_loss_from_embeddings(
        self,
        embeddings: Sequence[Tensor],
        labels: Tensor | None = None,
        texts: Sequence[Sequence[str]] | None = None,
    ) -> Tensor:
        """Return the loss of columns (query, positive, negatives) with their raw texts."""
        self.need_columns(embeddings, 2, "(query, positive, negatives)")
        q, docs = embeddings[0], torch.cat(list(embeddings[1:]))
        scores, targets = score_blocks(q, docs, blocks=self.blocks), torch.arange(len(q), device=q.device)
        flat = None if texts is None else (texts[0], [text for column in texts[1:] for text in column])
        near = self.mask(Candidates({block: s.detach() for block, s in scores.items()}, targets, flat))
        return guided_triplet(scores, near, targets, margin=self.margin, soft=self.soft)
