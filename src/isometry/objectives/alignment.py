"""Embedding regression: a student reproduces its teacher's vectors (LEAF, arXiv:2509.12539)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from isometry.errors import InputError
from isometry.objectives.loss import EmbeddingLoss, Teacher, same_shape, teach


def align(vectors: Tensor, targets: Tensor) -> Tensor:
    """Mean squared Euclidean distance to the targets; ``2 - 2 cos`` between unit vectors.

    Parameters
    ----------
    vectors, targets
        ``[b, d]``, compared as they are: normalise both where the teacher does.

    Raises
    ------
    DimensionMismatch
        If the shapes differ.

    Examples
    --------
    >>> float(align(torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])))    # (0 + 2) / 2
    1.0
    """
    same_shape(vectors, targets, "vectors and targets")
    return (vectors - targets).square().sum(1).mean()


class Alignment(EmbeddingLoss):
    """Embedding regression as a loss object: every column is drawn to its teacher's vectors.

    Parameters
    ----------
    model
        The model in training, or None when only embeddings are given.
    teacher
        A frozen encoder of raw texts, such as `isometry.negatives.Guide`; without one, labels ``[b, d]`` are the
        targets of every column (translations of one text, say).
    """

    def __init__(self, model: nn.Module | None = None, *, teacher: Teacher | None = None) -> None:
        super().__init__(model)
        self.teacher = teacher

    def compute_loss_from_embeddings(
        self,
        embeddings: Sequence[Tensor],
        labels: Tensor | None = None,
        texts: Sequence[Sequence[str]] | None = None,
    ) -> Tensor:
        """Return the mean over columns of embeddings, each ``[b, d]``."""
        self.need_columns(embeddings, 1, "of texts, at least one")
        if self.teacher is not None and texts is not None:
            targets = teach(self.teacher, texts, embeddings[0])
        elif labels is not None and labels.ndim == 2:
            targets = [labels.to(embeddings[0].dtype)] * len(embeddings)
        else:
            raise InputError("Alignment needs a teacher and raw texts (keep_texts), or labels [b, d] to align with.")
        return torch.stack([align(column, target) for column, target in zip(embeddings, targets, strict=True)]).mean()
