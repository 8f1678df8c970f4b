"""MaxSim on padded token vectors, and InfoNCE over it (ColBERT, arXiv:2004.12832; CRISP, arXiv:2505.11471)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from isometry.errors import DimensionMismatch, InputError
from isometry.objectives.info_nce import settle


def maxsim_scores(q: Tensor, q_mask: Tensor, d: Tensor, d_mask: Tensor, *, normalise: bool = False) -> Tensor:
    """MaxSim of every query with every document: sum over query vectors of the best dot product (ColBERT, eq. 3).

    Parameters
    ----------
    q, d
        Token vectors ``[b, s, w]`` and ``[m, t, w]``.
    q_mask, d_mask
        bool ``[b, s]`` and ``[m, t]``: vectors that count.
    normalise
        Divide by the number of the query's vectors, so that scores of queries of any length have one scale.

    Returns
    -------
    ``[b, m]``; 0 where a text has no vector.

    Examples
    --------
    >>> q, d = torch.eye(2)[None], torch.tensor([[[1.0, 0.0], [0.0, 0.5]]])
    >>> maxsim_scores(q, torch.tensor([[True, True]]), d, torch.tensor([[True, True]])).item()
    1.5
    """
    _check(q, q_mask, "q")
    _check(d, d_mask, "d")
    if q.shape[2] != d.shape[2]:
        raise DimensionMismatch(f"Queries are {q.shape[2]} wide and documents {d.shape[2]}; they must be equal.")
    (b, _, width), (m, t, _) = q.shape, d.shape
    owner = torch.arange(b, device=q.device)[:, None].expand_as(q_mask)[q_mask]
    rows = q[q_mask]
    if not m or not t or not len(rows):
        return q.new_zeros(b, m)
    # Padding may hold anything: zeroed, so that it reaches no sum and no gradient.
    flat = torch.where(d_mask[..., None], d, 0.0).reshape(m * t, width)
    best = (rows @ flat.T).view(-1, m, t).masked_fill(~d_mask, -torch.inf).max(-1).values
    total = q.new_zeros(b, m).index_add(0, owner, torch.where(d_mask.any(1), best, 0.0))
    return total / q_mask.sum(1).clamp_min(1)[:, None] if normalise else total


def maxsim_info_nce(
    scores: Tensor,
    *,
    temperature: float | Tensor = 0.05,
    targets: Tensor | None = None,
    drop: Tensor | None = None,
    reduction: Literal["mean", "none"] = "mean",
) -> Tensor:
    """InfoNCE over given scores: cross-entropy of each query's positive among all documents of the batch.

    Parameters
    ----------
    scores
        ``[b, m]``, e.g. of `maxsim_scores` with ``normalise=True``: a fixed temperature needs scores of one scale.
    temperature
        Divisor of the scores; a tensor may be learned.
    targets
        int64 ``[b]``: column of each row's positive; default ``0 .. b - 1``. Columns beyond are hard negatives.
    drop
        bool ``[b, m]``: candidates to leave out (false negatives); the positive is never dropped.

    Raises
    ------
    DimensionMismatch
        If shapes do not fit.
    InputError
        If temperature or targets are out of range.

    Examples
    --------
    >>> round(float(maxsim_info_nce(torch.eye(2), temperature=1.0)), 4)    # log(1 + 1/e)
    0.3133
    """
    b, m = scores.shape if scores.ndim == 2 else (0, 0)
    if not b or (b > m and targets is None):
        raise DimensionMismatch(f"scores must be [b, m] with m >= b >= 1, got {list(scores.shape)}.")
    if not torch.as_tensor(temperature).gt(0).all():
        raise InputError(f"temperature must be > 0, got {temperature}.")
    targets = torch.arange(b, device=scores.device) if targets is None else targets
    if targets.shape != (b,) or not 0 <= int(targets.min()) <= int(targets.max()) < m:
        raise InputError(f"targets must name one of the {m} documents for each of the {b} queries.")
    logits = scores / temperature
    if drop is not None:
        if drop.shape != scores.shape or drop.dtype != torch.bool:
            raise DimensionMismatch(f"drop must be bool {[b, m]}, got {drop.dtype} {list(drop.shape)}.")
        logits = logits.masked_fill(settle({"qd": drop}, targets)["qd"], -torch.inf)
    return cross_entropy(logits, targets, reduction=reduction)


class MaxSimInfoNCE(nn.Module):
    """InfoNCE over MaxSim as a loss object, with a temperature that may be learned.

    Parameters
    ----------
    temperature
        Divisor of the scores.
    learn
        Learn its logarithm, beginning there.
    normalise
        Divide scores by the number of query vectors.
    """

    def __init__(self, temperature: float = 0.05, *, learn: bool = False, normalise: bool = True) -> None:
        super().__init__()
        if not temperature > 0:
            raise InputError(f"temperature must be > 0, got {temperature}.")
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)), requires_grad=learn)
        self.normalise = normalise

    @property
    def temperature(self) -> float:
        """The divisor as it is now."""
        return float(self.log_temperature.detach().exp())

    def forward(
        self, q: tuple[Tensor, Tensor], d: tuple[Tensor, Tensor], targets: Tensor | None = None,
        drop: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Return the loss of ``(vectors, mask)`` of queries and documents; targets and drop as in the function."""
        scores = maxsim_scores(*q, *d, normalise=self.normalise)
        return maxsim_info_nce(scores, temperature=self.log_temperature.exp(), targets=targets, drop=drop)


def _check(x: Tensor, mask: Tensor, what: str) -> None:
    if x.ndim != 3 or mask.shape != x.shape[:2] or mask.dtype != torch.bool:
        raise DimensionMismatch(
            f"{what} must be tokens [n, t, w] with a bool mask [n, t], got {list(x.shape)} and {mask.dtype} "
            f"{list(mask.shape)}."
        )
