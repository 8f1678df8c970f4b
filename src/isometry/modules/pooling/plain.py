"""Plain pooling: token states ``[b, t, d]`` to one vector each, without anything to train.

Every function takes the states and a mask ``[b, t]`` that is not 0 at the tokens to pool, padded on either side.
"""

from __future__ import annotations

import torch
from torch import Tensor

from isometry.errors import DimensionMismatch, InputError, UnknownName


def cls_pool(states: Tensor, mask: Tensor) -> Tensor:
    """Return the state of each text's first token, ``[b, d]`` (CLS pooling)."""
    return _at(states, _real(states, mask).int().argmax(1))


def last_pool(states: Tensor, mask: Tensor) -> Tensor:
    """Return the state of each text's last token, ``[b, d]`` (EOS or last-token pooling).

    >>> last_pool(torch.arange(3.0)[None, :, None], torch.tensor([[1, 1, 0]]))
    tensor([[1.]])
    """
    real = _real(states, mask)
    return _at(states, real.shape[1] - 1 - real.flip(1).int().argmax(1))


def mean_pool(states: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of each text's token states, ``[b, d]``."""
    return _weighted(states, _real(states, mask).to(states.dtype))


def weighted_mean_pool(states: Tensor, mask: Tensor) -> Tensor:
    """Return the mean weighted by position, 1 for the first token, ``[b, d]`` (SGPT, arXiv:2202.08904).

    In a causal decoder later tokens have seen more.
    """
    real = _real(states, mask)
    return _weighted(states, (real.cumsum(1) * real).to(states.dtype))


def max_pool(states: Tensor, mask: Tensor) -> Tensor:
    """Return the largest value of each coordinate over a text's tokens, ``[b, d]``."""
    return states.masked_fill(~_real(states, mask)[..., None], -torch.inf).amax(1)


POOLINGS = {
    "cls": cls_pool,
    "last": last_pool,
    "max": max_pool,
    "mean": mean_pool,
    "weighted_mean": weighted_mean_pool,
}


def pool(states: Tensor, mask: Tensor, how: str) -> Tensor:
    """Pool by name: ``"cls"``, ``"last"``, ``"max"``, ``"mean"`` or ``"weighted_mean"``."""
    if how not in POOLINGS:
        raise UnknownName("pooling", how, POOLINGS)
    return POOLINGS[how](states, mask)


def _at(states: Tensor, positions: Tensor) -> Tensor:
    return states[torch.arange(len(states), device=states.device), positions]


def _weighted(states: Tensor, weights: Tensor) -> Tensor:
    # padding may hold anything, NaN included: it is put to 0 rather than multiplied by 0
    kept = states.masked_fill(weights[..., None] == 0, 0.0)
    return (kept * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)


def _real(states: Tensor, mask: Tensor) -> Tensor:
    if states.ndim != 3 or mask.shape != states.shape[:2]:
        raise DimensionMismatch(
            f"Pooling needs states [b, t, d] and a mask [b, t], got {list(states.shape)} and {list(mask.shape)}."
        )
    real = mask.bool()
    if not real.any(1).all():
        raise InputError(
            f"Text {int((~real.any(1)).nonzero()[0])} of the batch has no token to pool: its mask is all 0."
        )
    return real
