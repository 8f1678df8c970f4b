"""Means of tokens by cluster: the differentiable half of clustering."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize


def segment_mean(x: Tensor, assignment: Tensor, k: int, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of each cluster's tokens, ``Y = diag(1/n) A^T X``; its gradient by X is ``A/n``, the assignment constant.

    Parameters
    ----------
    x
        Tokens ``[b, t, d]``.
    assignment
        int64 ``[b, t]``: cluster of each token, in ``0 .. k - 1``; anything where the mask is False.
    k
        Number of clusters.
    mask
        bool ``[b, t]``: tokens that count.

    Returns
    -------
    Means ``[b, k, d]`` (0 where a cluster is empty) and bool ``[b, k]``: which clusters hold a token.

    Examples
    --------
    >>> x = torch.tensor([[[1.0], [3.0], [9.0]]])
    >>> mean, some = segment_mean(x, torch.tensor([[0, 0, 2]]), 3, torch.ones(1, 3, dtype=torch.bool))
    >>> mean.flatten().tolist(), some.tolist()
    ([2.0, 0.0, 9.0], [[True, False, True]])
    """
    belongs = (assignment[..., None] == torch.arange(k, device=x.device)) & mask[..., None]
    counts = belongs.sum(1)
    # Padding may hold anything, even NaN: zeroed, not only weighted with 0.
    total = belongs.to(x.dtype).transpose(1, 2) @ torch.where(mask[..., None], x, 0.0)
    return total / counts.clamp_min(1)[..., None].to(x.dtype), counts > 0


def scaled(means: Tensor, mask: Tensor) -> Tensor:
    """Scale means to norm 1; rows that do not count stay 0 and pass no gradient."""
    return torch.where(mask[..., None], normalize(torch.where(mask[..., None], means, 1.0), dim=-1), 0.0)


def within_share(x: Tensor, assignment: Tensor, k: int, mask: Tensor) -> Tensor:
    """Share of the tokens' variance that lies within clusters: 0 if clusters lose nothing, 1 if they explain nothing.

    Sum of squared distances to the own cluster's mean over that to the text's mean, ``[b]``; NaN where all tokens of a
    text are equal. Parameters as in `segment_mean`.
    """
    x = torch.where(mask[..., None], x, 0.0)

    def spread(clusters: Tensor, count: int) -> Tensor:
        means = segment_mean(x, clusters, count, mask)[0]
        own = means.gather(1, clusters.masked_fill(~mask, 0)[..., None].expand_as(x))
        return ((x - own).square().sum(-1) * mask).sum(1)

    return spread(assignment, k) / spread(torch.zeros_like(assignment), 1)
