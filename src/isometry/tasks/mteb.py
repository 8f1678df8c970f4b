"""MTEB's view of an encoder, so that its tasks run on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from isometry.errors import MissingExtra
from isometry.tasks.encoding import encode, system_name
from isometry.types import FloatArray


def as_mteb(encoder: Any) -> Any:
    """Wrap an encoder for ``mteb.evaluate``.

    MTEB's documents are encoded by ``encode_document`` and everything else by ``encode_query``; the encoder's own
    prompts apply, MTEB's do not. Similarity is cosine, or dot for a dot-product space.

    Parameters
    ----------
    encoder
        An `isometry.protocols.Encoder` with single vectors, or a ``SentenceTransformer``.

    Returns
    -------
    object
        Satisfies ``mteb.EncoderProtocol``.

    Raises
    ------
    MissingExtra
        If mteb is not installed.

    Examples
    --------
    ``mteb.evaluate(as_mteb(isometry.load("minilm")), mteb.get_tasks(["SciFact"]))``
    """
    try:
        from mteb.models.model_meta import ModelMeta, ScoringFunction
    except ImportError as error:
        raise MissingExtra("mteb", "eval", "run MTEB's tasks") from error
    space = getattr(encoder, "space", None)
    name = getattr(space, "model", None) or system_name(encoder)
    dot = getattr(space, "similarity", None) == "dot"
    meta = ModelMeta.create_empty(
        {
            "name": name if "/" in name else f"isometry/{name}",
            "revision": getattr(space, "id", None) or "no_revision_available",
            "similarity_fn_name": ScoringFunction.DOT_PRODUCT if dot else ScoringFunction.COSINE,
            "embed_dim": getattr(space, "dim", None),
        }
    )
    return _MtebEncoder(encoder, meta, dot)


class _MtebEncoder:
    """Satisfies ``mteb.EncoderProtocol``."""

    def __init__(self, encoder: Any, meta: Any, dot: bool) -> None:
        self.encoder, self.mteb_model_meta, self._dot = encoder, meta, dot

    def encode(self, inputs: Iterable[Mapping[str, Any]], *, prompt_type: Any = None, **_: Any) -> FloatArray:
        """Encode batches of ``{"text": [...]}`` as float32 ``[n, d]``."""
        texts = [text for batch in inputs for text in batch["text"]]
        role = getattr(prompt_type, "value", prompt_type)
        return encode(self.encoder, texts, "document" if role == "document" else "query").vectors

    def similarity(self, embeddings1: Any, embeddings2: Any) -> FloatArray:
        """All pairs, float32 ``[n, m]``."""
        scores: FloatArray = self._comparable(embeddings1) @ self._comparable(embeddings2).T
        return scores

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> FloatArray:
        """Row by row, float32 ``[n]``."""
        scores: FloatArray = (self._comparable(embeddings1) * self._comparable(embeddings2)).sum(axis=1)
        return scores

    def _comparable(self, vectors: Any) -> FloatArray:
        rows = np.atleast_2d(np.asarray(vectors, dtype=np.float32))
        if self._dot:
            return rows
        unit: FloatArray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return unit
