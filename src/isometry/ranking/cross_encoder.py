"""Cross-encoder: one model reads a query and a text together and gives the pair a score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from isometry.errors import DataFormatError, EmptyInput, InputError
from isometry.modules.quiet import quiet
from isometry.ranking.lookup import Lookup
from isometry.ranking.rerank import Rerank
from isometry.ranking.stage import check_count
from isometry.types import FloatArray

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

Pair = tuple[str, str]


class CrossEncoderScorer:
    """Cross-encoder scorer: pairs of texts to raw logits.

    Parameters
    ----------
    model
        A sentence-transformers ``CrossEncoder`` (`isometry.training.cross_encoder` makes and trains one).
    batch_size
        Pairs read at once.
    revision
        What tells apart two models of one kind, e.g. the hash or the path of their weights.

    Notes
    -----
    Logits, not probabilities: they order in the same way, and a student learns more from them (arXiv:1908.05161,
    section 3). With two labels the score is the log odds of the second one.
    """

    def __init__(self, model: CrossEncoder, *, batch_size: int = 32, revision: str = "") -> None:
        self.model, self.batch_size, self.revision = model, check_count(batch_size, "batch_size"), revision

    @classmethod
    def load(cls, path: str | Path, *, device: str = "cpu", batch_size: int = 32) -> Self:
        """Load a sentence-transformers cross-encoder, or any transformers sequence classifier, by folder or hub name.

        Raises
        ------
        DataFormatError
            If there is no such model, it cannot be read, or it has no trained head that scores pairs.
        """
        from sentence_transformers import CrossEncoder

        try:
            with quiet():
                model = CrossEncoder(str(path), device=device)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            said = " ".join(str(error).split())[:300]
            raise DataFormatError(path, None, f"the cross-encoder cannot be loaded ({said}).") from error
        names = getattr(model[0].config, "architectures", None) or []
        if len(model) == 1 and not any("SequenceClassification" in name for name in names):
            raise DataFormatError(
                path, None, "this model embeds texts and was never trained to score pairs; make a reranker of it with "
                "isometry rerank.",
            )  # fmt: skip
        return cls(model, batch_size=batch_size, revision=str(path))

    @classmethod
    def of(cls, classifier: Any, tokenizer: Any, *, batch_size: int = 32) -> Self:
        """Wrap a copy of a transformers sequence classifier and its tokenizer."""
        from sentence_transformers import CrossEncoder

        with TemporaryDirectory() as folder:
            classifier.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            return cls(CrossEncoder(folder, device=str(classifier.device)), batch_size=batch_size)

    def save(self, path: str | Path) -> None:
        """Write the model to a folder that `load` and sentence-transformers read."""
        self.model.save(str(path))

    @property
    def labels(self) -> int:
        """How many logits a pair gets."""
        return int(self.model.num_labels)

    @property
    def fingerprint(self) -> str:
        """What names this scorer in the fingerprint of a pipeline."""
        config = getattr(self.model[0], "config", None)
        return f"cross-encoder {self.revision or getattr(config, '_name_or_path', '')}"

    def logits(self, pairs: Sequence[Pair]) -> FloatArray:
        """Score pairs, float32 ``[n, labels]``, in order.

        Raises
        ------
        EmptyInput
            If a pair has an empty text; names its row, counted from 0.
        """
        from torch import nn

        rows = [(left, right) for left, right in pairs]
        for row, pair in enumerate(rows):
            if not all(isinstance(text, str) and text.strip() for text in pair):
                raise EmptyInput(f"Pair {row} has an empty text; a cross-encoder needs two texts with words.")
        if not rows:
            return np.empty((0, self.labels), np.float32)
        found = self.model.predict(
            rows, batch_size=self.batch_size, activation_fn=nn.Identity(), show_progress_bar=False
        )
        return np.asarray(found, np.float32).reshape(len(rows), self.labels)

    def predict(self, pairs: Sequence[Pair]) -> FloatArray:
        """Score pairs, float32 ``[n]``, higher is better; what `Rerank` asks for.

        Raises
        ------
        InputError
            If the model has more than two labels, which no single number orders.
        """
        logits = self.logits(pairs)
        if self.labels > 2:
            raise InputError(f"A score needs a model of 1 or 2 labels, this one has {self.labels}; use logits().")
        scores: FloatArray = logits[:, 0] if self.labels == 1 else logits[:, 1] - logits[:, 0]
        return scores

    def stage(self, texts: Lookup, *, depth: int = 100) -> Rerank:
        """Return the stage that orders the first ``depth`` hits of each query anew; see `Rerank`."""
        return Rerank(self, depth=depth, texts=texts)
