"""Distilling a cross-encoder into a bi-encoder by its logits (DSE, arXiv:1908.05161)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from isometry.errors import DimensionMismatch, InputError
from isometry.modules.comparison_head import PairStudent
from isometry.training.best_weights import BestWeights
from isometry.training.cross_encoder import Pointwise, Schedule, pointwise_loss
from isometry.training.length_batches import LengthBatches
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


def unit_logits(logits: FloatArray, known: int) -> FloatArray:
    """Divide logits ``[n, C]`` by the standard deviation of their first ``known`` rows, column by column.

    Teachers and tasks differ in scale, and squared error would be ruled by the pairs a teacher is surest of. Zero,
    where yes and no are equally likely, stays zero.

    >>> unit_logits(np.array([[-3.0], [3.0], [6.0]], np.float32), known=2)[:, 0].tolist()
    [-1.0, 1.0, 2.0]
    """
    deviation = np.asarray(logits, np.float32)[:known].std(0)
    if not np.isfinite(deviation).all() or not (deviation > 0).all():
        raise InputError(f"Logits whose deviation is {deviation.tolist()} cannot be brought to one scale.")
    scaled: FloatArray = np.asarray(logits, np.float32) / deviation
    return scaled


class MeanTeacher:
    """Several teachers as one: the mean of their logits, each pair scored once by each."""

    def __init__(self, teachers: Sequence[PairScorer]) -> None:
        self.teachers = [TeacherLogits(teacher) for teacher in teachers]

    def logits(self, pairs: Sequence[Pair]) -> FloatArray:
        """Logits float32 ``[n, labels]``."""
        mean: FloatArray = np.mean([teacher(pairs) for teacher in self.teachers], 0, dtype=np.float32)
        return mean


def cross_fitted(
    pairs: Sequence[Pair], teach: Callable[[list[int]], PairScorer], *, folds: int = 2, seed: int = 0
) -> tuple[FloatArray, list[PairScorer]]:
    """Logits of every pair by a teacher that was not trained on it, and the teachers (cross-fitting).

    What a teacher says of pairs it knows by heart are their labels once more.

    Parameters
    ----------
    teach
        Trains a teacher on the pairs at these places.
    folds
        How many teachers share the pairs; 1: one teacher learns all of them and scores what it has seen.

    Returns
    -------
    tuple
        Logits ``[n, C]`` in the order of ``pairs``, and one teacher per fold.

    Raises
    ------
    InputError
        If there are fewer pairs than folds.
    """
    if not 1 <= folds <= len(pairs):
        raise InputError(f"{len(pairs)} pairs cannot be shared by {folds} folds.")
    fold = np.random.default_rng(seed).permutation(len(pairs)) % folds
    teachers, found = [], dict[int, FloatArray]()
    for one in range(folds):
        teacher = teach(np.flatnonzero(fold != one).tolist() if folds > 1 else list(range(len(pairs))))
        held = np.flatnonzero(fold == one).tolist()
        found.update(zip(held, teacher.logits([pairs[row] for row in held]), strict=True))
        teachers.append(teacher)
    return np.stack([found[row] for row in range(len(pairs))]), teachers


def train_pair_student(
    student: PairStudent,
    pairs: Sequence[Pair],
    targets: ArrayLike,
    teacher: FloatArray,
    schedule: Schedule,
    *,
    alpha: float = 0.5,
    task: Pointwise | str = "bce",
    best: BestWeights | None = None,
) -> list[float]:
    """Train a pair student in place on labels and a teacher's logits; return the loss of every step.

    Weights that should stay as they are must not require a gradient, e.g. the encoder's for a head alone.

    Parameters
    ----------
    pairs
        ``n`` pairs; those beyond the labelled ones (random or retrieved pairs) have the target NaN.
    targets
        ``[n]``, see `pair_distillation_loss`.
    teacher
        Logits ``[n, C]``, e.g. of `TeacherLogits`. Their scale decides how much confident pairs count; `unit_logits`.
    alpha, task
        As in `pair_distillation_loss`.
    best
        Judges the student on its way; it ends with the weights of its best judgement.

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

    def step(module: nn.Module, rows: list[int]) -> Tensor:
        logits = student([pairs[r][0] for r in rows], [pairs[r][1] for r in rows])
        target, aim = wanted[rows].to(logits.device), taught[rows].to(logits.device)
        return pair_distillation_loss(logits, target, aim, alpha=alpha, task=task)

    batches = LengthBatches([len(a) + len(b) for a, b in pairs], schedule.batch_size, seed=schedule.seed)
    history = train(student, batches, step, **schedule.options(), progress=best)
    if best is not None:
        best.restore()
    return history
