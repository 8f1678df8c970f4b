"""Features of texts by a frozen early layer, computed once each: what small heads are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from isometry.training.students import layer_features
from isometry.types import FloatArray

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class FrozenFeatures:
    """Mean states of a frozen layer by text; a text is embedded when first asked for.

    Parameters
    ----------
    model, layer
        As in `isometry.training.layer_features`.
    """

    def __init__(self, model: SentenceTransformer, *, layer: int) -> None:
        self.model, self.layer = model, layer
        self._places: dict[str, int] = {}
        self._vectors = layer_features(model, [], layer=layer)

    @property
    def dim(self) -> int:
        """Width of a feature vector."""
        return int(self._vectors.shape[1])

    def __call__(self, texts: Sequence[str]) -> FloatArray:
        """Return float32 ``[n, d]``."""
        new = [text for text in dict.fromkeys(texts) if text not in self._places]
        if new:
            self._vectors = np.concatenate([self._vectors, layer_features(self.model, new, layer=self.layer)])
            self._places |= {text: len(self._places) + i for i, text in enumerate(new)}
        found: FloatArray = self._vectors[[self._places[text] for text in texts]]
        return found
