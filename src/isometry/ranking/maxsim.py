"""Late interaction as a scorer for reranking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from isometry.types import FloatArray, check_vectors


class MaxSim:
    """MaxSim of a late-interaction encoder (ColBERT, arXiv:2004.12832, eq. 3).

    The score of a text is the sum over the query's token vectors of the largest dot product with one of the text's.

    Parameters
    ----------
    encoder
        ``encode_query(texts)`` and ``encode_document(texts)`` return one ``[t_i, d]`` array per text.
    """

    def __init__(self, encoder: Any) -> None:
        self.encoder = encoder

    @property
    def space(self) -> Any:
        """The encoder's space, if it names one."""
        return getattr(self.encoder, "space", None)

    def __call__(self, query: str, texts: Sequence[str]) -> FloatArray:
        """Score texts, float32 ``[n]``; a text without a token vector scores 0."""
        if not texts:
            return np.empty(0, np.float32)
        (asked,) = (check_vectors(v, what="query tokens") for v in self.encoder.encode_query([query]))
        found = self.encoder.encode_document(list(texts))
        tokens = [check_vectors(v, dim=asked.shape[1], what="document tokens") for v in found]
        scores = [(asked @ t.T).max(axis=1).sum() if len(t) else 0.0 for t in tokens]
        return np.asarray(scores, np.float32)
