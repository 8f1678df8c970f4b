"""Trainable pooling over the last layer or over all layers (Tang and Yang 2024, arXiv:2409.02727)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from isometry.errors import InputError
from isometry.modules.pooling.head import PoolingHead
from isometry.modules.pooling.perceiver import Perceiver
from isometry.modules.pooling.plain import last_pool, mean_pool


def layer_context(states: Sequence[Tensor], mask: Tensor, *, causal: bool) -> Tensor:
    """Return one vector per layer, ``[b, n, d]``: its last token under causal attention, its mean under bidirectional.

    Parameters
    ----------
    states
        States of the layers to look at, each ``[b, t, d]``; leave the token embeddings out.
    mask
        Pool mask ``[b, t]``.
    causal
        Whether the states come from causal attention, where the last token alone has seen the text.
    """
    pooling = last_pool if causal else mean_pool
    return torch.stack([pooling(layer, mask) for layer in states], dim=1)


class TrainablePooling(PoolingHead):
    """Trainable latents attend to the states of the last layer, or to one state of every layer; their mean is taken.

    What is looked at, the *context*, depends on two switches:

    ======== ============================ ===========================
    causal   ``layers=None``              ``layers=n``
    ======== ============================ ===========================
    True     the last token's state       each layer's last token
    False    the states of all tokens     each layer's mean
    ======== ============================ ===========================

    Under causal attention and one layer the context is a single state: softmax over one key is 1, so attention adds
    the same vector to every latent whatever its weights for queries and keys, and the head is a feed-forward network
    on that state. The normalisation before the keys puts layers with and without the model's final norm on one scale.

    Parameters
    ----------
    dim
        Width of a state and of a vector.
    layers
        Number of layers to look at, token embeddings excluded; None for the last alone.
    causal
        The attention of the body below.
    latents, heads, head_dim, mult
        Sizes; the authors' are 768, 32, 2048 and 4 at width 4096.
    seed
        Initial weights.
    """

    config_keys = ("dim", "layers", "causal", "latents", "heads", "head_dim", "mult")

    def __init__(
        self,
        dim: int,
        *,
        layers: int | None = None,
        causal: bool = False,
        latents: int = 32,
        heads: int = 4,
        head_dim: int = 64,
        mult: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if layers is not None and layers < 1:
            raise InputError(f"layers must be a number of layers, or None for the last alone, got {layers}.")
        self.dim, self.layers, self.causal = dim, layers, causal
        self.latents, self.heads, self.head_dim, self.mult = latents, heads, head_dim, mult
        self.perceiver = Perceiver(
            dim, asking="latents", latents=latents, heads=heads, head_dim=head_dim, mult=mult, seed=seed
        )
        if layers is not None:
            drawn = torch.randn(layers, dim, generator=torch.Generator().manual_seed(seed))
            self.layer_embedding = nn.Parameter(0.02 * drawn)

    def pool(self, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return one vector a text, ``[b, dim]``, from its context ``[b, n, dim]`` and what of it counts ``[b, n]``."""
        if self.layers is not None:
            if context.shape[1] != self.layers:
                raise InputError(f"This head looks at {self.layers} layers, but the context holds {context.shape[1]}.")
            context = context + self.layer_embedding
        pooled: Tensor = self.perceiver(context, mask).mean(1)
        return pooled

    def pool_features(self, features: dict[str, Any], mask: Tensor) -> Tensor:
        """Pool the token states of a feature dict: ``token_embeddings``, or ``all_layer_embeddings``."""
        if self.layers is not None:
            if "all_layer_embeddings" not in features:
                raise InputError(
                    "Pooling over layers needs the states of all; make the DecoderTransformer with all_layers."
                )
            return self.pool(layer_context(features["all_layer_embeddings"][1:], mask, causal=self.causal))
        states = features["token_embeddings"]
        return self.pool(last_pool(states, mask)[:, None]) if self.causal else self.pool(states, mask)
