"""Online mixing of hard negatives in embedding space (KaLM-Embedding-V2, arXiv:2506.20923)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from isometry.errors import DimensionMismatch, InputError, UnknownName


def mix_pairs(
    q: Tensor, docs: Tensor, allowed: Tensor, *, count: int, hardest: int, generator: torch.Generator, beta: int = 1
) -> Tensor:
    """Mix two of each query's hardest negatives: ``norm(t a + (1 - t) b)`` with t drawn from Beta(beta, beta).

    Where both parents are similar to the query, the mix is no less similar than the lesser of them: the convex sum is
    at most 1 long, so that normalising can only raise its similarity.

    Parameters
    ----------
    q, docs
        ``[b, d]`` and ``[m, d]``; normalised here. Gradient flows to both parents.
    allowed
        bool ``[b, m]``: the negatives of each query; false negatives must be masked already.
    count
        Mixes for each query.
    hardest
        Parents are drawn from that many of the most similar.
    generator
        Draws the parents and t.
    beta
        1: uniform; larger: nearer the middle. A whole number.

    Returns
    -------
    ``[b, count, d]``; zeros where a query has fewer than two negatives, or its parents are opposite.
    """
    pool, scores = _hardest(q, docs, allowed, hardest)
    if beta < 1 or count < 1:
        raise InputError(f"count and beta must be >= 1, got {count} and {beta}.")
    known = scores.isfinite().sum(1, keepdim=True)
    u = torch.rand((len(q), count, 2 * beta + 1), generator=generator).to(q.device, pool.dtype)
    first = (u[..., 0] * known).long().clamp_max(pool.shape[1] - 1)
    step = 1 + (u[..., 1] * (known - 1).clamp_min(1)).long()
    second = (first + step) % known.clamp_min(1)
    # The median of 2 beta - 1 uniform numbers has the distribution Beta(beta, beta).
    t = u[..., 2:].sort(-1).values[..., beta - 1, None]
    a, b = (pool.gather(1, rows[..., None].expand(-1, -1, pool.shape[2])) for rows in (first, second))
    return _unit(t * a + (1 - t) * b, (known >= 2)[..., None])


def mix_lists(
    q: Tensor,
    docs: Tensor,
    allowed: Tensor,
    *,
    count: int,
    hardest: int,
    generator: torch.Generator,
    size: int = 4,
    temperature: float = 0.1,
) -> Tensor:
    """Mix several of each query's hardest negatives, weighted by the softmax of their similarity to it.

    Parameters
    ----------
    q, docs, allowed, count, hardest, generator
        As in `mix_pairs`.
    size
        Parents of a mix, drawn without replacement from the hardest.
    temperature
        Divisor of similarities in the softmax.

    Returns
    -------
    ``[b, count, d]``; zeros where a query has fewer than two negatives, or its parents cancel.
    """
    pool, scores = _hardest(q, docs, allowed, hardest)
    if count < 1 or size < 2 or not temperature > 0:
        raise InputError(f"count >= 1, size >= 2 and temperature > 0, got {count}, {size} and {temperature}.")
    draw = torch.rand((len(q), count, pool.shape[1]), generator=generator).to(q.device)
    draw = draw.masked_fill(~scores.isfinite()[:, None], -1.0)
    chosen = draw.topk(min(size, pool.shape[1]), dim=-1).indices
    logits = scores[:, None].expand(-1, count, -1).gather(2, chosen) / temperature
    enough = (scores.isfinite().sum(1) >= 2)[:, None, None]
    weights = torch.where(enough, logits, 0.0).softmax(-1)
    parents = pool[:, None].expand(-1, count, -1, -1)
    index = chosen[..., None].expand(-1, -1, -1, pool.shape[2])
    return _unit((weights[..., None] * parents.gather(2, index)).sum(2), enough)


class Mixer:
    """Mixed negatives for `isometry.objectives.InfoNCE`, which calls it after its mask.

    Parameters
    ----------
    kind
        ``"pairs"``, ``"lists"``, or ``"both"`` for as many of each.
    count
        Mixes of a kind for each query.
    hardest
        How many of the most similar negatives take part.
    beta, size, temperature
        As in `mix_pairs` and `mix_lists`.
    seed
        For all draws, one after the other.
    """

    def __init__(
        self,
        kind: Literal["pairs", "lists", "both"] = "pairs",
        *,
        count: int = 7,
        hardest: int = 16,
        beta: int = 1,
        size: int = 4,
        temperature: float = 0.1,
        seed: int = 0,
    ) -> None:
        if kind not in ("pairs", "lists", "both"):
            raise UnknownName("kind of mix", kind, ("pairs", "lists", "both"))
        self.kind, self.count, self.hardest = kind, count, hardest
        self.beta, self.size, self.temperature = beta, size, temperature
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, q: Tensor, docs: Tensor, targets: Tensor, dropped: Tensor) -> Tensor:
        """Return ``[b, count, d]``, twice as many for both kinds; neither positives nor what a mask drops are mixed."""
        allowed = ~dropped & ~one_hot(targets, len(docs)).bool()
        draw: dict[str, Any] = {"count": self.count, "hardest": self.hardest, "generator": self.generator}
        mixes = []
        if self.kind != "lists":
            mixes.append(mix_pairs(q, docs, allowed, beta=self.beta, **draw))
        if self.kind != "pairs":
            mixes.append(mix_lists(q, docs, allowed, size=self.size, temperature=self.temperature, **draw))
        return torch.cat(mixes, dim=1)

    def __repr__(self) -> str:
        return f"Mixer({self.kind!r}, count={self.count}, hardest={self.hardest})"


def _hardest(q: Tensor, docs: Tensor, allowed: Tensor, hardest: int) -> tuple[Tensor, Tensor]:
    """Return each query's hardest negatives ``[b, h, d]``, normalised, and their scores ``[b, h]`` (-inf: none)."""
    if allowed.shape != (len(q), len(docs)) or allowed.dtype != torch.bool:
        raise DimensionMismatch(
            f"allowed must be bool [{len(q)}, {len(docs)}], got {allowed.dtype} {list(allowed.shape)}."
        )
    if hardest < 2:
        raise InputError(f"A mix needs two parents at least: hardest must be >= 2, got {hardest}.")
    dtype = torch.promote_types(q.dtype, torch.float32)
    q, docs = normalize(q.to(dtype), dim=-1), normalize(docs.to(dtype), dim=-1)
    scores, rows = (q @ docs.T).masked_fill(~allowed, -torch.inf).topk(min(hardest, len(docs)), dim=1)
    return docs[rows], scores


def _unit(mix: Tensor, valid: Tensor) -> Tensor:
    """Normalise ``[b, c, d]``; zeros where parents cancel or are too few."""
    length = torch.linalg.vector_norm(mix.detach(), dim=-1, keepdim=True)
    return normalize(torch.where(valid & (length >= 1e-6), mix, 0.0), dim=-1)
