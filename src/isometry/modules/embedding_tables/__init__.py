"""Embedding tables in a fraction of their memory: the methods of the survey behind one interface."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isometry.lazy import exports

if TYPE_CHECKING:
    from isometry.modules.embedding_tables.adaptive import AdaptiveEmbedding
    from isometry.modules.embedding_tables.auto_dimension import AutoDimensionEmbedding
    from isometry.modules.embedding_tables.auto_srh import AutoSrhEmbedding
    from isometry.modules.embedding_tables.dedup import DedupEmbedding
    from isometry.modules.embedding_tables.deep_hash import DeepHashEmbedding
    from isometry.modules.embedding_tables.deep_light import DeepLightEmbedding
    from isometry.modules.embedding_tables.evolution import evolve
    from isometry.modules.embedding_tables.full import FullEmbedding
    from isometry.modules.embedding_tables.integer import IntegerEmbedding, stochastic_round
    from isometry.modules.embedding_tables.learned_scale import LearnedScaleEmbedding
    from isometry.modules.embedding_tables.methods import METHODS, compressed_table
    from isometry.modules.embedding_tables.mixed_dimension import MixedDimensionEmbedding
    from isometry.modules.embedding_tables.modulo_hash import ModuloHashEmbedding
    from isometry.modules.embedding_tables.multi_granular import MultiGranularEmbedding
    from isometry.modules.embedding_tables.opt_embed import OptEmbedding
    from isometry.modules.embedding_tables.product import ProductEmbedding
    from isometry.modules.embedding_tables.quotient_remainder import QuotientRemainderEmbedding
    from isometry.modules.embedding_tables.robe import ROBEEmbedding
    from isometry.modules.embedding_tables.soft_threshold import SoftThresholdEmbedding
    from isometry.modules.embedding_tables.split import SplitEmbedding
    from isometry.modules.embedding_tables.table import CompressedEmbedding, Stage, StageContext
    from isometry.modules.embedding_tables.tensor_train import TensorTrainEmbedding
    from isometry.modules.embedding_tables.universal import universal_hash

_HOMES = {
    "METHODS": "methods",
    "AdaptiveEmbedding": "adaptive",
    "AutoDimensionEmbedding": "auto_dimension",
    "AutoSrhEmbedding": "auto_srh",
    "CompressedEmbedding": "table",
    "DedupEmbedding": "dedup",
    "DeepHashEmbedding": "deep_hash",
    "DeepLightEmbedding": "deep_light",
    "FullEmbedding": "full",
    "IntegerEmbedding": "integer",
    "LearnedScaleEmbedding": "learned_scale",
    "MixedDimensionEmbedding": "mixed_dimension",
    "ModuloHashEmbedding": "modulo_hash",
    "MultiGranularEmbedding": "multi_granular",
    "OptEmbedding": "opt_embed",
    "ProductEmbedding": "product",
    "QuotientRemainderEmbedding": "quotient_remainder",
    "ROBEEmbedding": "robe",
    "SoftThresholdEmbedding": "soft_threshold",
    "SplitEmbedding": "split",
    "Stage": "table",
    "StageContext": "table",
    "TensorTrainEmbedding": "tensor_train",
    "compressed_table": "methods",
    "evolve": "evolution",
    "stochastic_round": "integer",
    "universal_hash": "universal",
}

__all__ = [
    "METHODS",
    "AdaptiveEmbedding",
    "AutoDimensionEmbedding",
    "AutoSrhEmbedding",
    "CompressedEmbedding",
    "DedupEmbedding",
    "DeepHashEmbedding",
    "DeepLightEmbedding",
    "FullEmbedding",
    "IntegerEmbedding",
    "LearnedScaleEmbedding",
    "MixedDimensionEmbedding",
    "ModuloHashEmbedding",
    "MultiGranularEmbedding",
    "OptEmbedding",
    "ProductEmbedding",
    "QuotientRemainderEmbedding",
    "ROBEEmbedding",
    "SoftThresholdEmbedding",
    "SplitEmbedding",
    "Stage",
    "StageContext",
    "TensorTrainEmbedding",
    "compressed_table",
    "evolve",
    "stochastic_round",
    "universal_hash",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
