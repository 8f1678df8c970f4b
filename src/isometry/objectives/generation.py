"""Losses over next-token predictions: likelihood, preferences, and agreement of a vector space with a generator.

Labels follow one convention: ``labels[i, t]`` is the token that position ``t - 1`` should predict, and ``-100`` marks
positions that do not count, such as a prompt, padding or an inserted token. The first position never counts.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, logsigmoid, relu

from isometry.errors import DimensionMismatch, EmptyInput, InputError, UnknownName

IGNORE = -100
PREFERENCES = ("sft", "sigmoid", "ipo", "kto_pair", "hinge")


def token_log_probs(logits: Tensor, labels: Tensor, *, vocabulary: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the log-probability of every label and which of them count: float and bool, both ``[b, t - 1]``.

    Parameters
    ----------
    logits
        ``[b, t, v]``, before any shift.
    labels
        int64 ``[b, t]`` with -100 where nothing is predicted.
    vocabulary
        bool ``[v]``: the tokens that can be predicted at all (vocabulary mask). Tokens added later are left out here,
        so that the distribution over the original ones stays what it was.

    Raises
    ------
    DimensionMismatch
        If shapes do not fit.
    InputError
        If a label lies outside the vocabulary.
    """
    if logits.ndim != 3 or labels.shape != logits.shape[:2] or labels.shape[1] < 2:
        shapes = f"{list(logits.shape)} and {list(labels.shape)}"
        raise DimensionMismatch(f"logits and labels must be [b, t, v] and [b, t] with t >= 2, got {shapes}.")
    width = logits.shape[2]
    counted = labels[:, 1:] != IGNORE
    wanted, scores = labels[:, 1:][counted], logits[:, :-1][counted]
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if ((wanted < 0) | (wanted >= width)).any():
        raise InputError(f"Labels must be -100 or in 0..{width - 1}, got {int(wanted.min())}..{int(wanted.max())}.")
    if vocabulary is not None:
        if vocabulary.shape != (width,) or vocabulary.dtype != torch.bool:
            raise DimensionMismatch(f"vocabulary must be bool [{width}], got {list(vocabulary.shape)}.")
        if not vocabulary[wanted].all():
            raise InputError("A label is outside the vocabulary mask: set it to -100, since it can never be predicted.")
        scores = scores.masked_fill(~vocabulary, -torch.inf)
    values = scores.new_zeros(counted.shape)
    values[counted] = -cross_entropy(scores, wanted, reduction="none")
    return values, counted


def next_token_loss(logits: Tensor, labels: Tensor, *, vocabulary: Tensor | None = None) -> Tensor:
    """Next-token cross-entropy in nats: the mean over all labels that count.

    Parameters as in `token_log_probs`.

    Raises
    ------
    EmptyInput
        If no label counts.

    Examples
    --------
    >>> logits = torch.zeros(1, 3, 4)
    >>> round(float(next_token_loss(logits, torch.tensor([[0, 1, -100]]))), 4)      # log 4
    1.3863
    >>> two = torch.tensor([True, True, False, False])
    >>> round(float(next_token_loss(logits, torch.tensor([[0, 1, -100]]), vocabulary=two)), 4)      # log 2
    0.6931
    """
    values, counted = token_log_probs(logits, labels, vocabulary=vocabulary)
    if not counted.any():
        raise EmptyInput("No label counts in this batch: every text is too short, or every label is -100.")
    return -values.sum() / counted.sum()


def sequence_log_probs(
    logits: Tensor, labels: Tensor, *, vocabulary: Tensor | None = None, reduction: Literal["mean", "sum"] = "mean"
) -> Tensor:
    """Return the log-likelihood ``[b]`` of each row's labelled tokens: per token (``"mean"``) or in all (``"sum"``).

    Sums favour short passages; preference losses are defined on them, scores shown to people should be means.

    Raises
    ------
    InputError
        If a row has no token that counts, such as an empty passage or one cut away whole.
    """
    values, counted = token_log_probs(logits, labels, vocabulary=vocabulary)
    lengths = counted.sum(1)
    if (empty := (lengths == 0).nonzero()[:, 0].tolist()) != []:
        raise InputError(
            f"Rows {empty} have no labelled token, so no likelihood: drop empty passages, cut prompts first."
        )
    return values.sum(1) / lengths if reduction == "mean" else values.sum(1)


