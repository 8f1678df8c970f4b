"""Latent attention pooling: every token looks up a learned dictionary, then the mean (NV-Embed, arXiv:2405.17428)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from isometry.modules.pooling.head import PoolingHead
from isometry.modules.pooling.perceiver import Perceiver
from isometry.modules.pooling.plain import mean_pool


class LatentAttention(PoolingHead):
    """Latent attention: token states attend to trainable latents, a gated feed-forward follows, then a masked mean.

    No mask is needed in the attention, for every latent is valid. Vectors are not normalised; put ``Normalize`` of
    sentence-transformers behind.

    Parameters
    ----------
    dim
        Width of a token state and of a vector.
    latents, heads, head_dim, mult
        Sizes; the authors' are 512, 8, 4096 and 4 at width 4096.
    seed
        Initial weights.
    """

    config_keys = ("dim", "latents", "heads", "head_dim", "mult")

    def __init__(
        self, dim: int, *, latents: int = 64, heads: int = 4, head_dim: int = 64, mult: int = 4, seed: int = 0
    ) -> None:
        super().__init__()
        self.dim, self.latents, self.heads, self.head_dim, self.mult = dim, latents, heads, head_dim, mult
        self.perceiver = Perceiver(
            dim, asking="states", latents=latents, heads=heads, head_dim=head_dim, mult=mult, seed=seed
        )

    def pool(self, states: Tensor, mask: Tensor) -> Tensor:
        """Return one vector a text, ``[b, dim]``, from states ``[b, t, dim]`` and a pool mask ``[b, t]``."""
        return mean_pool(self.perceiver(states), mask)

    def pool_features(self, features: dict[str, Any], mask: Tensor) -> Tensor:
        """Pool the token states of a feature dict."""
        return self.pool(features["token_embeddings"], mask)
