"""What trainable pooling heads share as modules of sentence-transformers: features in and out, saving, loading."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Self

from sentence_transformers.base.modules import Module
from torch import Tensor

from isometry.modules.pooling.pool_mask import pool_mask


class PoolingHead(Module):  # type: ignore[misc]
    """A trainable pooling module; subclasses say how a batch of features becomes vectors.

    Reads ``token_embeddings``, ``attention_mask`` and ``prompt_length`` of a feature dict, writes
    ``sentence_embedding``. A saved model names its classes; sentence-transformers loads those of another package with
    ``trust_remote_code=True`` alone.
    """

    dim: int

    @abstractmethod
    def pool_features(self, features: dict[str, Any], mask: Tensor) -> Tensor:
        """Return ``[b, dim]``; ``mask`` is the pool mask, bool ``[b, t]``."""

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Add ``sentence_embedding`` to the features."""
        mask = pool_mask(features["attention_mask"], features.get("prompt_length"))
        features["sentence_embedding"] = self.pool_features(features, mask)
        return features

    def get_embedding_dimension(self) -> int:
        """Width of the vectors."""
        return self.dim

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Write configuration and weights to a folder."""
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)

    @classmethod
    def load(cls, model_name_or_path: str, **kwargs: Any) -> Self:
        """Read what `save` wrote."""
        places = {k: v for k, v in kwargs.items() if k in _PLACES}
        module: Self = cls(**cls.load_config(model_name_or_path, **places))
        cls.load_torch_weights(model_name_or_path, model=module, **places)
        return module


_PLACES = ("subfolder", "token", "cache_folder", "revision", "local_files_only")
