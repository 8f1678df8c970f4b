"""NT-Xent over a set with integer labels: every ordered pair of equal label is a positive pair.

Where InfoNCE has one positive a row, here a text may have many, and any text of the set may be an anchor. Chen et al.
2020 (arXiv:2002.05709); with a mean over all positives of an anchor it is the supervised contrastive loss (Khosla et
al. 2020, arXiv:2004.11362, L_out). ULLME trains its projected vectors with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from isometry.errors import DimensionMismatch, EmptyInput, InputError, UnknownName
from isometry.objectives.loss import EmbeddingLoss

DISTANCES = ("cosine", "euclidean")
Pairs = tuple[Tensor, Tensor]


def nt_xent(
    vectors: Tensor,
    labels: Tensor,
    *,
    temperature: float = 0.05,
    distance: Literal["cosine", "euclidean"] = "cosine",
    pairs: Pairs | None = None,
) -> Tensor:
    """NT-Xent with a label matrix: the mean of ``-log(e^{s_ij} / (e^{s_ij} + sum_k e^{s_ik}))`` over positive pairs.

    The sum runs over the negatives k of anchor i; its other positives stay out of the denominator.

    Parameters
    ----------
    vectors
        ``[n, d]``; normalised here.
    labels
        int64 ``[n]``: equal labels are positives, all others negatives. See `group_labels`.
    temperature
        Divisor of similarities.
    distance
        ``"cosine"``: ``s = cos / temperature``; ``"euclidean"``: ``s = -|a - b| / temperature`` between normalised
        vectors (the distance itself, not its square).
    pairs
        bool ``[n, n]`` masks of positives and negatives to use (from a miner); default: all of them.

    Raises
    ------
    DimensionMismatch
        If shapes do not fit.
    InputError
        If temperature is not positive.
    UnknownName
        If there is no such distance.
    EmptyInput
        If no positive pair is left.

    Examples
    --------
    >>> vectors, labels = torch.eye(4)[[0, 0, 1, 1]], torch.tensor([0, 0, 1, 1])
    >>> round(float(nt_xent(vectors, labels, temperature=1.0)), 4)          # log(1 + 2/e)
    0.5514
    """
    if temperature <= 0:
        raise InputError(f"temperature must be > 0, got {temperature}.")
    positives, negatives = label_pairs(vectors, labels) if pairs is None else _checked(pairs, len(vectors))
    if not positives.any():
        raise EmptyInput("No two vectors of the batch share a label, so there is no positive pair.")
    scores = pairwise_similarity(vectors, distance) / temperature
    rows, columns = positives.nonzero(as_tuple=True)
    own = scores[rows, columns]
    others = scores.masked_fill(~negatives, -torch.inf)[rows]
    return (torch.logsumexp(torch.cat([own[:, None], others], dim=1), dim=1) - own).mean()


def pairwise_similarity(vectors: Tensor, distance: str = "cosine") -> Tensor:
    """Return ``[n, n]``: cosines, or Euclidean distances of normalised vectors with their sign turned round."""
    if distance not in DISTANCES:
        raise UnknownName("distance", distance, DISTANCES)
    unit = normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=-1)
    cosines = unit @ unit.T
    if distance == "cosine":
        return cosines
    tiny = torch.finfo(cosines.dtype).tiny  # the root has no gradient at 0
    return -(2 - 2 * cosines).clamp(min=tiny).sqrt().masked_fill(cosines >= 1, 0.0)


def label_pairs(vectors: Tensor, labels: Tensor) -> Pairs:
    """Return which pairs are positives (equal label, not the same row) and negatives: bool ``[n, n]`` each."""
    if vectors.ndim != 2 or labels.shape != (len(vectors),):
        raise DimensionMismatch(
            f"vectors and labels must be [n, d] and [n], got {list(vectors.shape)}, {list(labels.shape)}."
        )
    same = labels[:, None] == labels[None, :]
    return same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device), ~same


def multi_similarity_pairs(
    vectors: Tensor, labels: Tensor, *, epsilon: float = 0.1, distance: Literal["cosine", "euclidean"] = "cosine"
) -> Pairs:
    """Multi-similarity mining of hard pairs (Wang et al. 2019, arXiv:1904.06627, section 3.2).

    A negative is kept if it is more similar to the anchor than the anchor's least similar positive less ``epsilon``; a
    positive if it is less similar than the anchor's most similar negative plus ``epsilon``.

    Returns
    -------
    tuple
        bool ``[n, n]`` masks of positives and negatives, subsets of those of `label_pairs`.
    """
    positives, negatives = label_pairs(vectors, labels)
    scores = pairwise_similarity(vectors.detach(), distance)
    worst = scores.masked_fill(~positives, torch.inf).amin(1, keepdim=True)
    best = scores.masked_fill(~negatives, -torch.inf).amax(1, keepdim=True)
    return positives & (scores < best + epsilon), negatives & (scores > worst - epsilon)


def group_labels(groups: Sequence[tuple[int, int]]) -> Tensor:
    """Return labels of texts in the order query, its positives, its negatives, group after group.

    Parameters
    ----------
    groups
        By query, its numbers of positives and negatives. A query and its positives share a label; every negative has
        one of its own.

    Examples
    --------
    >>> group_labels([(1, 2), (2, 0)]).tolist()
    [0, 0, 2, 3, 1, 1, 1]
    """
    labels, fresh = list[int](), len(groups)
    for query, (positives, negatives) in enumerate(groups):
        labels += [query] * (1 + positives) + list(range(fresh, fresh + negatives))
        fresh += negatives
    return torch.tensor(labels)


class NTXent(EmbeddingLoss):
    """NT-Xent as a loss object over columns (text, positive, negatives ...): every text is an anchor in turn.

    Parameters
    ----------
    model
        The model in training, or None when only embeddings are given.
    temperature, distance
        As in `nt_xent`.
    miner_epsilon
        Keep only pairs that `multi_similarity_pairs` finds hard by this margin; None keeps all.

    Notes
    -----
    Integer labels ``[b]`` are classes of the first two columns; without them each row is a class of its own. Texts of a
    third column and further are nobody's positives. Rows that repeat a text share its class.
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        *,
        temperature: float = 0.05,
        distance: Literal["cosine", "euclidean"] = "cosine",
        miner_epsilon: float | None = None,
    ) -> None:
        super().__init__(model)
        self.temperature, self.distance, self.miner_epsilon = temperature, distance, miner_epsilon

    def compute_loss_from_embeddings(
        self,
        embeddings: Sequence[Tensor],
        labels: Tensor | None = None,
        texts: Sequence[Sequence[str]] | None = None,
    ) -> Tensor:
        """Return the loss of columns of embeddings, each ``[b, d]``."""
        self.need_columns(embeddings, 2, "(text, positive, negatives ...)")
        b = len(embeddings[0])
        if labels is not None and labels.is_floating_point():
            raise InputError("NT-Xent needs class numbers or no labels; for graded similarities use CoSENT.")
        rows = torch.arange(b) if labels is None else labels.cpu()
        if texts is not None:
            rows = _merge_repeated(rows.tolist(), texts[:2])
        fresh = torch.arange(b * (len(embeddings) - 2)) + int(rows.max()) + 1
        classes = torch.cat([rows, rows, fresh]).to(embeddings[0].device)
        vectors, pairs = torch.cat(list(embeddings)), None
        if self.miner_epsilon is not None:
            pairs = multi_similarity_pairs(vectors, classes, epsilon=self.miner_epsilon, distance=self.distance)
        return nt_xent(vectors, classes, temperature=self.temperature, distance=self.distance, pairs=pairs)


def _merge_repeated(labels: list[int], texts: Sequence[Sequence[str]]) -> Tensor:
    """Give rows that share a text one label."""
    seen = dict[str, int]()
    for row in range(len(labels)):
        for text in (column[row] for column in texts):
            old, new = seen.setdefault(text, labels[row]), labels[row]
            if old != new:
                labels = [old if label == new else label for label in labels]
                seen = {t: old if label == new else label for t, label in seen.items()}
    return torch.tensor(labels)


def _checked(pairs: Pairs, n: int) -> Pairs:
    if any(mask.shape != (n, n) or mask.dtype != torch.bool for mask in pairs):
        raise DimensionMismatch(f"pairs must be two bool masks [{n}, {n}], got {[list(mask.shape) for mask in pairs]}.")
    return pairs
