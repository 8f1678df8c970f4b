"""Distillation of scores: a student learns what a teacher thinks of each query's candidates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from isometry.errors import DimensionMismatch, InputError, UnknownName
from isometry.objectives.loss import EmbeddingLoss, Teacher, check_keep, same_shape, teach

Divergence = Literal["kl", "ce", "symmetric"]


def score_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared error of scores of any shape.

    >>> float(score_mse(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0])))
    2.0
    """
    same_shape(student, teacher, "student and teacher scores", matrix=False)
    return (student - teacher).square().mean()


def margin_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """MarginMSE: squared error of the lead of the first candidate over each other one (Hofstätter et al. 2020).

    Parameters
    ----------
    student, teacher
        Scores ``[b, k]``, k >= 2; the first column is the positive. Scores of the two may differ by a constant.

    Examples
    --------
    >>> float(margin_mse(torch.tensor([[3.0, 1.0]]), torch.tensor([[9.0, 8.0]])))    # (2 - 1) squared
    1.0
    """
    same_shape(student, teacher, "student and teacher scores")
    if student.shape[1] < 2:
        raise DimensionMismatch("MarginMSE compares the first candidate with others; got lists of one.")
    return score_mse(student[:, :1] - student[:, 1:], teacher[:, :1] - teacher[:, 1:])


def soft_labels(teacher: Tensor, *, temperature: float = 1.0, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return a teacher's probabilities ``[b, k]`` and their entropies ``[b]`` in nats.

    An entropy near ``log k`` means that the temperature is too high to teach anything.

    >>> probabilities, entropy = soft_labels(torch.zeros(1, 4))
    >>> probabilities[0, 0].item(), round(entropy.item(), 4)    # log 4
    (0.25, 1.3863)
    """
    p = _log_softmax(teacher, temperature, check_keep(teacher, keep)).exp()
    return p, torch.special.entr(p).sum(1)


def listwise_distillation(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    teacher_temperature: float = 1.0,
    keep: Tensor | None = None,
    divergence: Divergence = "kl",
) -> Tensor:
    """Divergence of the student's softmax over each list of candidates from the teacher's, mean over rows.

    ``ce`` is ``-sum_j P_t log P_s`` (Granite Embedding R2, LG-ANNA); ``kl`` is that less the teacher's entropy, which
    has the same gradient and is 0 if and only if the distributions are equal; ``symmetric`` is the mean of the two
    directions of ``kl``. Adding a constant to a row of scores changes nothing.

    Parameters
    ----------
    student, teacher
        Scores ``[b, k]``; the teacher's get no gradient.
    temperature, teacher_temperature
        Divisors of the scores of each.
    keep
        bool ``[b, k]``: candidates that are there; the rest is padding.

    Raises
    ------
    DimensionMismatch
        If shapes do not fit.
    InputError
        If a temperature is not positive or a row keeps nothing.

    Examples
    --------
    >>> s = torch.tensor([[0.3, 0.1, 0.9]])
    >>> bool(listwise_distillation(s, s + 5.0).abs() < 1e-6)
    True
    """
    same_shape(student, teacher, "student and teacher scores")
    if divergence not in (known := get_args(Divergence)):
        raise UnknownName("divergence", divergence, known)
    kept = check_keep(student, keep)
    wanted = _log_softmax(teacher.detach(), teacher_temperature, kept)
    found = _log_softmax(student, temperature, kept)
    # Padding has probability 0; its logarithm is set to 0, for 0 times -inf would be NaN.
    p, log_p, log_s = wanted.exp(), wanted.masked_fill(~kept, 0.0), found.masked_fill(~kept, 0.0)
    forward = -(p * log_s).sum(1) if divergence == "ce" else (p * (log_p - log_s)).sum(1)
    if divergence == "symmetric":
        forward = (forward + (found.exp() * (log_s - log_p)).sum(1)) / 2
    return forward.mean()


def _log_softmax(scores: Tensor, temperature: float | Tensor, keep: Tensor) -> Tensor:
    if not torch.as_tensor(temperature).gt(0).all():
        raise InputError(f"temperature must be > 0, got {temperature}.")
    logits = scores.to(torch.promote_types(scores.dtype, torch.float32)) / temperature
    return logits.masked_fill(~keep, -torch.inf).log_softmax(1)


class Distillation(EmbeddingLoss):
    """Score distillation as a loss object: columns (query, candidate, candidate ...).

    Parameters
    ----------
    model
        The model in training, or None when only embeddings are given.
    compare
        Called with the student's and the teacher's scores ``[b, k]``, e.g. `listwise_distillation` with its
        temperatures set by ``functools.partial``, `margin_mse` or `score_mse`.
    teacher
        A frozen encoder of raw texts, such as `isometry.negatives.Guide`, whose cosines are the teacher's scores;
        without one they come as labels ``[b, k]``.
    in_batch
        Whether the candidates of all rows are candidates of each: k is then b times the number of columns.

    Examples
    --------
    >>> q = torch.eye(2)
    >>> loss = Distillation(compare=score_mse)
    >>> float(loss.compute_loss_from_embeddings([q, q, q], torch.tensor([[1.0, 0.0], [1.0, 0.0]])))
    0.5
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        *,
        compare: Callable[[Tensor, Tensor], Tensor] = listwise_distillation,
        teacher: Teacher | None = None,
        in_batch: bool = False,
    ) -> None:
        super().__init__(model)
        self.compare, self.teacher, self.in_batch = compare, teacher, in_batch

    def compute_loss_from_embeddings(
        self,
        embeddings: Sequence[Tensor],
        labels: Tensor | None = None,
        texts: Sequence[Sequence[str]] | None = None,
    ) -> Tensor:
        """Return the loss of columns of embeddings, each ``[b, d]``."""
        self.need_columns(embeddings, 2, "(query, candidate ...)")
        student = candidate_scores(embeddings, in_batch=self.in_batch)
        if self.teacher is not None and texts is not None:
            teacher = candidate_scores(teach(self.teacher, texts, embeddings[0]), in_batch=self.in_batch)
        elif labels is not None and labels.is_floating_point():
            teacher = (labels[:, None] if labels.ndim == 1 else labels).to(student.dtype)
        else:
            raise InputError("Distillation needs a teacher and raw texts (keep_texts), or its scores as labels [b, k].")
        return self.compare(student, teacher)


def candidate_scores(columns: Sequence[Tensor], *, in_batch: bool = False) -> Tensor:
    """Return cosines of each query with its candidates ``[b, k]``, or with those of all rows ``[b, b k]``.

    In a batch the columns come one after the other: first every row's first candidate, then every row's second.

    >>> q = torch.eye(2)
    >>> candidate_scores([q, q, q.flip(0)])
    tensor([[1., 0.],
            [1., 0.]])
    """
    q, *docs = (normalize(column, dim=-1) for column in columns)
    return q @ torch.cat(docs).T if in_batch else torch.stack([(q * d).sum(1) for d in docs], dim=1)
