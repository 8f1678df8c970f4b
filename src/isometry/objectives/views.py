"""Several noisy views of one text as positives of each other (SimCSE, arXiv:2104.08821; WhitenedCSE, 2305.17746)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from isometry.errors import DimensionMismatch, InputError
from isometry.objectives.info_nce import Candidates, MaskSource, info_nce, score_blocks
from isometry.objectives.loss import EmbeddingLoss


def multi_view(
    views: Sequence[Tensor],
    *,
    temperature: float | Tensor = 0.05,
    drop: Tensor | None = None,
) -> Tensor:
    """Multi-positive contrastive loss: the InfoNCE losses of view 1 against each other view, summed.

    Row i of view v is the positive of row i of view 1; the other rows of view v are its negatives.

    Parameters
    ----------
    views
        At least two matrices ``[b, d]``, row i of each about text i; normalised here.
    temperature
        Divisor of cosines.
    drop
        bool ``[b, b]``, True: text j is no negative of text i.

    Raises
    ------
    InputError
        If there are fewer than two views.
    DimensionMismatch
        If their shapes differ.

    Examples
    --------
    >>> a = torch.eye(2)
    >>> round(float(multi_view([a, a, a], temperature=1.0)), 4)     # 2 log(1 + 1/e)
    0.6265
    """
    if len(views) < 2:
        raise InputError(f"Views are compared with each other: give at least two, got {len(views)}.")
    if len({view.shape for view in views}) > 1:
        raise DimensionMismatch(f"Views must have one shape, got {[list(view.shape) for view in views]}.")
    losses = [info_nce(views[0], view, temperature=temperature, drop=drop) for view in views[1:]]
    return torch.stack(losses).sum()


class MultiView(EmbeddingLoss):
    """`multi_view` of the first column of a batch, embedded several times under different dropout.

    Parameters
    ----------
    model
        The model in training (a ``SentenceTransformer``), in training mode, so that dropout makes views differ.
    views
        How often each text is embedded.
    whitening, head
        Maps ``[b, d]`` applied to each view by itself before the loss, e.g. `GroupWhitening` and a projection. They
        are parts of the loss: the model is used without them.
    temperature
        As in `multi_view`.
    mask
        Which rows are no negatives of each other, e.g. `isometry.negatives.same_text`.

    Examples
    --------
    >>> loss = MultiView(head=nn.Tanh(), temperature=1.0)
    >>> round(float(loss.compute_loss_from_embeddings([torch.eye(2)] * 2)), 4)     # log(1 + 1/e)
    0.3133
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        *,
        views: int = 2,
        whitening: nn.Module | None = None,
        head: nn.Module | None = None,
        temperature: float = 0.05,
        mask: MaskSource | None = None,
    ) -> None:
        super().__init__(model)
        if views < 2:
            raise InputError(f"Views are compared with each other: at least two are needed, got {views}.")
        self.whitening, self.head = whitening, head
        self.views, self.temperature, self.mask = views, temperature, mask

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Tensor:
        """Embed the first column of a batch ``views`` times and return the loss; other columns are not looked at."""
        if self.model is None:
            raise InputError("This loss has no model to embed with; pass one, or use compute_loss_from_embeddings.")
        column = next(iter(sentence_features))
        embeddings = [self.model(dict(column))["sentence_embedding"] for _ in range(self.views)]
        texts = [column["text"]] * 2 if "text" in column else None
        return self.compute_loss_from_embeddings(embeddings, labels, texts)

    def compute_loss_from_embeddings(
        self,
        embeddings: Sequence[Tensor],
        labels: Tensor | None = None,
        texts: Sequence[Sequence[str]] | None = None,
    ) -> Tensor:
        """Return the loss of views ``[b, d]`` of one column of texts."""
        views = [self._project(view) for view in embeddings]
        drop = None
        if self.mask is not None and len(views) > 1:
            scores = score_blocks(views[0].detach(), views[1].detach())
            flat = None if texts is None else (texts[0], texts[1])
            targets = torch.arange(len(views[0]), device=views[0].device)
            drop = self.mask(Candidates(scores, targets, flat))["qd"]
        return multi_view(views, temperature=self.temperature, drop=drop)

    def _project(self, view: Tensor) -> Tensor:
        for part in (self.whitening, self.head):
            view = view if part is None else part(view)
        return view

    def get_config_dict(self) -> dict[str, Any]:
        """Return what a model card should say about this loss."""
        return {
            "views": self.views,
            "temperature": self.temperature,
            "whitening": repr(self.whitening),
            "head": repr(self.head),
        }


def symmetric_info_nce(left: Tensor, right: Tensor, *, temperature: float | Tensor = 0.05) -> Tensor:
    """InfoNCE both ways, ``(CE(S) + CE(S')) / 2`` of the cosine matrix S over the temperature (CLIP, 2103.00020).

    >>> a, b = torch.eye(2), torch.ones(2, 2)
    >>> bool(torch.isclose(symmetric_info_nce(a, b), symmetric_info_nce(b, a)))
    True
    """
    return (info_nce(left, right, temperature=temperature) + info_nce(right, left, temperature=temperature)) / 2
