"""Training an embedder in stages, each with its own rows, loss and learning rate (e.g. NV-Embed, arXiv:2405.17428)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from isometry.data.converters import Row
from isometry.errors import EmptyInput, InputError
from isometry.negatives import SourceBatches
from isometry.training.checkpoints import Checkpoints
from isometry.training.loop import train

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


@dataclass(frozen=True)
class TrainingStage:
    """One stage.

    Parameters
    ----------
    rows
        Rows with positives; every batch is of one source, and where a row has several positives one is drawn.
    loss
        Makes the loss from the model in training; called with the feature dicts of query, positive and negatives.
    steps, lr, batch_size, warmup
        Updates, highest learning rate, rows per update, share of the steps in which the rate rises.
    negatives
        Negatives a row, drawn from its own; rows with fewer are repeated from the start of theirs.
    prompts
        By source, what stands before a query, such as an instruction; documents get none.
    """

    rows: Sequence[Row]
    loss: Callable[[SentenceTransformer], nn.Module]
    steps: int
    lr: float
    batch_size: int
    warmup: float = 0.1
    negatives: int = 0
    prompts: Mapping[str, str] = field(default_factory=dict)


def train_in_stages(
    model: SentenceTransformer,
    stages: Sequence[TrainingStage],
    *,
    seed: int = 0,
    after: Callable[[int], None] | None = None,
    progress: Callable[[int, int | None], None] | None = None,
    keep: Path | None = None,
) -> list[list[float]]:
    """Train a model in place, one stage after the other; return the losses of every step by stage.

    Parameters
    ----------
    model
        What of it requires a gradient is trained.
    stages
        In order.
    seed
        Order of rows and draws among positives and negatives.
    after
        Called with the number of the stage that just ended, e.g. to evaluate.
    progress
        Called with (steps done in this stage, its steps).
    keep
        Folder for checkpoints: given again, an interrupted training goes on where it was and ends the same.

    Raises
    ------
    EmptyInput
        If a stage has no rows.
    InputError
        If a stage wants negatives of rows that have none.
    """
    histories = []
    for number, stage in enumerate(stages):
        _check(number, stage)
        sources = [row.source for row in stage.rows]
        batches = SourceBatches(sources, min(stage.batch_size, len(stage.rows)), seed=seed + number)
        loss = stage.loss(model)

        def step(
            _: nn.Module, batch: tuple[int, int, list[int]], number: int = number, stage: TrainingStage = stage,
            loss: nn.Module = loss,
        ) -> Tensor:  # fmt: skip
            epoch, place, chosen = batch
            rng = np.random.default_rng((seed, number, epoch, place))  # of the batch alone, wherever a run goes on
            value: Tensor = loss(features_of(model, stage, [stage.rows[i] for i in chosen], rng), None)
            return value

        about = {"stage": number, "rows": len(stage.rows), "steps": stage.steps, "lr": stage.lr, "seed": seed}
        kept = None
        if keep is not None:
            kept = Checkpoints(keep / f"stage-{number}", every=max(1, stage.steps // 5), about=about)
        histories.append(
            train(model, _Numbered(batches), step, steps=stage.steps, lr=stage.lr, warmup=stage.warmup, seed=seed,
                  progress=progress, keep=kept)
        )  # fmt: skip
        if after is not None:
            after(number)
    return histories


@dataclass
class _Numbered:
    """Batches with the number of their pass and their place in it."""

    batches: SourceBatches
    epoch: int = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self.batches.set_epoch(epoch)

    def __iter__(self) -> Iterator[tuple[int, int, list[int]]]:
        for place, rows in enumerate(self.batches):
            yield self.epoch, place, rows


def features_of(
    model: SentenceTransformer, stage: TrainingStage, rows: Sequence[Row], rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Return the feature dict of each column: queries with their source's prompt, positives, negatives."""
    columns = [[row.text for row in rows], [row.positives[rng.integers(len(row.positives))] for row in rows]]
    drawn = [np.resize(rng.permutation(len(row.negatives)), stage.negatives) for row in rows] if stage.negatives else []
    for k in range(stage.negatives):
        columns.append([row.negatives[order[k]] for row, order in zip(rows, drawn, strict=True)])
    out = []
    for number, texts in enumerate(columns):
        prompt = stage.prompts.get(rows[0].source) if number == 0 else None
        features = model.preprocess(texts, prompt=prompt)
        moved = {key: value.to(model.device) if isinstance(value, Tensor) else value for key, value in features.items()}
        out.append(moved | {"text": texts})
    return out


def _check(number: int, stage: TrainingStage) -> None:
    if not len(stage.rows):
        raise EmptyInput(f"Stage {number + 1} has no rows to train on.")
    for i, row in enumerate(stage.rows):
        if not row.positives or (stage.negatives and not row.negatives):
            raise InputError(
                f"Row {i} of stage {number + 1} needs a positive"
                f"{' and negatives' if stage.negatives else ''}; it has {len(row.positives)} and {len(row.negatives)}."
            )
