"""Torch modules between tokens and a vector, and compressed embedding tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isometry.lazy import exports

# Public names and their homes; each is imported when first asked for.
_HOMES: dict[str, str] = {
    "Agglomerative": "token_reduction",
    "BottleneckDecoder": "bottleneck_decoder",
    "Clusters": "token_reduction",
    "ComparisonHead": "comparison_head",
    "CompressedEmbedding": "embedding_tables",
    "ContextualDecoder": "contextual_decoder",
    "ContextualToken": "contextual_token",
    "DecoderTransformer": "decoder_transformer",
    "DotHead": "comparison_head",
    "GroupWhitening": "group_whitening",
    "LatentAttention": "pooling",
    "MaskedPixels": "pixel_transformer",
    "MaskingCollator": "mlm",
    "PairStudent": "comparison_head",
    "Perceiver": "pooling",
    "PixelConfig": "pixel_transformer",
    "PixelTransformer": "pixel_transformer",
    "PredictionHead": "mlm",
    "RetroMAE": "bottleneck_decoder",
    "SizedMAE": "bottleneck_decoder",
    "SoftTokenProjector": "contextual_token",
    "TextRenderer": "text_renderer",
    "TokenProjection": "token_projection",
    "TrainablePooling": "pooling",
    "YesNoModel": "yes_no",
    "YesNoPrompt": "yes_no",
    "add_tokens": "special_tokens",
    "allowed": "attention_mask",
    "bottleneck_mask": "special_tokens",
    "check_attention": "attention_mask",
    "check_bottleneck": "special_tokens",
    "compressed_table": "embedding_tables",
    "cut_layers": "layer_cut",
    "hide_tokens": "mlm",
    "insert_tokens": "special_tokens",
    "keep_dims": "bottleneck_decoder",
    "layer_embeddings": "layer_states",
    "layer_readouts": "layer_states",
    "masked_batch": "mlm",
    "masked_loss": "mlm",
    "numeric_share": "mlm",
    "reduce_embeddings": "token_reduction",
    "reducers": "token_reduction",
    "splice_token": "contextual_token",
    "trim_to_rows": "vocabulary_trim",
    "trim_vocabulary": "vocabulary_trim",
    "whole_word_mask": "mlm",
}

if TYPE_CHECKING:
    from isometry.modules.attention_mask import allowed, check_attention
    from isometry.modules.bottleneck_decoder import BottleneckDecoder, RetroMAE, SizedMAE, keep_dims
    from isometry.modules.comparison_head import ComparisonHead, DotHead, PairStudent
    from isometry.modules.contextual_decoder import ContextualDecoder
    from isometry.modules.contextual_token import ContextualToken, SoftTokenProjector, splice_token
    from isometry.modules.decoder_transformer import DecoderTransformer
    from isometry.modules.embedding_tables import CompressedEmbedding, compressed_table
    from isometry.modules.group_whitening import GroupWhitening
    from isometry.modules.layer_cut import cut_layers
    from isometry.modules.layer_states import layer_embeddings, layer_readouts
    from isometry.modules.mlm import (
        MaskingCollator,
        PredictionHead,
        hide_tokens,
        masked_batch,
        masked_loss,
        numeric_share,
        whole_word_mask,
    )
    from isometry.modules.pixel_transformer import MaskedPixels, PixelConfig, PixelTransformer
    from isometry.modules.pooling import LatentAttention, Perceiver, TrainablePooling
    from isometry.modules.special_tokens import add_tokens, bottleneck_mask, check_bottleneck, insert_tokens
    from isometry.modules.text_renderer import TextRenderer
    from isometry.modules.token_projection import TokenProjection
    from isometry.modules.token_reduction import Agglomerative, Clusters, reduce_embeddings, reducers
    from isometry.modules.vocabulary_trim import trim_to_rows, trim_vocabulary
    from isometry.modules.yes_no import YesNoModel, YesNoPrompt

__all__: list[str] = [
    "Agglomerative",
    "BottleneckDecoder",
    "Clusters",
    "ComparisonHead",
    "CompressedEmbedding",
    "ContextualDecoder",
    "ContextualToken",
    "DecoderTransformer",
    "DotHead",
    "GroupWhitening",
    "LatentAttention",
    "MaskedPixels",
    "MaskingCollator",
    "PairStudent",
    "Perceiver",
    "PixelConfig",
    "PixelTransformer",
    "PredictionHead",
    "RetroMAE",
    "SizedMAE",
    "SoftTokenProjector",
    "TextRenderer",
    "TokenProjection",
    "TrainablePooling",
    "YesNoModel",
    "YesNoPrompt",
    "add_tokens",
    "allowed",
    "bottleneck_mask",
    "check_attention",
    "check_bottleneck",
    "compressed_table",
    "cut_layers",
    "hide_tokens",
    "insert_tokens",
    "keep_dims",
    "layer_embeddings",
    "layer_readouts",
    "masked_batch",
    "masked_loss",
    "numeric_share",
    "reduce_embeddings",
    "reducers",
    "splice_token",
    "trim_to_rows",
    "trim_vocabulary",
    "whole_word_mask",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
