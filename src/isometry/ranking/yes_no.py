"""Reranking by a language model that answers yes or no."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from isometry.ranking.lookup import Lookup
from isometry.ranking.rerank import Rerank
from isometry.ranking.stage import describe

if TYPE_CHECKING:
    from isometry.modules.yes_no import YesNoModel


class YesNo(Rerank):
    """Pointwise yes/no reranking (Qwen3-Reranker, arXiv:2506.05176): hits by the log odds of "yes".

    Parameters
    ----------
    model
        See `isometry.modules.yes_no.YesNoModel`; train it with `isometry.training.train_yes_no`.
    depth
        How many hits of each query are scored; those behind are dropped.
    texts
        ``ids -> texts`` (or documents), or a mapping from id to text.
    """

    name = "yes/no"

    def __init__(self, model: YesNoModel, *, depth: int = 100, texts: Lookup) -> None:
        super().__init__(model, depth=depth, texts=texts)
        self.model = model

    def config(self) -> Mapping[str, Any]:
        """The language model by its name, what it is asked, and the depth."""
        asked = {"task": self.model.task, **vars(self.model.prompt), "answers": list(self.model.answers)}
        return {"lm": describe(self.model.lm), **asked, "max_tokens": self.model.max_tokens, "depth": self.depth}
