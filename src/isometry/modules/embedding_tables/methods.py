"""The methods by the names the survey gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isometry.errors import UnknownName
from isometry.modules.embedding_tables.adaptive import AdaptiveEmbedding
from isometry.modules.embedding_tables.auto_dimension import AutoDimensionEmbedding
from isometry.modules.embedding_tables.auto_srh import AutoSrhEmbedding
from isometry.modules.embedding_tables.dedup import DedupEmbedding
from isometry.modules.embedding_tables.deep_hash import DeepHashEmbedding
from isometry.modules.embedding_tables.deep_light import DeepLightEmbedding
from isometry.modules.embedding_tables.full import FullEmbedding
from isometry.modules.embedding_tables.integer import IntegerEmbedding
from isometry.modules.embedding_tables.learned_scale import LearnedScaleEmbedding
from isometry.modules.embedding_tables.mixed_dimension import MixedDimensionEmbedding
from isometry.modules.embedding_tables.modulo_hash import ModuloHashEmbedding
from isometry.modules.embedding_tables.multi_granular import MultiGranularEmbedding
from isometry.modules.embedding_tables.opt_embed import OptEmbedding
from isometry.modules.embedding_tables.product import ProductEmbedding
from isometry.modules.embedding_tables.quotient_remainder import QuotientRemainderEmbedding
from isometry.modules.embedding_tables.robe import ROBEEmbedding
from isometry.modules.embedding_tables.soft_threshold import SoftThresholdEmbedding
from isometry.modules.embedding_tables.table import CompressedEmbedding
from isometry.modules.embedding_tables.tensor_train import TensorTrainEmbedding

METHODS: Mapping[str, type[CompressedEmbedding]] = {
    "full": FullEmbedding,
    "hash": ModuloHashEmbedding,
    "compoemb": QuotientRemainderEmbedding,
    "tt-rec": TensorTrainEmbedding,
    "dhe": DeepHashEmbedding,
    "robe": ROBEEmbedding,
    "dedup": DedupEmbedding,
    "mgqe": MultiGranularEmbedding,
    "adaptemb": AdaptiveEmbedding,
    "int": IntegerEmbedding,
    "alpt": LearnedScaleEmbedding,
    "mde": MixedDimensionEmbedding,
    "autodim": AutoDimensionEmbedding,
    "optembed": OptEmbedding,
    "deeplight": DeepLightEmbedding,
    "autosrh": AutoSrhEmbedding,
    "pep": SoftThresholdEmbedding,
    "dpq": ProductEmbedding,
}


def compressed_table(method: str, n: int, d: int, budget: float = 1.0, **options: Any) -> CompressedEmbedding:
    """Make the table of a method by its name in the survey, in small letters.

    >>> compressed_table("hash", 100, 8, 0.1).ratio()
    0.1

    Raises
    ------
    UnknownName
        With the nearest names.
    """
    if method not in METHODS:
        raise UnknownName("compression method", method, METHODS)
    return METHODS[method](n, d, budget, **options)
