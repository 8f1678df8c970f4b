"""Training an embedder in stages, each with its own rows, loss and learning rate (e.g. NV-Embed, arXiv:2405.17428).

Every stage is a run of `isometry.training.train_encoder`, on sentence-transformers' trainer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from isometry.data.converters import Row
from isometry.errors import EmptyInput, InputError
from isometry.negatives import SourceBatches
from isometry.training.feeds import Batch, digest, passes
from isometry.training.fine_tuning import Settings, train_encoder
from isometry.types.progress import Progress

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
    weight_decay, length_aware
        See `isometry.training.fine_tuning.Settings`.
    """

    rows: Sequence[Row]
    loss: Callable[[SentenceTransformer], nn.Module]
    steps: int
    lr: float
    batch_size: int
    warmup: float = 0.1
    negatives: int = 0
    prompts: Mapping[str, str] = field(default_factory=dict)
    weight_decay: float = 0.0
    length_aware: bool = True


def train_in_stages(
    model: SentenceTransformer,
    stages: Sequence[TrainingStage],
    *,
    seed: int = 0,
    after: Callable[[int], None] | None = None,
    progress: Progress | None = None,
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
        feed = StageFeed(stage, number, seed=seed)
        settings = Settings(
            stage.steps,
            feed.batch_size,
            stage.lr,
            stage.warmup,
            stage.weight_decay,
            seed=seed,
            length_aware=stage.length_aware,
        )
        folder = None if keep is None else keep / f"stage-{number}"
        history = train_encoder(model, feed, stage.loss(model), settings, folder=folder, progress=progress)
        histories.append([history.losses[step + 1] for step in range(len(feed))])
        if after is not None:
            after(number)
    return histories


class StageFeed:
    """The batches of one stage: of one source each, a positive and negatives drawn anew every time a row comes up."""

    def __init__(self, stage: TrainingStage, number: int = 0, *, seed: int = 0) -> None:
        self.stage, self.number, self.seed = stage, number, seed
        self.batch_size = min(stage.batch_size, len(stage.rows))
        sampler = SourceBatches([row.source for row in stage.rows], self.batch_size, seed=seed + number)
        self.order = passes(sampler, stage.steps)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, step: int, /) -> Batch:
        """Return the batch of a step."""
        epoch, place, chosen = self.order[step]
        stage, rows = self.stage, [self.stage.rows[i] for i in chosen]
        rng = np.random.default_rng((self.seed, self.number, epoch, place))
        columns = [[row.text for row in rows], [row.positives[rng.integers(len(row.positives))] for row in rows]]
        drawn = [np.resize(rng.permutation(len(row.negatives)), stage.negatives) for row in rows if stage.negatives]
        for k in range(stage.negatives):
            columns.append([row.negatives[order[k]] for row, order in zip(rows, drawn, strict=True)])
        prompts = [stage.prompts.get(rows[0].source), *[None] * (len(columns) - 1)]
        return Batch(columns, prompts=prompts, rows=chosen)

    def about(self) -> dict[str, Any]:
        """Return number and digest of the rows, and how they are drawn."""
        rows = self.stage.rows
        texts = digest([row.text, *row.positives, *row.negatives, row.source] for row in rows)
        return {
            "stage": self.number, "rows": len(rows), "texts": texts, "negatives": self.stage.negatives,
            "prompts": dict(self.stage.prompts),
        }  # fmt: skip


def _check(number: int, stage: TrainingStage) -> None:
    if not len(stage.rows):
        raise EmptyInput(f"Stage {number + 1} has no rows to train on.")
    for i, row in enumerate(stage.rows):
        if not row.positives or (stage.negatives and not row.negatives):
            raise InputError(
                f"Row {i} of stage {number + 1} needs a positive"
                f"{' and negatives' if stage.negatives else ''}; it has {len(row.positives)} and {len(row.negatives)}."
            )
