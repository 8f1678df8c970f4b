"""The linear head of late interaction: token states to short token vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from isometry.errors import InputError


class TokenProjection(nn.Module):
    """Linear projection of token states without bias (ColBERT, arXiv:2004.12832, section 3.2).

    Parameters
    ----------
    in_dim, out_dim
        Width of a token state and of a token vector.
    normalize
        Scale every token vector to norm 1, so that dot products are cosines.
    seed
        The initial map is a random one with orthonormal rows (or columns where it widens): before any training it
        keeps angles as well as a map of this width can in expectation.

    Examples
    --------
    >>> head = TokenProjection(6, 2)
    >>> head(torch.ones(3, 5, 6)).shape
    torch.Size([3, 5, 2])
    """

    def __init__(self, in_dim: int, out_dim: int, *, normalize: bool = True, seed: int = 0) -> None:
        super().__init__()
        if min(in_dim, out_dim) < 1:
            raise InputError(f"A projection needs widths of at least 1, got {in_dim} and {out_dim}.")
        self.in_dim, self.out_dim, self.normalize = in_dim, out_dim, normalize
        drawn = torch.randn(max(in_dim, out_dim), min(in_dim, out_dim), generator=torch.Generator().manual_seed(seed))
        basis = torch.linalg.qr(drawn)[0]
        self.weight = nn.Parameter(basis.T.contiguous() if in_dim >= out_dim else basis)

    def forward(self, states: Tensor) -> Tensor:
        """Project ``[..., in_dim]`` to ``[..., out_dim]``."""
        vectors = states @ self.weight.T
        return normalize(vectors, dim=-1) if self.normalize else vectors

    def extra_repr(self) -> str:
        """Widths and norm, for people."""
        return f"{self.in_dim}, {self.out_dim}, normalize={self.normalize}"
