"""Learning to rank: RankNet, ListNet, ListMLE and its position-aware form, over padded lists of scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from isometry.errors import InputError
from isometry.objectives.distillation import candidate_scores, listwise_distillation
from isometry.objectives.loss import EmbeddingLoss, check_keep, same_shape


def ranknet(
    scores: Tensor, ranks: Tensor, *, scale: float = 10.0, keep: Tensor | None = None, by_rank: bool = False
) -> Tensor:
    """RankNet (Burges et al. 2005): logistic loss of every pair that a ranking orders, mean over pairs.

    Parameters
    ----------
    scores
        ``[b, k]``.
    ranks
        ``[b, k]``, 1 for the best; candidates of equal rank are no pair.
    scale
        Factor of score differences: 10 suits cosines (E2Rank, arXiv:2510.22733).
    keep
        bool ``[b, k]``: candidates that are there; the rest is padding.
    by_rank
        Weigh each pair by one over the sum of its ranks.

    Returns
    -------
    Scalar; 0 where no two candidates differ in rank.

    Examples
    --------
    >>> round(float(ranknet(torch.zeros(1, 2), torch.tensor([[1, 2]]))), 4)    # log 2
    0.6931
    """
    same_shape(scores, ranks, "scores and ranks")
    there = check_keep(scores, keep)
    pairs = (ranks[:, :, None] < ranks[:, None, :]) & there[:, :, None] & there[:, None, :]
    losses = softplus(-scale * (scores[:, :, None] - scores[:, None, :])[pairs])
    if by_rank:
        losses = losses / (ranks[:, :, None] + ranks[:, None, :])[pairs]
    return losses.sum() / pairs.sum().clamp_min(1)


def list_net(scores: Tensor, relevance: Tensor, *, keep: Tensor | None = None) -> Tensor:
    """ListNet, top-one form (Cao et al. 2007): cross-entropy of the two softmax distributions, mean over lists.

    Parameters
    ----------
    scores, relevance
        ``[b, k]``; higher is better in both.
    keep
        bool ``[b, k]``: candidates that are there; the rest is padding.
    """
    return listwise_distillation(scores, relevance.to(scores.dtype), keep=keep, divergence="ce")


def list_mle(
    scores: Tensor, relevance: Tensor, *, keep: Tensor | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """ListMLE (Xia et al. 2008): negative log-likelihood of the right order under Plackett-Luce, mean over lists.

    Parameters
    ----------
    scores, relevance
        ``[b, k]``; higher is better in both. Ties of relevance are broken at random, anew each call.
    keep
        bool ``[b, k]``: candidates that are there; the rest is padding.
    generator
        Breaks ties.

    Examples
    --------
    >>> round(float(list_mle(torch.zeros(1, 3), torch.tensor([[3.0, 2.0, 1.0]]))), 4)    # log 3! orders
    1.7918
    """
    terms, there = _places(scores, relevance, keep, generator)
    return (terms * there).sum(1).mean()


def p_list_mle(
    scores: Tensor,
    relevance: Tensor,
    *,
    keep: Tensor | None = None,
    weights: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Position-aware ListMLE (Lan et al. 2014): the first places count more, mean over lists.

    Parameters
    ----------
    scores, relevance, keep, generator
        As in `list_mle`.
    weights
        ``[k]``: the weight of each place; default ``2^(n - i) - 1`` for place i of n (1 for the best), over that of
        the first place, where n counts each list's own candidates. Constant weights of 1 give `list_mle`.

    Raises
    ------
    DimensionMismatch
        If shapes do not fit.
    InputError
        If there are not k weights, or some are negative.
    """
    terms, there = _places(scores, relevance, keep, generator)
    k = scores.shape[1]
    if weights is not None and (weights.shape != (k,) or not (weights >= 0).all()):
        raise InputError(f"weights must be {k} numbers >= 0, one a place, got {list(weights.shape)}.")
    if weights is None:
        # Halves instead of powers of two: 2^n overflows for long lists.
        half = 0.5 ** torch.arange(k, device=scores.device, dtype=terms.dtype)
        last = 0.5 ** (there.sum(1, keepdim=True) - 1).to(terms.dtype)
        weights = ((half - last) / (1.0 - last).clamp_min(0.5)).clamp_min(0.0)
    return (terms * weights * there).sum(1).mean()


def _places(
    scores: Tensor, relevance: Tensor, keep: Tensor | None, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Return each place's negative log-likelihood ``[b, k]`` in the right order, and which places there are."""
    same_shape(scores, relevance, "scores and relevance")
    there = check_keep(scores, keep)
    if not torch.isfinite(relevance[there]).all():
        raise InputError("Relevance must be finite; mask candidates without a judgment by keep.")
    mix = torch.rand(scores.shape, generator=generator, device=generator.device if generator else None).argsort(1)
    mix = mix.to(scores.device)
    padded = relevance.double().masked_fill(~there, -torch.inf).gather(1, mix)
    order = mix.gather(1, padded.argsort(dim=1, descending=True, stable=True))
    there = there.gather(1, order)
    z = scores.to(torch.promote_types(scores.dtype, torch.float32)).gather(1, order)
    # Padding comes last: a finite floor far below keeps it out of every tail and leaves no NaN in the gradient.
    floor = z.detach().masked_fill(~there, torch.inf).amin(1, keepdim=True) - 1e4
    tails = torch.where(there, z, floor).flip(1).logcumsumexp(1).flip(1)
    return torch.where(there, tails - z, 0.0), there


class Ranking(EmbeddingLoss):
    """A ranking loss over cosines as a loss object: columns (query, candidate, candidate ...), labels ``[b, k]``.

    Parameters
    ----------
    model
        The model in training, or None when only embeddings are given.
    compare
        Called with scores ``[b, k]`` and labels ``[b, k]``: `ranknet`, whose labels are ranks, or a list loss, whose
        labels are relevances; options set by ``functools.partial``.
    temperature
        Divisor of the cosines.
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        *,
        compare: Callable[[Tensor, Tensor], Tensor] = ranknet,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(model)
        self.compare, self.temperature = compare, temperature

    def compute_loss_from_embeddings(
        self,
        embeddings: Sequence[Tensor],
        labels: Tensor | None = None,
        texts: Sequence[Sequence[str]] | None = None,
    ) -> Tensor:
        """Return the loss of columns of embeddings, each ``[b, d]``."""
        self.need_columns(embeddings, 3, "(query, candidate, candidate ...)")
        if labels is None:
            raise InputError("A ranking loss needs the right order; pass ranks or relevances as labels [b, k].")
        return self.compare(candidate_scores(embeddings) / self.temperature, labels)
