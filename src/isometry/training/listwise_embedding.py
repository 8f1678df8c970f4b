"""The joint loss of E2Rank: contrastive on plain queries, RankNet on listwise prompts (arXiv:2510.22733)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from isometry.errors import DimensionMismatch, InputError
from isometry.objectives.info_nce import info_nce
from isometry.objectives.ranking import ranknet


def slate_scores(enhanced: Tensor, docs: Tensor) -> Tensor:
    """Cosines ``[b, k]`` of each row's prompt vector ``[b, d]`` with its candidates ``[b, k, d]``."""
    scores: Tensor = (normalize(docs, dim=-1) @ normalize(enhanced, dim=-1)[..., None]).squeeze(-1)
    return scores


def e2rank_loss(
    plain: Tensor | None,
    enhanced: Tensor,
    docs: Tensor,
    ranks: Tensor,
    *,
    keep: Tensor | None = None,
    temperature: float = 0.03,
    scale: float = 10.0,
    weight: float = 2.0,
) -> Tensor:
    """``InfoNCE(plain, documents of all rows) + weight RankNet(cos(enhanced, own candidates))``.

    Parameters
    ----------
    plain, enhanced
        Vectors ``[b, d]`` of the bare queries and of the listwise prompts; None leaves the contrastive part out.
    docs
        Vectors ``[b, k, d]`` of each row's candidates.
    ranks
        The teacher's ranking ``[b, k]``, 1 for the best; the contrastive positive is the candidate ranked best.
    keep
        bool ``[b, k]``: candidates that are there; the rest is padding, and a negative to nobody.
    temperature, scale, weight
        The authors' values.

    Raises
    ------
    DimensionMismatch
        If shapes do not fit.
    InputError
        If a rank is below 1 or a row keeps no candidate.
    """
    b, k = ranks.shape
    if docs.shape[:2] != (b, k) or enhanced.shape != (b, docs.shape[-1]):
        raise DimensionMismatch(
            f"Expected vectors [b, d], [b, k, d] and ranks [b, k]; got {list(enhanced.shape)}, {list(docs.shape)} and "
            f"{list(ranks.shape)}."
        )
    there = torch.ones_like(ranks, dtype=torch.bool) if keep is None else keep
    if not there.any(1).all() or int(ranks[there].min()) < 1:
        raise InputError("Every row needs a candidate, and ranks count from 1.")
    loss = weight * ranknet(slate_scores(enhanced, docs), ranks, scale=scale, keep=there)
    if plain is None:
        return loss
    best = ranks.masked_fill(~there, int(ranks.max()) + 1).argmin(1)
    targets = torch.arange(b, device=ranks.device) * k + best
    drop = (~there).reshape(1, b * k).expand(b, -1)
    return loss + info_nce(plain, docs.reshape(b * k, -1), temperature=temperature, targets=targets, drop=drop)
