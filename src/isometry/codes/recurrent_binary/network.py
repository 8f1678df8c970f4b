"""The recurrent binarisation network: signs of a projection, then signs of what each reconstruction leaves over."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from isometry.codes.binary import random_rotations
from isometry.codes.code import check_code_size
from isometry.errors import InputError
from isometry.types import FloatArray

Init = Literal["paper", "rotation_skip"]
SHRINK = {"paper": 1.0, "rotation_skip": 0.8}  # length of a reconstruction before it is subtracted


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return torch.where(z >= 0, 1.0, -1.0).to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        inside: Tensor = z.abs() <= 1
        return gradients[0] * inside  # a new tensor: the gradient given belongs to others as well


def straight_through_sign(z: Tensor) -> Tensor:
    """Sign with sgn(0) = +1 whose gradient is that of the identity where ``|z| <= 1``, else 0.

    Straight-through estimator of Bengio et al. (arXiv:1308.3432), saturated as in Hubara et al. (2016).

    >>> z = torch.tensor([-2.0, -0.5, 0.0, 1.0], requires_grad=True)
    >>> straight_through_sign(z).tolist()
    [-1.0, -1.0, 1.0, 1.0]
    >>> straight_through_sign(z).sum().backward()
    >>> z.grad.tolist()
    [0.0, 1.0, 1.0, 1.0]
    """
    return _Sign.apply(z)  # type: ignore[no-any-return, no-untyped-call]


class SkipMLP(nn.Module):
    """``skip x + MLP(x)``: Linear, BatchNorm, ReLU ``blocks`` times, then Linear; the skip is a matrix or absent."""

    def __init__(self, sizes: tuple[int, int, int], blocks: int, skip: Tensor | None, draw: torch.Generator) -> None:
        super().__init__()
        d, hidden, m = sizes
        layers: list[nn.Module] = []
        for i in range(blocks):
            layers += [nn.Linear(hidden if i else d, hidden), nn.BatchNorm1d(hidden), nn.ReLU()]
        last = nn.Linear(hidden, m)
        self.mlp = nn.Sequential(*layers, last)
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight, generator=draw)
                nn.init.zeros_(layer.bias)
        self.skip = None
        if skip is not None:
            self.skip = nn.Parameter(skip.clone())
            nn.init.zeros_(last.weight)  # starts as the skip alone

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, d]`` to ``[n, m]``."""
        out: Tensor = self.mlp(x)
        return out if self.skip is None else out + x @ self.skip.T


class Binariser(nn.Module):
    """Recurrent binarisation of unit vectors ``[n, d]`` into ``b = s_0 + s_1 / 2 + ... + s_u / 2^u``, ``[n, m]``.

    ``s_0 = sgn(W(x))``; for j = 1 .. u: ``s_j = sgn(R_j(x - xhat_j))`` with ``xhat_j = normalise(B_j(b so far))``.

    Parameters
    ----------
    dim, bits, rounds
        d, m (a multiple of 8) and u.
    hidden, blocks
        Width and number of the hidden layers of each map.
    init
        ``"paper"``: Xavier-normal maps; ``"rotation_skip"``: each map is a random rotation plus an MLP that starts at
        zero, and ``xhat`` is shortened to 0.8, so that the untrained network already keeps the geometry.
    binary
        False: no sign at all, the real-valued head W of the same shape (u = 0), the fair reference for what
        binarisation costs.
    """

    def __init__(
        self, dim: int, bits: int, rounds: int = 1, *, hidden: int = 768, blocks: int = 1,
        init: Init = "rotation_skip", binary: bool = True, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        check_shape(bits, rounds)
        if init not in SHRINK or hidden < 1 or blocks < 1:
            raise InputError(
                f"init must be 'paper' or 'rotation_skip', hidden and blocks >= 1; got {init!r}, {hidden}, {blocks}."
            )
        if rounds and not binary:
            raise InputError(f"A head without signs has no residual to refine; use rounds=0, got {rounds}.")
        self.bits, self.rounds, self.binary, self.shrink = bits, rounds, binary, SHRINK[init]
        draw = torch.Generator().manual_seed(seed)
        axes = torch.from_numpy(random_rotations(dim, bits, seed).T.copy()) if init == "rotation_skip" else None
        down = None if axes is None else math.sqrt(bits) * axes
        up = None if axes is None else axes.T.contiguous()
        self.first = SkipMLP((dim, hidden, bits), blocks, down, draw)
        self.decoders = nn.ModuleList(SkipMLP((bits, hidden, dim), blocks, up, draw) for _ in range(rounds))
        self.residuals = nn.ModuleList(SkipMLP((dim, hidden, bits), blocks, down, draw) for _ in range(rounds))

    def planes(self, x: Tensor) -> list[Tensor]:
        """Return the signs of each plane, u + 1 tensors ``[n, m]`` of +-1 (the real values if not binary)."""
        z = self.first(x)
        if not self.binary:
            return [z]
        signs = [straight_through_sign(z)]
        code = signs[0]
        for j, (decoder, residual) in enumerate(zip(self.decoders, self.residuals, strict=True), start=1):
            signs.append(straight_through_sign(residual(x - self.shrink * normalize(decoder(code), dim=-1))))
            code = code + signs[-1] * 0.5**j
        return signs

    def forward(self, x: Tensor) -> Tensor:
        """Return the codes b, float ``[n, m]``, multiples of ``2^-u``."""
        return torch.stack([s * 0.5**j for j, s in enumerate(self.planes(x))]).sum(dim=0)

    def weights(self) -> FloatArray:
        """Return parameters and running statistics as one float32 vector."""
        return np.concatenate([t.detach().numpy().ravel() for t in self._numbers()]).astype(np.float32)

    def set_weights(self, weights: FloatArray) -> None:
        """Put back what `weights` returned."""
        sizes = [t.numel() for t in self._numbers()]
        if sum(sizes) != len(weights):
            raise KeyError(f"{len(weights)} weights where the network has {sum(sizes)}")
        parts = torch.split(torch.from_numpy(weights.copy()), sizes)
        with torch.no_grad():
            for tensor, part in zip(self._numbers(), parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def _numbers(self) -> list[Tensor]:
        return [t for t in self.state_dict().values() if t.is_floating_point()]


def check_shape(bits: int, rounds: int) -> None:
    """Raise `InputError` unless m is a positive multiple of 8 and u is 0 to 6."""
    check_code_size(bits, "a binary code")
    if bits % 8 or not 0 <= rounds <= 6:
        raise InputError(f"bits must be a multiple of 8 and rounds 0 to 6, got bits={bits}, rounds={rounds}.")
