"""Pooling: a text's token states to one vector.

cls_pool, mean_pool, weighted_mean_pool, last_pool, max_pool    nothing to train
pool_mask.pool_mask real tokens without those of the instruction
LatentAttention     every token looks up a learned dictionary, then the mean (NV-Embed)
TrainablePooling    latents look over the last layer, or over all layers
Perceiver           the cross-attention both are made of
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isometry.lazy import exports

_HOMES = {
    "LatentAttention": "latent_attention",
    "Perceiver": "perceiver",
    "PoolingHead": "head",
    "TopLayerPooling": "top_layers",
    "TrainablePooling": "trainable",
    "cls_pool": "plain",
    "last_pool": "plain",
    "layer_context": "trainable",
    "max_pool": "plain",
    "mean_pool": "plain",
    "pool": "plain",
    "top_layers_pool": "top_layers",
    "weighted_mean_pool": "plain",
    "with_top_layers": "top_layers",
}

if TYPE_CHECKING:
    from isometry.modules.pooling.head import PoolingHead
    from isometry.modules.pooling.latent_attention import LatentAttention
    from isometry.modules.pooling.perceiver import Perceiver
    from isometry.modules.pooling.plain import cls_pool, last_pool, max_pool, mean_pool, pool, weighted_mean_pool
    from isometry.modules.pooling.top_layers import TopLayerPooling, top_layers_pool, with_top_layers
    from isometry.modules.pooling.trainable import TrainablePooling, layer_context

__all__ = [
    "LatentAttention",
    "Perceiver",
    "PoolingHead",
    "TopLayerPooling",
    "TrainablePooling",
    "cls_pool",
    "last_pool",
    "layer_context",
    "max_pool",
    "mean_pool",
    "pool",
    "top_layers_pool",
    "weighted_mean_pool",
    "with_top_layers",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
