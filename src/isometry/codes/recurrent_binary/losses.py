"""Losses between codes: bidirectional InfoNCE with the hardest negatives, and distillation of similarities."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, normalize, softmax

from isometry.errors import DimensionMismatch, InputError


def hard_info_nce(
    q: Tensor,
    docs: Tensor,
    *,
    temperature: float = 0.05,
    hard: int | None = 5,
    ids: Tensor | None = None,
    doc_ids: Tensor | None = None,
) -> Tensor:
    """InfoNCE by cosine of each row against its positive and its ``hard`` most similar negatives, mean over rows.

    Parameters
    ----------
    q, docs
        ``[n, m]`` and ``[n + k, m]``: row i's positive is document i, every other document a negative.
    temperature
        Divisor of cosines.
    hard
        Negatives kept per row, fewer where there are fewer; None keeps all.
    ids, doc_ids
        int64 ``[n]`` and ``[n + k]``: documents that carry the id of a row or of its positive are no negatives of it.

    Raises
    ------
    DimensionMismatch
        If shapes do not fit.
    InputError
        If temperature or hard is not positive.

    Examples
    --------
    >>> round(float(hard_info_nce(torch.eye(2), torch.eye(2), temperature=1.0)), 4)     # log(1 + 1/e)
    0.3133
    """
    if temperature <= 0 or (hard is not None and hard < 1):
        raise InputError(f"temperature must be > 0 and hard >= 1, got {temperature} and {hard}.")
    n = len(q)
    if q.ndim != 2 or docs.ndim != 2 or q.shape[1] != docs.shape[1] or not 0 < n <= len(docs):
        raise DimensionMismatch(
            f"q and docs must be [n, m] and [n + k, m], n >= 1; got {list(q.shape)} and {list(docs.shape)}."
        )
    logits = normalize(q, dim=-1) @ normalize(docs, dim=-1).T / temperature
    taken = torch.eye(n, len(docs), dtype=torch.bool, device=q.device)
    if doc_ids is not None:
        taken = taken | (doc_ids[:n, None] == doc_ids[None])
        if ids is not None:
            taken = taken | (ids[:, None] == doc_ids[None])
    negatives = logits.masked_fill(taken, -torch.inf)
    if hard is not None and hard < len(docs):
        negatives = negatives.topk(hard, dim=1).values
    rows = torch.cat([logits.diagonal()[:, None], negatives], dim=1)
    return cross_entropy(rows, torch.zeros(n, dtype=torch.long, device=q.device))


def both_ways(
    q: Tensor,
    d: Tensor,
    *,
    temperature: float = 0.05,
    hard: int | None = 5,
    ids: tuple[Tensor, Tensor] | None = None,
    queues: tuple[Tensor, Tensor] | None = None,
    queue_ids: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """``L(q -> d) + L(d -> q)`` of `hard_info_nce`, each with the other side's queue as further negatives.

    Parameters
    ----------
    q, d
        ``[n, m]`` each, row by row pairs.
    ids, queue_ids
        Ids of (queries, documents), of the batch ``[n]`` and of the queues ``[k]``.
    queues
        Earlier codes of (queries, documents), ``[k, m]``.
    """
    total = q.new_zeros(())
    for left, right, side in ((q, d, 1), (d, q, 0)):
        candidates = right if queues is None else torch.cat([right, queues[side]])
        names = None if ids is None else ids[side]
        if names is not None and queue_ids is not None:
            names = torch.cat([names, queue_ids[side]])
        own = None if ids is None else ids[1 - side]
        total = total + hard_info_nce(left, candidates, temperature=temperature, hard=hard, ids=own, doc_ids=names)
    return total


def similarity_distillation(
    codes: Tensor, teacher: Tensor, others: Tensor | None = None, *, temperature: float = 0.05, weight: float = 5.0
) -> Tensor:
    """Cross-entropy between row softmaxes of cosines plus ``weight`` times their mean squared difference.

    Parameters
    ----------
    codes, others
        Codes ``[n, m]`` and those they are compared with ``[k, m]``; None: with each other, and the diagonal, which is
        1 for every code, is left out.
    teacher
        Cosines of the vectors they stand for, ``[n, k]``.
    temperature, weight
        Of the softmaxes, and of the squared differences.

    Raises
    ------
    DimensionMismatch
        If the teacher's shape is not that of the cosines of the codes.
    """
    unit = normalize(codes, dim=-1)
    cosines = unit @ (unit if others is None else normalize(others, dim=-1)).T
    if cosines.shape != teacher.shape:
        raise DimensionMismatch(f"The teacher is {list(teacher.shape)}, the cosines {list(cosines.shape)}.")
    squared = (cosines - teacher).square().mean()
    if others is None:
        own = torch.eye(len(codes), dtype=torch.bool, device=codes.device)
        cosines, teacher = cosines.masked_fill(own, -1e4), teacher.masked_fill(own, -1e4)
    target = softmax(teacher / temperature, dim=1)
    return -(target * log_softmax(cosines / temperature, dim=1)).sum(dim=1).mean() + weight * squared
