"""Training click models on compressed tables: stages, early stopping, AUC and log-loss, and what it took."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from isometry.errors import EmptyInput, InputError
from isometry.modules.click_models import ClickModel
from isometry.modules.embedding_tables import CompressedEmbedding, Stage, StageContext
from isometry.training.loop import seeded
from isometry.types import FloatArray, IntArray
from isometry.types.progress import Progress

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ClickLog:
    """Impressions with one id of each categorical field.

    Parameters
    ----------
    ids
        int64 ``[n, F]``, in each column below the size of its field.
    labels
        float32 ``[n]``: 1 clicked, 0 not.
    fields
        Size of each field by name, in the order of the columns.
    dense
        float32 ``[n, k]`` numeric features, where there are any.
    """

    ids: IntArray
    labels: FloatArray
    fields: Mapping[str, int]
    dense: FloatArray | None = None

    def __post_init__(self) -> None:
        n = len(self.labels)
        if not n:
            raise EmptyInput("A click log needs at least one row.")
        if self.ids.shape != (n, len(self.fields)) or (self.dense is not None and len(self.dense) != n):
            raise InputError(f"A click log of {n} labels and {len(self.fields)} fields cannot have ids of shape "
                             f"{self.ids.shape}.")  # fmt: skip
        if not np.isin(self.labels, (0.0, 1.0)).all():
            raise InputError("Labels of a click log are 0 or 1.")

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> ClickLog:
        """The impressions at these positions."""
        return ClickLog(self.ids[rows], self.labels[rows], self.fields,
                        None if self.dense is None else self.dense[rows])  # fmt: skip

    def split(self, shares: tuple[float, float] = (0.8, 0.1), *, seed: int = 0) -> tuple[ClickLog, ClickLog, ClickLog]:
        """Return training, validation and test impressions, at random."""
        order = np.random.default_rng(seed).permutation(len(self))
        cuts = np.cumsum([round(share * len(self)) for share in shares])
        first, second, third = np.split(order, cuts)
        return self.take(first), self.take(second), self.take(third)

    def frequencies(self) -> IntArray:
        """How often each id occurs, the fields one after the other; take it of the training part only."""
        counts = [
            np.bincount(column, minlength=size) for column, size in zip(self.ids.T, self.fields.values(), strict=True)
        ]
        return np.concatenate(counts).astype(np.int64)


@dataclass(frozen=True)
class ClickRun:
    """What training a click model gave and took.

    Parameters
    ----------
    auc, log_loss
        On the test part, from the inference form.
    ratio, inference_bytes
        Of the table, everything counted.
    training_bytes
        The most the table held in training: parameters, gradients, moments, buffers.
    seconds, steps
        Of training, all stages.
    validation
        AUC at every evaluation, by stage.
    """

    auc: float
    log_loss: float
    ratio: float
    inference_bytes: int
    training_bytes: int
    seconds: float
    steps: int
    validation: Mapping[str, tuple[float, ...]]


def area_under_curve(labels: Any, scores: Any) -> float:
    """Area under the ROC curve by rank sums; ties count half.

    >>> area_under_curve([0, 1, 1], [0.1, 0.1, 0.7])
    0.75

    Raises
    ------
    InputError
        If only one class occurs.
    """
    from scipy.stats import rankdata

    positive = np.asarray(labels) > 0
    hits, misses = int(positive.sum()), int((~positive).sum())
    if not hits or not misses:
        raise InputError("The AUC needs rows of both classes.")
    return float((rankdata(scores)[positive].sum() - hits * (hits + 1) / 2) / (hits * misses))


def click_scores(model: ClickModel, log: ClickLog, *, batch: int = 8192) -> Floats:
    """Logits of a log, float64 ``[n]``, without training."""
    was = model.training
    model.eval()
    with torch.no_grad():
        parts = [model(*inputs).numpy() for inputs, _ in _batches(log, batch, None)]
    model.train(was)
    return np.concatenate(parts).astype(np.float64)


def log_loss(labels: FloatArray, logits: Floats) -> float:
    """Mean negative log-likelihood of 0-1 labels under logits, in nats."""
    return float(np.mean(np.logaddexp(0, logits) - labels * logits))


def _batches(log: ClickLog, size: int, rng: np.random.Generator | None) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
    order = np.arange(len(log)) if rng is None else rng.permutation(len(log))
    for start in range(0, len(log), size):
        rows = order[start : start + size]
        inputs = [torch.from_numpy(log.ids[rows])]
        inputs += [] if log.dense is None else [torch.from_numpy(log.dense[rows])]
        yield tuple(inputs), torch.from_numpy(log.labels[rows])


def _forever(log: ClickLog, size: int, rng: np.random.Generator) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
    while True:
        yield from _batches(log, size, rng)


@dataclass
class ClickTrainer:
    """Trains a click model through the stages of its table (Adam, early stopping on the validation AUC).

    Parameters
    ----------
    make_model
        Puts a network on a table; called again where a stage starts the network anew.
    batch, lr
        Size of a batch and Adam's learning rate (128 and 1e-3 in the paper).
    epochs
        Most passes over the training part, per stage.
    evaluations, patience
        Evaluations per pass (100 in the paper), and how many without a new best end a stage (40).
    seed
        Order of the batches and initial networks.
    """

    make_model: Callable[[CompressedEmbedding], ClickModel]
    batch: int = 128
    lr: float = 1e-3
    epochs: float = 10
    evaluations: int = 100
    patience: int = 40
    seed: int = 0

    def fit(
        self, table: CompressedEmbedding, train: ClickLog, validation: ClickLog, *, progress: Progress | None = None
    ) -> tuple[ClickModel, dict[str, tuple[float, ...]], int, int]:
        """Train and finalize.

        Returns
        -------
        tuple
            The model; validation AUCs by stage; steps; the most bytes the table held in training.
        """
        with seeded(self.seed):
            model, history, steps, most = self.make_model(table), dict[str, tuple[float, ...]](), 0, 0
            for stage in table.train_hooks:
                if stage.fresh:
                    torch.manual_seed(self.seed)
                    model = self.make_model(table)
                total = math.ceil(self.epochs * math.ceil(len(train) / self.batch))
                context = StageContext(total, self.batch, lambda m=model: self._auc(m, validation))  # type: ignore[misc]
                most = max(most, table.training_bytes())
                table.begin_stage(stage, context)
                most = max(most, table.training_bytes())
                if stage.trains:
                    history[stage.name], taken = self._stage(model, table, stage, (train, validation), progress)
                    steps += taken
        table.finalize()
        return model, history, steps, most

    def _auc(self, model: ClickModel, log: ClickLog) -> float:
        return area_under_curve(log.labels, click_scores(model, log))

    def _stage(
        self, model: ClickModel, table: CompressedEmbedding, stage: Stage, logs: tuple[ClickLog, ClickLog],
        progress: Progress | None,
    ) -> tuple[tuple[float, ...], int]:  # fmt: skip
        train, validation = logs
        first, second = self._optimizers(model, table)
        rng = np.random.default_rng(self.seed)
        other = _forever(validation, self.batch, np.random.default_rng(self.seed + 1))
        total = math.ceil(self.epochs * math.ceil(len(train) / self.batch))
        every = max(1, math.ceil(len(train) / self.batch) // self.evaluations)
        found, best, last, step, kept = list[float](), -1.0, 0, 0, dict[str, Tensor]()
        model.train()
        for step, batch in zip(range(1, total + 1), _forever(train, self.batch, rng), strict=False):
            self._step(model, table, batch, first)
            if second is not None and stage.second:
                self._step(model, table, next(other) if stage.second == "validation" else batch, second)
            table.after_step()
            if step % every == 0 or step == total:
                found.append(self._auc(model, validation))
                if table.settled and found[-1] > best:
                    best, last = found[-1], len(found)
                    kept = {k: v.detach().clone() for k, v in model.state_dict().items()}
                elif table.settled and len(found) - last >= self.patience:
                    break
            if progress is not None:
                progress(step, total)
        if kept:
            model.load_state_dict(kept)
        return tuple(found), step

    def _optimizers(
        self, model: ClickModel, table: CompressedEmbedding
    ) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer | None]:
        own = {id(p) for p in table.parameters()}
        rest = [p for p in model.parameters() if id(p) not in own]
        groups = [g for g in table.parameter_groups(self.lr) if g["params"]]
        second = table.second_parameters()
        first = torch.optim.Adam([{"params": rest, "lr": self.lr}, *groups])
        return first, torch.optim.Adam(second, lr=table.second_lr) if second else None

    def _step(
        self, model: ClickModel, table: CompressedEmbedding, batch: tuple[tuple[Tensor, ...], Tensor],
        optimizer: torch.optim.Optimizer,
    ) -> None:  # fmt: skip
        inputs, labels = batch
        loss = F.binary_cross_entropy_with_logits(model(*inputs), labels)
        penalty = table.penalty()
        loss = loss if penalty is None else loss + penalty
        if not bool(torch.isfinite(loss)):
            raise InputError(f"The loss is {float(loss.detach())}: lower lr ({self.lr}) or look at the log.")
        model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def train_click_model(
    trainer: ClickTrainer, table: CompressedEmbedding, parts: tuple[ClickLog, ClickLog, ClickLog],
    *, progress: Progress | None = None,
) -> tuple[ClickModel, ClickRun]:  # fmt: skip
    """Train a table with its network on (training, validation, test) and measure the inference form on test."""
    train, validation, test = parts
    started = time.process_time()
    model, history, steps, most = trainer.fit(table, train, validation, progress=progress)
    seconds = time.process_time() - started
    logits = click_scores(model, test)
    run = ClickRun(area_under_curve(test.labels, logits), log_loss(test.labels, logits), table.ratio(), table.n_bytes(),
                   most, seconds, steps, history)  # fmt: skip
    return model, run
