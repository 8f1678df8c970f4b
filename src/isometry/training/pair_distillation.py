"""Distilling a cross-encoder into a bi-encoder by its logits (DSE, arXiv:1908.05161)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from isometry.errors import DimensionMismatch, InputError
from isometry.modules.comparison_head import PairStudent
from isometry.training.cross_encoder import Pointwise, Schedule, batches_of, pointwise_loss
from isometry.training.loop import train
from isometry.types import FloatArray

Pair = tuple[str, str]


class PairScorer(Protocol):
    """What teaches: `isometry.ranking.CrossEncoderScorer` is one."""

    def logits(self, pairs: Sequence[Pair]) -> FloatArray:
        """Logits float32 ``[n, labels]``."""
        ...


class TeacherLogits:
    """A teacher's logits, each pair scored once.

    Parameters
    ----------
    teacher
        The scorer.

    Examples
    --------
    >>> class Length:
    ...     def logits(self, pairs):
    ...         return np.array([[len(a) + len(b)] for a, b in pairs], np.float32)
    >>> known = TeacherLogits(Length())
    >>> known([("a", "bc"), ("a", "bc")]).tolist(), len(known)
    ([[3.0], [3.0]], 1)
    """

    def __init__(self, teacher: PairScorer) -> None:
        self.teacher = teacher
        self._known: dict[bytes, FloatArray] = {}

    def __len__(self) -> int:
        return len(self._known)

    def __call__(self, pairs: Sequence[Pair]) -> FloatArray:
        """Logits ``[n, labels]`` of pairs, in order."""
        keys = [hashlib.sha256(f"{len(a)} {a}{b}".encode("utf-8", "surrogatepass")).digest() for a, b in pairs]
        missing = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in self._known}
        found = self.teacher.logits(list(missing.values()))
        self._known.update(zip(missing, found, strict=True))
        return np.stack([self._known[key] for key in keys]) if keys else found


def pair_distillation_loss(
    logits: Tensor, targets: Tensor, teacher: Tensor, *, alpha: float = 0.5, task: Pointwise | str = "bce"
) -> Tensor:
    """``(1 - alpha) task(logits, targets) + alpha mean_b sum_c (logits - teacher)^2``.

    Parameters
    ----------
    logits, teacher
        ``[b, C]``.
    targets
        ``[b]``; NaN where a pair has no label and teaches by the teacher alone.
    alpha
        0: labels alone; 1: the teacher alone.
    task
        Loss of the labels, see `isometry.training.cross_encoder.pointwise_loss`.

    Examples
    --------
    >>> z = torch.tensor([[0.5], [2.0]])
    >>> float(pair_distillation_loss(z, torch.tensor([1.0, float("nan")]), z + 1, alpha=1.0))
    1.0
    """
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha must lie between 0 (labels) and 1 (teacher), got {alpha}.")
    if logits.shape != teacher.shape:
        raise DimensionMismatch(f"Logits {list(logits.shape)} and the teacher's {list(teacher.shape)} must agree.")
    loss = alpha * (logits - teacher).square().sum(-1).mean()
    known = torch.isfinite(targets)
    if alpha < 1 and known.any():
        loss = loss + (1 - alpha) * pointwise_loss(logits[known], targets[known], task)
    return loss


def train_pair_student(
    student: PairStudent,
    pairs: Sequence[Pair],
    targets: ArrayLike,
    teacher: FloatArray,
    schedule: Schedule,
    *,
    alpha: float = 0.5,
    task: Pointwise | str = "bce",
    freeze_encoder: bool = False,
) -> list[float]:
    """Train a pair student in place on labels and a teacher's logits; return the loss of every step.

    Parameters
    ----------
    pairs
        ``n`` pairs; those beyond the labelled ones (random or retrieved pairs) have the target NaN.
    targets
        ``[n]``, see `pair_distillation_loss`.
    teacher
        Logits ``[n, C]``, e.g. of `TeacherLogits`. Their scale decides how much confident pairs count.
    alpha, task
        As in `pair_distillation_loss`.
    freeze_encoder
        Train the head alone; every text is then encoded once.

    Raises
    ------
    DimensionMismatch
        If there is not one target and one row of logits per pair.
    """
    wanted = torch.as_tensor(np.asarray(targets, np.float32))
    taught = torch.as_tensor(np.asarray(teacher, np.float32))
    if wanted.shape != (len(pairs),) or len(taught) != len(pairs):
        raise DimensionMismatch(
            f"{len(pairs)} pairs need as many targets and logits, got {len(wanted)}, {len(taught)}."
        )
    left, right = [a for a, _ in pairs], [b for _, b in pairs]
    logits = _frozen(student, left, right) if freeze_encoder else _whole(student, left, right)

    def step(module: nn.Module, rows: list[int]) -> Tensor:
        device = next(module.parameters()).device
        target, aim = wanted[rows].to(device), taught[rows].to(device)
        return pair_distillation_loss(logits(rows), target, aim, alpha=alpha, task=task)

    batches = batches_of(len(pairs), schedule.batch_size, schedule.seed)
    trained: nn.Module = student.head if freeze_encoder else student
    options: dict[str, Any] = {"steps": schedule.steps, "lr": schedule.lr, "warmup": schedule.warmup}
    return train(trained, batches, step, seed=schedule.seed, **options)


def _whole(student: PairStudent, left: list[str], right: list[str]) -> Callable[[list[int]], Tensor]:
    def logits(rows: list[int]) -> Tensor:
        found: Tensor = student([left[r] for r in rows], [right[r] for r in rows])
        return found

    return logits


def _frozen(student: PairStudent, left: list[str], right: list[str]) -> Callable[[list[int]], Tensor]:
    texts = sorted({*left, *right}, key=lambda text: (len(text), text))
    place = {text: row for row, text in enumerate(texts)}
    vectors = student.encode(texts)
    u, v = ([place[text] for text in side] for side in (left, right))

    def logits(rows: list[int]) -> Tensor:
        found: Tensor = student.head(vectors[[u[r] for r in rows]], vectors[[v[r] for r in rows]])
        return found

    return logits
