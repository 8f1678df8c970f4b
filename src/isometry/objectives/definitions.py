"""Cross-entropy over the entries of a dictionary, whose vectors are frozen (DefSent+, arXiv:2405.16153)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from isometry.errors import DimensionMismatch, InputError
from isometry.objectives.loss import EmbeddingLoss


def entry_cross_entropy(
    vectors: Tensor,
    entries: Tensor,
    labels: Tensor,
    *,
    also: Tensor | None = None,
    chunk: int = 16_384,
    sampled: int | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy of logits ``vectors entries'`` against each row's entry; the entries take no gradient.

    Parameters
    ----------
    vectors
        Sentence vectors ``[b, d]``, at their own length: scaling the entries by c is a temperature of 1 / c.
    entries
        Frozen matrix ``[E, d]``.
    labels
        int64 ``[b]``: the entry of each row.
    also
        int64 ``[b, k]``: further right entries of each row (synonyms), -1 where there are fewer; they are no
        competitors of the label.
    chunk
        Entries whose logits are held at once; those of other chunks are computed again on the way back.
    sampled
        Estimate the sum over competitors from so many entries, drawn from torch's generator: sampled softmax with
        uniform draws and their correction ``log((E - 1) / sampled)``.
    reduction
        ``"mean"`` or ``"none"``.

    Raises
    ------
    DimensionMismatch
        If widths differ.
    InputError
        If a label or a parameter is out of range.

    Examples
    --------
    >>> round(float(entry_cross_entropy(torch.zeros(2, 3), torch.randn(10, 3), torch.tensor([0, 9]))), 4)     # log 10
    2.3026
    """
    entries = _checked(vectors, entries, labels, also)
    if chunk < 1 or (sampled is not None and sampled < 1) or reduction not in ("mean", "none"):
        raise InputError(f"chunk and sampled must be >= 1 and reduction mean or none: {chunk}, {sampled}, {reduction}.")
    barred = labels[:, None] if also is None else torch.cat([labels[:, None], also], dim=1)
    own = (vectors * entries[labels]).sum(1)
    if sampled is not None and sampled < len(entries):
        drawn = torch.randint(len(entries), (sampled,), device=entries.device)
        logits = vectors @ entries[drawn].T
        struck = (drawn[None, :, None] == barred[:, None, :]).any(2)
        correction = torch.tensor((len(entries) - 1) / sampled, dtype=own.dtype, device=own.device).log()
        sums = [own[:, None], logits.masked_fill(struck, -torch.inf) + correction]
    else:
        sums = [own[:, None], *(part[:, None] for part in _sums(vectors, entries, barred, chunk))]
    losses = torch.cat(sums, dim=1).logsumexp(1) - own
    return losses.mean() if reduction == "mean" else losses


def _sums(vectors: Tensor, entries: Tensor, barred: Tensor, chunk: int) -> Iterator[Tensor]:
    """Yield by chunk the log of the sum of exponentials of competitors' logits, ``[b]``."""

    def one(vectors: Tensor, start: int) -> Tensor:
        logits = vectors @ entries[start : start + chunk].T
        inside = (barred >= start) & (barred < start + logits.shape[1])
        struck = torch.zeros(len(logits), logits.shape[1] + 1, dtype=torch.bool, device=logits.device)
        struck.scatter_(1, torch.where(inside, barred - start, logits.shape[1]), True)  # the last column takes the rest
        lowest = torch.finfo(logits.dtype).min  # a chunk that is all struck must not give NaN
        return logits.masked_fill(struck[:, :-1], lowest).logsumexp(1)

    for start in range(0, len(entries), chunk):
        many = len(entries) > chunk and vectors.requires_grad
        yield checkpoint(one, vectors, start, use_reentrant=False) if many else one(vectors, start)


def _checked(vectors: Tensor, entries: Tensor, labels: Tensor, also: Tensor | None) -> Tensor:
    if vectors.ndim != 2 or entries.ndim != 2 or vectors.shape[1] != entries.shape[1] or not len(vectors):
        raise DimensionMismatch(
            f"vectors and entries must be [b, d] and [E, d], got {list(vectors.shape)} and {list(entries.shape)}."
        )
    count = len(entries)
    if labels.shape != (len(vectors),) or labels.is_floating_point() or not 0 <= labels.min() <= labels.max() < count:
        raise InputError(f"labels must name one of the {count} entries for each of the {len(vectors)} rows.")
    if also is not None and (also.ndim != 2 or len(also) != len(vectors) or not -1 <= also.min() <= also.max() < count):
        raise InputError(f"also must be int64 [{len(vectors)}, k] of entries or -1, got {list(also.shape)}.")
    return entries.detach().to(vectors.dtype)


class EntryCrossEntropy(EmbeddingLoss):
    """`entry_cross_entropy` of a batch of definitions, through a head that training alone uses.

    Parameters
    ----------
    model
        The model in training (a ``SentenceTransformer``).
    entries
        Frozen matrix ``[E, d]``; moves with the loss, is no parameter.
    head
        Map ``[b, d]`` of sentence vectors before the logits, such as a linear map with tanh; None: none.
    chunk, sampled
        As in `entry_cross_entropy`.

    Notes
    -----
    Labels are int64 ``[b]``, or ``[b, 1 + k]``: the label first, then `also`.
    """

    entries: Tensor

    def __init__(
        self,
        model: nn.Module | None = None,
        *,
        entries: Tensor,
        head: nn.Module | None = None,
        chunk: int = 16_384,
        sampled: int | None = None,
    ) -> None:
        super().__init__(model)
        self.register_buffer("entries", entries.detach().clone())
        self.head, self.chunk, self.sampled = head, chunk, sampled

    def compute_loss_from_embeddings(
        self,
        embeddings: Sequence[Tensor],
        labels: Tensor | None = None,
        texts: Sequence[Sequence[str]] | None = None,
    ) -> Tensor:
        """Return the loss of one column of definitions ``[b, d]`` with labels."""
        self.need_columns(embeddings, 1, "(definition)", most=1)
        if labels is None:
            raise InputError("EntryCrossEntropy needs labels: the number of each definition's entry.")
        also = labels[:, 1:] if labels.ndim == 2 else None
        labels = labels[:, 0] if labels.ndim == 2 else labels
        return entry_cross_entropy(
            self.project(embeddings[0]), self.entries, labels, also=also, chunk=self.chunk, sampled=self.sampled
        )

    def project(self, vectors: Tensor) -> Tensor:
        """Return what meets the entries: the head's output ``[b, d]``."""
        out: Tensor = vectors if self.head is None else self.head(vectors)
        return out

    def get_config_dict(self) -> dict[str, Any]:
        """Return what a model card should say about this loss."""
        return {"entries": len(self.entries), "head": repr(self.head), "sampled": self.sampled}
