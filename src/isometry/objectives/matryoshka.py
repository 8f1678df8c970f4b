"""Matryoshka training: any loss on prefixes of the embedding (MRL) and on those of inner layers (2DMSE, SRL, ESE).

The backbone runs once a column; all sizes are read from that one pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from isometry.errors import DimensionMismatch, InputError
from isometry.objectives.distillation import listwise_distillation
from isometry.objectives.espresso import pca_alignment
from isometry.objectives.loss import EmbeddingLoss
from isometry.objectives.sizes import Schedule, Size

Layers = Sequence[Tensor]
LayerEmbeddings = Callable[[nn.Module, Mapping[str, Any]], Layers]
AlignTerm = Callable[[Sequence[Layers], Size, Size], Tensor]


class InnerLoss(Protocol):
    """A loss that can be computed from embeddings, as all of `isometry.objectives` and most of the library's."""

    def compute_loss_from_embeddings(self, embeddings: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        """Return the loss of columns of embeddings."""
        ...


def prefix(vectors: Tensor, dims: int, *, unit: bool = True) -> Tensor:
    """Return the first ``dims`` coordinates ``[..., dims]``, scaled to length 1 anew if ``unit``.

    A prefix of a unit vector is no unit vector: cosines need ``unit``, dot products must go without.

    >>> prefix(torch.tensor([[3.0, 4.0, 12.0]]), 2)
    tensor([[0.6000, 0.8000]])
    """
    if not 1 <= dims <= vectors.shape[-1]:
        raise DimensionMismatch(f"A prefix of {dims} dims cannot be taken from vectors of {vectors.shape[-1]}.")
    part = vectors[..., :dims]
    return normalize(part, dim=-1) if unit else part


def align_coordinates(
    columns: Sequence[Layers], size: Size, full: Size, *, temperature: float = 1.0, detach: bool = True
) -> Tensor:
    """KL of the softmax over the coordinates of the full embedding and of a smaller one (2DMSE, SRL).

    Coordinates are read as logits, so their scale matters: for vectors of length 1 the softmax is nearly uniform and
    teaches nothing unless the temperature is small.

    Parameters
    ----------
    columns
        Layer embeddings of each column; index n after n blocks, ``[b, D]``.
    size, full
        The student's and the teacher's size; the teacher is cut to the student's width.
    temperature
        Divisor of the coordinates.
    detach
        Keep the teacher out of the gradient. Without it (as some published code has it) the full embedding is pulled
        towards the small one as well.

    Raises
    ------
    InputError
        If the teacher's vectors have length 1 and the temperature is above 0.05.
    """
    student = torch.cat([layers[size.layers][:, : size.dims] for layers in columns])
    whole = torch.cat([layers[full.layers] for layers in columns])
    if temperature > 0.05 and torch.allclose(whole.norm(dim=1), whole.new_ones(len(whole)), atol=1e-3):
        raise InputError(
            f"Coordinates of unit vectors at temperature {temperature} are a nearly uniform softmax and teach nothing; "
            "give embeddings before normalisation, or a temperature of at most 0.05."
        )
    teacher = whole[:, : size.dims]
    if detach:
        return listwise_distillation(student, teacher, temperature=temperature, teacher_temperature=temperature)
    log_p, log_q = ((x / temperature).log_softmax(1) for x in (teacher, student))
    return (log_p.exp() * (log_p - log_q)).sum(1).mean()


def align_scores(
    columns: Sequence[Layers], size: Size, full: Size, *, temperature: float = 1.0, unit: bool = False
) -> Tensor:
    """KL of the softmax over each query's scores of all passages, full size against small (SRL for retrieval).

    The first column holds the queries, the others the passages; the teacher gets no gradient. Scores are dot products,
    or cosines if ``unit``, which need a temperature far below 1.
    """

    def scores(at: Size) -> Tensor:
        queries, *passages = (prefix(layers[at.layers], at.dims, unit=unit) for layers in columns)
        return queries @ torch.cat(passages).T

    return listwise_distillation(scores(size), scores(full), temperature=temperature, teacher_temperature=temperature)


def align_principal(columns: Sequence[Layers], size: Size, full: Size) -> Tensor:
    """Pull a layer's prefix towards the principal content of the whole layer (ESE; see `pca_alignment`)."""
    return pca_alignment(torch.cat([layers[size.layers] for layers in columns]), size.dims)


class Matryoshka(EmbeddingLoss):
    """Matryoshka representation learning: any loss summed over prefixes of the embedding (arXiv:2205.13147).

    Parameters
    ----------
    model
        The model in training, or None when only embeddings are given.
    loss
        Any loss with ``compute_loss_from_embeddings``.
    dims
        Widths, e.g. ``(384, 128, 32)``.
    weights
        One for each width; default 1.
    unit
        Scale each prefix to length 1; switch off where the loss is about dot products.
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        loss: Any = None,
        *,
        dims: Sequence[int],
        weights: Sequence[float] | None = None,
        unit: bool = True,
    ) -> None:
        super().__init__(model)
        self.loss = check_inner(loss)
        self.dims, self.unit = tuple(dims), unit
        self.weights = (1.0,) * len(self.dims) if weights is None else tuple(weights)
        if not self.dims or len(self.weights) != len(self.dims):
            raise InputError(f"Matryoshka needs one weight a width, got {len(self.dims)} and {len(self.weights)}.")

    def compute_loss_from_embeddings(
        self,
        embeddings: Sequence[Tensor],
        labels: Tensor | None = None,
        texts: Sequence[Sequence[str]] | None = None,
    ) -> Tensor:
        """Return the weighted sum of the inner loss over prefixes of all columns."""
        terms = [
            weight * inner_loss(self.loss, [prefix(c, d, unit=self.unit) for c in embeddings], labels, texts)
            for d, weight in zip(self.dims, self.weights, strict=True)
        ]
        return torch.stack(terms).sum()


class SizedLoss(nn.Module):
    """Any loss on many sizes of one encoder, with alignment to its full size (two-dimensional Matryoshka).

    Parameters
    ----------
    model
        The model in training.
    embed
        Called with (model, features of a column), returns the embedding after every block, index n after n blocks:
        `isometry.modules.layer_embeddings`.
    loss
        Any loss with ``compute_loss_from_embeddings``; one that caches gradients cannot be wrapped.
    schedule
        Which sizes a step looks at: see `isometry.objectives.sizes`.
    full
        The full size, the teacher of the alignment.
    align
        The alignment term: `align_coordinates`, `align_scores` or `align_principal`.
    unit
        Scale each size's embedding to length 1; switch off where the loss is about dot products.

    Raises
    ------
    InputError
        If the inner loss cannot be wrapped, or an embedding is not finite (naming the step).
    """

    def __init__(
        self,
        model: nn.Module | None,
        embed: LayerEmbeddings,
        loss: Any,
        schedule: Schedule,
        *,
        full: Size,
        align: AlignTerm = align_coordinates,
        unit: bool = True,
    ) -> None:
        super().__init__()
        self.model, self.embed, self.loss = model, embed, check_inner(loss)
        self.schedule, self.full, self.align, self.unit = schedule, full, align, unit
        self.step = 0

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Tensor:
        """Embed the columns of a batch, each in one pass, and return the loss of the next step's sizes."""
        if self.model is None:
            raise InputError("This SizedLoss has no model to embed with; pass one, or use compute_loss_from_layers.")
        features = list(sentence_features)
        texts = [column["text"] for column in features] if all("text" in column for column in features) else None
        columns = [self.embed(self.model, column) for column in features]
        value = self.compute_loss_from_layers(columns, labels, texts, step=self.step)
        self.step += self.training
        return value

    def compute_loss_from_layers(
        self,
        columns: Sequence[Layers],
        labels: Tensor | None = None,
        texts: Sequence[Sequence[str]] | None = None,
        *,
        step: int = 0,
    ) -> Tensor:
        """Return the loss of a step from the layer embeddings of each column."""
        for n in range(len(columns[0])):
            if not all(torch.isfinite(layers[n]).all() for layers in columns):
                raise InputError(
                    f"Layer {n} holds NaN or infinity at step {step}: lower the rate or look at the batch."
                )
        terms = self.schedule(step)
        parts = [weight * self.loss_at(columns, size, labels, texts) for size, weight in terms.losses.items() if weight]
        parts += [weight * self.align(columns, size, self.full) for size, weight in terms.aligned.items() if weight]
        if not parts:
            raise InputError(f"The schedule gives no size any weight at step {step}.")
        return torch.stack(parts).sum()

    def loss_at(
        self,
        columns: Sequence[Layers],
        size: Size,
        labels: Tensor | None = None,
        texts: Sequence[Sequence[str]] | None = None,
    ) -> Tensor:
        """Return the inner loss of one size."""
        if not 0 <= size.layers < len(columns[0]):
            raise InputError(f"There is no layer {size.layers} among {len(columns[0]) - 1}.")
        embeddings = [prefix(layers[size.layers], size.dims, unit=self.unit) for layers in columns]
        return inner_loss(self.loss, embeddings, labels, texts)


def check_inner(loss: Any) -> Any:
    """Return a loss that can be computed several times from embeddings, or raise `InputError`."""
    if not hasattr(loss, "compute_loss_from_embeddings") or type(loss).__name__.startswith("Cached"):
        raise InputError(
            f"{type(loss).__name__} cannot be wrapped: it must offer compute_loss_from_embeddings and not cache "
            "gradients of its own; take the uncached form of the loss."
        )
    return loss


def inner_loss(
    loss: Any, embeddings: Sequence[Tensor], labels: Tensor | None, texts: Sequence[Sequence[str]] | None
) -> Tensor:
    """Return a loss of embeddings, with raw texts where they are known and ours read them."""
    value: Tensor = (
        loss.compute_loss_from_embeddings(embeddings, labels)
        if texts is None
        else loss.compute_loss_from_embeddings(embeddings, labels, texts)
    )
    return value
