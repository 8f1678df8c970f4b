"""What every loss over columns of embeddings has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from isometry.errors import DimensionMismatch, InputError
from isometry.types import Role


class Teacher(Protocol):
    """A frozen encoder of raw texts, such as `isometry.negatives.Guide`."""

    def __call__(self, texts: Sequence[str], role: Role = "document") -> Tensor:
        """Return vectors ``[n, d]`` without gradient."""
        ...


class EmbeddingLoss(nn.Module, ABC):
    """A loss over columns of embeddings: for sentence-transformers' trainer, or for any loop over embeddings.

    Parameters
    ----------
    model
        The model in training (a ``SentenceTransformer``); None when only embeddings are given.
    """

    def __init__(self, model: nn.Module | None = None) -> None:
        super().__init__()
        self.model = model

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Tensor:
        """Embed the columns of a batch with the model and return the loss."""
        if self.model is None:
            name = type(self).__name__
            raise InputError(f"This {name} has no model to embed with; pass one, or use compute_loss_from_embeddings.")
        columns = list(sentence_features)
        texts = [column["text"] for column in columns] if all("text" in column for column in columns) else None
        embeddings = [self.model(column)["sentence_embedding"] for column in columns]
        return self.compute_loss_from_embeddings(embeddings, labels, texts)

    @abstractmethod
    def compute_loss_from_embeddings(
        self,
        embeddings: Sequence[Tensor],
        labels: Tensor | None = None,
        texts: Sequence[Sequence[str]] | None = None,
    ) -> Tensor:
        """Return the loss of columns of embeddings, each ``[b, d]``, with labels ``[b]`` and raw texts by column."""

    def need_columns(self, embeddings: Sequence[Tensor], least: int, what: str, *, most: int | None = None) -> None:
        """Raise `InputError` unless there are enough columns, `DimensionMismatch` unless their shapes are equal."""
        name, count = type(self).__name__, len(embeddings)
        if count < least or (most is not None and count > most):
            raise InputError(f"{name} needs columns {what}; got {count} column{'s' * (count != 1)}.")
        shapes = [list(column.shape) for column in embeddings]
        if any(shape != shapes[0] for shape in shapes) or len(shapes[0]) != 2 or not len(embeddings[0]):
            raise DimensionMismatch(f"{name} needs columns of one shape [b, d] with b >= 1, got {shapes}.")


class ScoredPairLoss(EmbeddingLoss):
    """A loss over columns (left, right) of embeddings and the gold score of each pair."""

    @abstractmethod
    def of_pairs(self, left: Tensor, right: Tensor, gold: Tensor) -> Tensor:
        """Return the loss of pairs, each side ``[b, d]``, with gold scores ``[b]``."""

    def compute_loss_from_embeddings(
        self,
        embeddings: Sequence[Tensor],
        labels: Tensor | None = None,
        texts: Sequence[Sequence[str]] | None = None,
    ) -> Tensor:
        """Return the loss of columns of embeddings, each ``[b, d]``: left, right; labels float ``[b]``."""
        self.need_columns(embeddings, 2, "(left, right)", most=2)
        if labels is None:
            raise InputError(f"{type(self).__name__} reads gold scores; pass float labels [b], one for each pair.")
        return self.of_pairs(embeddings[0], embeddings[1], labels)


def teach(teacher: Teacher, texts: Sequence[Sequence[str]], like: Tensor) -> list[Tensor]:
    """Return a teacher's vectors of every column of texts: the first column as queries, the others as documents."""
    roles: list[Role] = ["query" if not i and len(texts) > 1 else "document" for i in range(len(texts))]
    with torch.no_grad():
        return [teacher(column, role).to(like.device, like.dtype) for column, role in zip(texts, roles, strict=True)]


def same_shape(first: Tensor, second: Tensor, names: str, *, matrix: bool = True) -> None:
    """Raise `DimensionMismatch` unless two tensors have one non-empty shape, ``[n, k]`` if ``matrix``."""
    if first.shape != second.shape or not first.numel() or (matrix and first.ndim != 2):
        shape = "[n, k]" if matrix else "shape"
        raise DimensionMismatch(
            f"{names} must have one non-empty {shape}, got {list(first.shape)} and {list(second.shape)}."
        )


def check_keep(scores: Tensor, keep: Tensor | None) -> Tensor:
    """Return a checked bool mask ``[b, k]`` with something in every row."""
    keep = torch.ones_like(scores, dtype=torch.bool) if keep is None else keep
    if keep.shape != scores.shape or keep.dtype != torch.bool:
        raise DimensionMismatch(f"keep must be bool {list(scores.shape)}, got {keep.dtype} {list(keep.shape)}.")
    if not keep.any(1).all():
        row = int((~keep.any(1)).nonzero()[0])
        raise InputError(f"Row {row} of the batch keeps no candidate; leave that row out.")
    return keep