def preference_loss(
    chosen: Tensor,
    rejected: Tensor,
    *,
    kind: str = "sigmoid",
    beta: float = 0.1,
    label_smoothing: float = 0.0,
    reference: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Preference losses on log-likelihoods of a chosen and a rejected continuation; the mean over rows.

    With D the difference of the policy's log-likelihoods less that of the reference:

    ============ ================================================= ==============================================
    kind         loss of a row                                     source
    ============ ================================================= ==============================================
    ``sft``      ``-chosen``; ``rejected`` is not looked at        supervised fine-tuning
    ``sigmoid``  ``-log sigmoid(beta D)``, labels smoothed         DPO, Rafailov et al. 2023, arXiv:2305.18290
    ``ipo``      ``(D - 1 / (2 beta))^2``, on mean likelihoods     IPO, Azar et al. 2023, arXiv:2310.12036
    ``hinge``    ``max(0, 1 - beta D)``                            SLiC, Zhao et al. 2023, arXiv:2305.10425
    ``kto_pair`` desirable and undesirable against the batch's KL  KTO, Ethayarajh et al. 2024, arXiv:2402.01306
    ============ ================================================= ==============================================

    Parameters
    ----------
    chosen, rejected
        The policy's log-likelihoods ``[b]``, from `sequence_log_probs`: sums, but means for ``ipo`` and ``sft``.
    beta
        Strength of the preference.
    label_smoothing
        Chance that a pair is labelled the wrong way round (``sigmoid`` only).
    reference
        Log-likelihoods ``[b]`` of a frozen reference; None: reference-free, that is zero.

    Raises
    ------
    UnknownName
        If there is no such kind.
    InputError
        If beta or label_smoothing is out of range.
    DimensionMismatch
        If shapes differ.

    Examples
    --------
    >>> even = torch.zeros(2)
    >>> round(float(preference_loss(even, even)), 4)                                # log 2
    0.6931
    >>> float(preference_loss(even + 5, even, kind="ipo", beta=0.1))                # D = 1 / (2 beta)
    0.0
    """
    if kind not in PREFERENCES:
        raise UnknownName("preference loss", kind, PREFERENCES)
    if not (beta > 0 and 0 <= label_smoothing < 0.5):
        raise InputError(f"beta must be > 0 and label_smoothing in [0, 0.5), got {beta} and {label_smoothing}.")
    zero = torch.zeros_like(chosen)
    others = (rejected, *(reference or (zero, zero)))
    if chosen.ndim != 1 or not len(chosen) or any(other.shape != chosen.shape for other in others):
        raise DimensionMismatch(f"Log-likelihoods must be vectors [b] of one length b >= 1, got {list(chosen.shape)}.")
    if kind == "sft":
        return -chosen.mean()
    won, lost = chosen - others[1], rejected - others[2]
    margin = won - lost
    if kind == "sigmoid":
        smooth = label_smoothing
        return -((1 - smooth) * logsigmoid(beta * margin) + smooth * logsigmoid(-beta * margin)).mean()
    if kind == "ipo":
        return (margin - 1 / (2 * beta)).square().mean()
    if kind == "hinge":
        return relu(1 - beta * margin).mean()
    above, below = (side.detach().mean().clamp(min=0) for side in (won, lost))  # estimates of the KL: no gradient
    losses = torch.cat([1 - torch.sigmoid(beta * (won - below)), 1 - torch.sigmoid(beta * (above - lost))])
    return losses.mean()


def agreement_loss(
    similarities: Tensor,
    likelihoods: Tensor,
    *,
    temperature: float = 0.1,
    direction: Literal["generation", "retrieval"] = "generation",
    keep: Tensor | None = None,
) -> Tensor:
    """KL divergence of a query's candidates as the vectors rank them and as the generator does (ULLME's GRL).

    ``P_rt = softmax(similarities / temperature)`` and ``P_gen = softmax(likelihoods)`` over each row's candidates.

    Parameters
    ----------
    similarities
        Cosines ``[b, k]`` of queries and their candidates.
    likelihoods
        Mean token log-probabilities ``[b, k]`` of the candidates given the query.
    direction
        ``"generation"``: ``KL(P_gen || P_rt)`` with P_gen a constant, as the authors' program does: only the vectors
        learn. ``"retrieval"``: ``KL(P_rt || P_gen)`` as the paper writes it; both learn.
    keep
        bool ``[b, k]``: candidates that exist; each row needs one.

    Examples
    --------
    >>> same = torch.tensor([[0.1, 0.3]])
    >>> abs(float(agreement_loss(same, same / 0.1))) < 1e-6
    True
    """
    if similarities.ndim != 2 or likelihoods.shape != similarities.shape:
        raise DimensionMismatch(
            f"Both scores must be [b, k], got {list(similarities.shape)} and {list(likelihoods.shape)}."
        )
    if temperature <= 0:
        raise InputError(f"temperature must be > 0, got {temperature}.")
    if direction not in ("generation", "retrieval"):
        raise UnknownName("direction of agreement", direction, ("generation", "retrieval"))
    keep = torch.ones_like(similarities, dtype=torch.bool) if keep is None else keep
    if keep.shape != similarities.shape or not keep.any(1).all():
        raise InputError(f"keep must be bool {list(similarities.shape)} with a candidate in every row.")
    retrieval, generation = (
        log_softmax(scores.masked_fill(~keep, -torch.inf), dim=1)
        for scores in (similarities / temperature, likelihoods.detach() if direction == "generation" else likelihoods)
    )
    first, second = (generation, retrieval) if direction == "generation" else (retrieval, generation)
    gap = (first - second).masked_fill(~keep, 0.0)  # -inf - -inf where nothing is
    return (first.exp() * gap).sum(1).mean()


def passage_labels(ids: Tensor, start: Tensor, attention_mask: Tensor) -> Tensor:
    """Return labels ``[b, t]`` that count only real tokens from column ``start[i]`` on.

    >>> ids, mask = torch.tensor([[5, 6, 7, 0]]), torch.tensor([[1, 1, 1, 0]])
    >>> passage_labels(ids, torch.tensor([1]), mask).tolist()
    [[-100, 6, 7, -100]]
    """
    columns = torch.arange(ids.shape[1], device=ids.device)
    counted = (columns[None, :] >= start[:, None]) & attention_mask.bool()
    return ids.masked_fill(~counted, IGNORE)
