"""Whitening of a batch in random groups of channels, a layer for training (WhitenedCSE, arXiv:2305.17746)."""

from __future__ import annotations

from math import ceil

import torch
from torch import Tensor, nn

from isometry.errors import DimensionMismatch, InputError, NotFitted
from isometry.numerics.whitening import newton_schulz, whitening_matrix


class GroupWhitening(nn.Module):
    """Shuffled group whitening: channels are dealt into groups, each group is ZCA-whitened over the batch.

    Another permutation is drawn from torch's generator in every call, so several calls on one batch give several
    different views of it, all white within their groups. Whiten each dropout view by its own call: statistics of rows
    that mix views are those of no view.

    Parameters
    ----------
    dim
        Channels D.
    groups
        G, a divisor of D: 1 whitens all channels together, D standardises each. None chooses for every batch the
        fewest groups whose size is at most half the batch, ``G >= 2 D / n``.
    stop_gradient
        Take the whitening matrix as a constant. Faster and stabler; False differentiates through it.
    newton
        0: by eigenvectors, exact. Otherwise so many Newton-Schulz iterations, whose gradient exists where
        eigenvalues tie.
    eps
        Added to the covariance's diagonal, as a share of its mean eigenvalue.
    momentum
        Of the running mean and covariance, which whiten in evaluation mode instead of the batch's own: a batch of test
        data must not whiten itself.

    Examples
    --------
    >>> y = GroupWhitening(4, groups=2)(torch.randn(64, 4, generator=torch.Generator().manual_seed(0)))
    >>> bool(y.mean(0).abs().max() < 1e-5), bool((y.var(0, correction=0) - 1).abs().max() < 1e-3)
    (True, True)
    """

    mean: Tensor
    covariance: Tensor
    batches: Tensor

    def __init__(
        self, dim: int, groups: int | None = None, *, stop_gradient: bool = True, newton: int = 0, eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        if dim < 1 or (groups is not None and (groups < 1 or dim % groups)):
            raise InputError(f"groups must divide the {dim} channels, got {groups}.")
        if eps < 0 or newton < 0 or not 0 < momentum <= 1:
            raise InputError(f"eps and newton must be >= 0, momentum in (0, 1]; got {eps}, {newton}, {momentum}.")
        self.dim, self.groups, self.stop_gradient = dim, groups, stop_gradient
        self.newton, self.eps, self.momentum = newton, eps, momentum
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("covariance", torch.zeros(dim, dim))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    def groups_for(self, n: int) -> int:
        """Return G for a batch of n rows.

        Raises
        ------
        InputError
            If the batch has fewer than two rows per channel of a group: its covariance says little, or is singular.
        """
        least = self.groups or next((g for g in range(ceil(2 * self.dim / max(n, 1)), self.dim + 1)
                                     if self.dim % g == 0), self.dim)  # fmt: skip
        size = self.dim // least
        if n < 2 * size:
            raise InputError(f"Whitening groups of {size} channels needs a batch of at least {2 * size}, got {n}.")
        return least

    def forward(self, x: Tensor, permutation: Tensor | None = None) -> Tensor:
        """Whiten ``[n, D]``; ``permutation`` int64 ``[D]`` deals the channels, the default is random.

        Raises
        ------
        DimensionMismatch
            If x is no matrix of D columns.
        InputError
            If the batch is too small for the groups.
        NotFitted
            In evaluation mode, before any batch was seen in training mode.
        """
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise DimensionMismatch(f"Whitening takes [n, {self.dim}], got {list(x.shape)}.")
        if not self.training:
            return self._evaluate(x)
        groups = self.groups_for(len(x))
        dealt = torch.randperm(self.dim, device=x.device) if permutation is None else permutation
        mean = x.mean(dim=0)
        centred = x - mean
        self._remember(mean.detach(), centred.detach())
        parts = centred[:, dealt].reshape(len(x), groups, -1).transpose(0, 1)
        covariance = parts.mT @ parts / len(x)
        matrix = self.matrix(covariance.detach() if self.stop_gradient else covariance)
        white = (parts @ matrix.to(parts)).transpose(0, 1).reshape(len(x), self.dim)
        return white[:, dealt.argsort()]

    def matrix(self, covariance: Tensor) -> Tensor:
        """Return the ZCA matrices of covariances ``[g, s, s]``, at least float32."""
        c = covariance.to(torch.promote_types(covariance.dtype, torch.float32))
        identity = torch.eye(c.shape[-1], dtype=c.dtype, device=c.device)
        floor = self.eps * c.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(torch.finfo(c.dtype).tiny)
        c = c + floor[:, None, None] * identity
        if self.newton:
            root: Tensor = newton_schulz(c, identity, self.newton)
            return root
        found: Tensor = whitening_matrix(c, "zca", linalg=torch.linalg)
        return found

    def _remember(self, mean: Tensor, centred: Tensor) -> None:
        share = self.momentum if self.batches else 1.0
        self.mean.lerp_(mean.to(self.mean), share)
        self.covariance.lerp_((centred.T @ centred / len(centred)).to(self.covariance), share)
        self.batches += 1

    def _evaluate(self, x: Tensor) -> Tensor:
        if not self.batches:
            raise NotFitted("This whitening has no statistics yet; run it on training batches in training mode first.")
        groups = self.groups or 1
        size = self.dim // groups
        blocks = self.covariance.reshape(groups, size, groups, size).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        parts = (x - self.mean.to(x)).reshape(len(x), groups, size).transpose(0, 1)
        return (parts @ self.matrix(blocks).to(x)).transpose(0, 1).reshape(len(x), self.dim)

    def extra_repr(self) -> str:
        """Channels, groups and gradient, for people."""
        return f"{self.dim}, groups={self.groups or 'auto'}, stop_gradient={self.stop_gradient}, newton={self.newton}"
