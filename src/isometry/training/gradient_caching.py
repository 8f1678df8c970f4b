"""Gradient caching: exact gradients of large batches in the memory of small ones (Gao et al. 2021, arXiv:2101.06983).

A contrastive loss needs the vectors of the whole batch, but not their activations. Each chunk is embedded without
keeping activations; when the gradient of the loss by its vectors is known, the chunk is embedded once more, under the
same random numbers, and the gradient flows on into the parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from isometry.errors import EmptyInput

Chunk = TypeVar("Chunk")


def embed_cached(embed: Callable[[Chunk], Tensor], chunks: Iterable[Chunk]) -> Tensor:
    """Embed chunks one after another, keeping no activations; return ``[n, d]``, with gradient.

    Parameters
    ----------
    embed
        From a chunk to its vectors ``[n_i, d]``. Run twice, the second time under the random state of the first, so
        that dropout draws the same mask; it must not draw from Python's or numpy's generators.
    chunks
        The batch in parts.

    Raises
    ------
    EmptyInput
        If there is no chunk.

    Examples
    --------
    >>> layer = torch.nn.Linear(3, 2)
    >>> x = torch.eye(3)
    >>> torch.equal(embed_cached(layer, [x[:2], x[2:]]), layer(x))
    True
    """
    parts = [checkpoint(embed, chunk, use_reentrant=False, preserve_rng_state=True) for chunk in chunks]
    if not parts:
        raise EmptyInput("Gradient caching was given no chunk to embed.")
    return torch.cat(parts)


def grad_cache(embed: Callable[[Chunk], Tensor], chunks: Iterable[Chunk], loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Run one step of gradient caching: gradients land in the parameters; return the loss, without gradient.

    Parameters
    ----------
    embed, chunks
        As in `embed_cached`.
    loss
        From all vectors ``[n, d]`` to a scalar.
    """
    value = loss(embed_cached(embed, chunks))
    value.backward()  # type: ignore[no-untyped-call]
    return value.detach()
