"""Focal weights: rows count by their difficulty (Lin et al. 2017, arXiv:1708.02002; KaLM-Embedding-V2)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from isometry.errors import DataWarning, InputError


def focal_weights(losses: Tensor, gamma: float, *, normalise: bool = False) -> Tensor:
    """Return ``(1 - p)^gamma`` for cross-entropy losses ``-log p``, without gradient, between 0 and 1.

    Without gradient a weight scales the gradient of its row and nothing else, as in KaLM-Embedding-V2
    (arXiv:2506.20923); with gradient it would be another method.

    Parameters
    ----------
    losses
        ``[b]``.
    gamma
        0: every row counts the same; larger: hard rows count more.
    normalise
        Divide by the mean weight, so that easy rows do not make the step shorter. Weights may then exceed 1.

    Raises
    ------
    InputError
        If gamma is negative.

    Warns
    -----
    DataWarning
        If the mean weight is below 0.01 (and not normalised): almost nothing is left of the loss.

    Examples
    --------
    >>> losses = -torch.tensor([0.19, 0.75]).log()
    >>> focal_weights(losses, 0.5)
    tensor([0.9000, 0.5000])
    """
    if not gamma >= 0:
        raise InputError(f"gamma must be >= 0, got {gamma}.")
    losses = losses.detach()
    weights = -torch.expm1(-losses.clamp_min(0.0))
    weights = weights**gamma
    mean = weights.mean()
    if normalise:
        return weights / mean.clamp_min(torch.finfo(weights.dtype).tiny)
    if float(mean) < 0.01:
        warnings.warn(
            f"The mean focal weight is {float(mean):.1e}: almost every row is easy and hardly counts; lower gamma, "
            "raise the temperature or find harder rows.",
            DataWarning,
            stacklevel=2,
        )
    return weights


@dataclass(frozen=True)
class Focal:
    """Row weights for `isometry.objectives.InfoNCE`: `focal_weights` with its gamma set."""

    gamma: float = 0.5
    normalise: bool = False

    def __call__(self, losses: Tensor) -> Tensor:
        """Return ``[b]``."""
        return focal_weights(losses, self.gamma, normalise=self.normalise)
