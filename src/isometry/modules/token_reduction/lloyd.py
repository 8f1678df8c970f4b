"""Lloyd's k-means inside each text of a padded batch, all texts at once."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from isometry.modules.token_reduction.segments import segment_mean


def squared_distances(x: Tensor, centres: Tensor) -> Tensor:
    """Return squared Euclidean distances ``[b, t, k]`` of tokens ``[b, t, d]`` to centres ``[b, k, d]``."""
    norms = x.square().sum(-1)[..., None] + centres.square().sum(-1)[:, None, :]
    return torch.baddbmm(norms, x, centres.transpose(1, 2), alpha=-2).clamp_min(0)


def farthest_first(x: Tensor, mask: Tensor, k: int) -> Tensor:
    """Farthest-first traversal (Gonzalez 1985): ``[b, k, d]``.

    Begins with the token farthest from the mean, then always takes the one farthest from all chosen.
    Independent of the order of tokens, up to exact ties.
    """
    mean = segment_mean(x, torch.zeros_like(mask, dtype=torch.long), 1, mask)[0]
    nearest = squared_distances(x, mean)[..., 0]
    chosen: list[Tensor] = []
    for i in range(k):
        row = nearest.masked_fill(~mask, -1).argmax(1)
        chosen.append(x[torch.arange(len(x), device=x.device), row])
        away = squared_distances(x, chosen[-1][:, None])[..., 0]
        nearest = torch.minimum(nearest, away) if i else away
    return torch.stack(chosen, 1)


def plus_plus(x: Tensor, mask: Tensor, k: int, generator: Generator) -> Tensor:
    """k-means++ seeding (Arthur and Vassilvitskii 2007): drawn in proportion to squared distance, ``[b, k, d]``."""
    rows = torch.arange(len(x), device=x.device)
    weight = mask.to(x.dtype)
    nearest = torch.full_like(weight, torch.inf)
    chosen: list[Tensor] = []
    for _ in range(k):
        # Where every token lies on a centre already, any token will do: its cluster stays empty and is dropped.
        weight = torch.where(weight.sum(1, keepdim=True) > 0, weight, mask.to(x.dtype))
        weight = torch.where(mask.any(1, keepdim=True), weight, 1.0)
        row = torch.multinomial(weight.float().cpu(), 1, generator=generator)[:, 0].to(x.device)
        chosen.append(x[rows, row])
        nearest = torch.minimum(nearest, squared_distances(x, chosen[-1][:, None])[..., 0])
        weight = nearest.masked_fill(~mask, 0)
    return torch.stack(chosen, 1)


def lloyd(
    x: Tensor, mask: Tensor, counts: Tensor, *, steps: int = 10, generator: Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Cluster the tokens of each text by k-means (Lloyd 1982), without gradient, in at least float32.

    Parameters
    ----------
    x, mask
        Tokens ``[b, t, d]`` and which count, bool ``[b, t]``.
    counts
        int64 ``[b]``: clusters of each text. A text with no more tokens than that keeps each in a cluster of its own,
        numbered in their order.
    steps
        Lloyd's steps.
    generator
        Draws the seeds by k-means++; None: `farthest_first`, which is the same every time.

    Returns
    -------
    Assignments int64 ``[b, t]`` and the objective after each step, ``[steps + 1, b]``: the sum of squared distances of
    tokens to their nearest centre.
    """
    # Half precision flips assignments.
    x = torch.where(mask[..., None], x.detach().to(torch.promote_types(x.dtype, torch.float32)), 0.0)
    k = int(counts.max()) if len(x) else 1
    centres = farthest_first(x, mask, k) if generator is None else plus_plus(x, mask, k, generator)
    absent = torch.arange(k, device=x.device) >= counts[:, None]
    history: list[Tensor] = []
    for step in range(steps + 1):
        distances = squared_distances(x, centres).masked_fill(absent[:, None], torch.inf)
        smallest, assignment = distances.min(-1)
        history.append(smallest.masked_fill(~mask, 0).sum(1))
        if step < steps:
            means, held = segment_mean(x, assignment, k, mask)
            centres = torch.where(held[..., None], means, centres)
    own = mask.long().cumsum(1) - 1
    few = mask.sum(1, keepdim=True) <= counts[:, None]
    return torch.where(few, own.clamp_min(0), assignment), torch.stack(history)
