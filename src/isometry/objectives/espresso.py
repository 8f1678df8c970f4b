"""What a compressed embedding is pulled towards in ESE: the principal content of the whole one."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from isometry.errors import DimensionMismatch, InputError
from isometry.objectives.distillation import listwise_distillation


@torch.no_grad()
def pca_target(vectors: Tensor, dims: int) -> Tensor:
    """Return vectors compressed by the leading directions of their softened dependencies, without gradient.

    ``M U_k diag(S_k)`` for the singular value decomposition U S V' of ``softmax(M'M / sqrt(D))`` (rows), the
    compression target of ESE (the later form of arXiv:2402.14776).

    Parameters
    ----------
    vectors
        M, ``[b, D]``.
    dims
        k, from 1 to D.

    Returns
    -------
    torch.Tensor
        ``[b, k]``. Each direction's sign is set so that its largest entry is positive: left to the decomposition, the
        target would flip from batch to batch.

    Raises
    ------
    InputError
        If a vector is not finite, or ``dims`` out of range.
    """
    if vectors.ndim != 2 or not 1 <= dims <= vectors.shape[1]:
        raise DimensionMismatch(f"Compressing {list(vectors.shape)} to {dims} dims is impossible; give [b, D], k <= D.")
    if not torch.isfinite(vectors).all():
        raise InputError("Vectors to compress hold NaN or infinity; look at this step's batch or lower the rate.")
    return vectors @ spectral_map((vectors.T @ vectors / vectors.shape[1] ** 0.5).softmax(1), dims)


@torch.no_grad()
def spectral_map(matrix: Tensor, dims: int) -> Tensor:
    """Return ``U_k diag(S_k)`` ``[D, k]`` of a square matrix, each column's largest entry positive.

    >>> spectral_map(torch.diag(torch.tensor([1.0, -3.0])), 1)
    tensor([[0.],
            [3.]])
    """
    # The left singular vectors are the eigenvectors of A A', several times cheaper than a full decomposition.
    squares, u = torch.linalg.eigh(matrix @ matrix.T)
    squares, u = squares.flip(0)[:dims], u.flip(1)[:, :dims]
    signs = torch.where(u.gather(0, u.abs().argmax(0, keepdim=True)) < 0, -1.0, 1.0)
    scaled: Tensor = u * signs * squares.clamp_min(0).sqrt()
    return scaled


def pca_alignment(
    vectors: Tensor, dims: int, *, divergence: Literal["kl", "mse"] = "kl", temperature: float = 1.0
) -> Tensor:
    """Distance of the first ``dims`` coordinates from `pca_target`: KL of their softmax, or mean squared error."""
    target = pca_target(vectors, dims)
    if divergence == "mse":
        return mse_loss(vectors[:, :dims], target)
    return listwise_distillation(vectors[:, :dims], target, temperature=temperature, teacher_temperature=temperature)
