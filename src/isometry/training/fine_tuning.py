"""Fine-tuning on sentence-transformers' trainer: resumed after any interruption, stopped before harm is kept.

What is ours is around the trainer: a `Feed` that tells the batch of every step, so that a resumed run sees exactly the
rows it would have seen; parts of like length instead of padding; gradient caching for large batches; a loss that is not
a number stops the run and names step and rows.
"""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from isometry.errors import InputError, IsometryError
from isometry.files import make_folder, write_whole
from isometry.modules.quiet import quiet
from isometry.training.checkpoints import same_run
from isometry.training.feeds import Feed, RowFeed
from isometry.training.length_aware import LengthAware
from isometry.training.rows import Rows
from isometry.types.progress import Progress

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Judge = Callable[["SentenceTransformer"], float]


class TrainingDiverged(IsometryError):
    """The loss became infinite or no number."""


@dataclass(frozen=True)
class Settings:
    """How long and how fast.

    Parameters
    ----------
    steps, batch_size
        Updates, and rows per update.
    lr, warmup
        Highest learning rate of AdamW, reached after this share of the steps; linear decay to 0.
    weight_decay
        Of matrices; biases and norms are left out.
    max_tokens
        Longest text in training; None: the model's own window.
    cache_above
        See `LengthAware`: padded tokens of a column above which gradients are cached.
    checkpoints
        How many times the run is saved on its way.
    patience
        With a judge: evaluations without gain before the run stops. The best state is kept in any case.
    length_aware
        Whether batches are embedded in parts of like length.
    """

    steps: int
    batch_size: int = 32
    lr: float = 2e-5
    warmup: float = 0.1
    weight_decay: float = 0.0
    seed: int = 0
    max_tokens: int | None = None
    cache_above: int | None = 16_384
    checkpoints: int = 5
    patience: int | None = None
    length_aware: bool = True

    def __post_init__(self) -> None:
        rates = 0 < self.lr < math.inf and 0 <= self.warmup < 1
        if self.steps < 1 or self.batch_size < 2 or self.checkpoints < 1 or not rates:
            raise InputError(
                "Training needs steps >= 1, batch_size >= 2, lr > 0, 0 <= warmup < 1 and checkpoints >= 1; got "
                f"{self.steps}, {self.batch_size}, {self.lr:g}, {self.warmup:g} and {self.checkpoints}."
            )


@dataclass(frozen=True)
class History:
    """What happened: the loss of each logged step, the judge's values by step, and which state was kept."""

    losses: Mapping[int, float]
    judged: Mapping[int, float] = field(default_factory=dict)
    kept_step: int = 0
    resumed_at: int = 0


def fine_tune(
    model: SentenceTransformer, rows: Rows, loss: nn.Module, settings: Settings, *, folder: Path,
    same_class: bool = False, judge: Judge | None = None, progress: Progress | None = None, resume: bool = True,
) -> History:  # fmt: skip
    """Tune a model in place.

    Parameters
    ----------
    model, rows, loss
        The loss is called with (features by column, labels); where it embeds by ``model`` alone, batches are embedded
        in parts of like length.
    folder
        Keeps checkpoints. A run that was interrupted goes on from the last whole one and ends as if it never stopped;
        `clear_checkpoints` removes them.
    same_class
        Whether rows of one class may meet in a batch.
    judge
        Called with the model at every checkpoint, higher is better; the best state is what the model ends with.
    progress
        Called with (steps done, steps).
    resume
        Whether to look for a run to go on with.

    Raises
    ------
    InputError
        If the folder holds an unfinished run of other settings.
    TrainingDiverged
        If the loss is not finite; the last checkpoint stays.
    """
    feed = RowFeed(rows, settings.steps, settings.batch_size, same_class=same_class, seed=settings.seed)
    return train_encoder(model, feed, loss, settings, folder=folder, judge=judge, progress=progress, resume=resume)


def train_encoder(
    model: SentenceTransformer, feed: Feed, loss: nn.Module, settings: Settings, *, folder: Path | None = None,
    judge: Judge | None = None, progress: Progress | None = None, resume: bool = True,
) -> History:  # fmt: skip
    """Train a model in place on any `Feed`: what `fine_tune`, stages and distillation come down to.

    Parameters
    ----------
    model, loss, settings, judge, progress, resume
        As in `fine_tune`; the number of steps is the feed's.
    feed
        The batch of every step.
    folder
        As in `fine_tune`; None keeps nothing on the way.
    """
    if folder is None:
        if judge is not None:
            raise InputError("A judge needs a folder that keeps the states it judged; give one.")
        with TemporaryDirectory() as empty:
            return _run(model, feed, loss, settings, folder=Path(empty), keep=False, progress=progress)
    last = _last_checkpoint(folder, settings, feed, loss) if resume else None
    if last is None:
        clear_checkpoints(folder)
        write_whole(make_folder(folder) / "run.json", json.dumps(_signature(settings, feed, loss), indent=1).encode())
    return _run(model, feed, loss, settings, folder=folder, last=last, judge=judge, progress=progress)


def _run(
    model: SentenceTransformer, feed: Feed, loss: nn.Module, settings: Settings, *, folder: Path, keep: bool = True,
    last: Path | None = None, judge: Judge | None = None, progress: Progress | None = None,
) -> History:  # fmt: skip
    from isometry.training.trainer import trainer_for

    with _own_random_numbers(), _prepared(model, loss, settings), quiet():
        trainer = trainer_for(model, feed, loss, settings, folder=folder, keep=keep, judge=judge, progress=progress)
        trainer.train(resume_from_checkpoint=None if last is None else str(last))
    model.eval()
    return trainer.history(0 if last is None else int(last.name.rpartition("-")[2]))


def clear_checkpoints(folder: Path) -> None:
    """Remove what `fine_tune` kept in a folder, and the folder."""
    for kept in [*folder.glob("checkpoint-*"), *folder.glob("run.json"), *folder.glob("eval")]:
        shutil.rmtree(kept) if kept.is_dir() else kept.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _signature(settings: Settings, feed: Feed, loss: nn.Module) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps({**asdict(settings), **feed.about(), "loss": type(loss).__name__}))
    return found


def _last_checkpoint(folder: Path, settings: Settings, feed: Feed, loss: nn.Module) -> Path | None:
    """Return the newest checkpoint that was written to its end; the trainer's own state is written last."""
    if not (folder / "run.json").is_file():
        return None
    same_run(folder, _signature(settings, feed, loss), json.loads((folder / "run.json").read_text()))
    steps = sorted((int(path.name.rpartition("-")[2]), path) for path in folder.glob("checkpoint-*") if path.is_dir())
    for _, path in reversed(steps):
        try:
            json.loads((path / "trainer_state.json").read_text())
            return path
        except (OSError, ValueError):
            shutil.rmtree(path)  # killed while it was written
    return None


@contextmanager
def _prepared(model: SentenceTransformer, loss: nn.Module, settings: Settings) -> Iterator[None]:
    """Shorten the window and make the loss embed in parts, and put both back."""
    window = model.max_seq_length
    if settings.max_tokens is not None:
        model.max_seq_length = min(settings.max_tokens, window or settings.max_tokens)
    aware = LengthAware(model, cache_above=settings.cache_above)
    users = [
        part for part in loss.modules()
        if getattr(part, "model", None) is model and hasattr(part, "compute_loss_from_embeddings")
    ] if settings.length_aware else []  # fmt: skip
    for part in users:
        part.model = aware
    try:
        yield
    finally:
        for part in users:
            part.model = model
        model.max_seq_length = window


@contextmanager
def _own_random_numbers() -> Iterator[None]:
    """Put the generators that the trainer seeds back as they were."""
    plain, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002 (the trainer seeds this one)
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(plain)
        np.random.set_state(arrays)  # noqa: NPY002


def seconds_per_step(model: SentenceTransformer, rows: Rows, loss: nn.Module, settings: Settings) -> float:
    """Measure one step, by running a few without changing the model; in seconds of wall-clock time."""
    import time

    feed = RowFeed(rows, 3, settings.batch_size, seed=settings.seed + 1)
    spent = []
    with _prepared(model, loss, settings), torch.random.fork_rng():
        model.train()
        for step in range(len(feed)):
            started = time.perf_counter()
            batch = feed[step]
            labels = None if batch.labels is None else batch.labels.to(model.device)
            value: Tensor = loss(batch.features(model), labels)
            value.backward()  # type: ignore[no-untyped-call]
            model.zero_grad(set_to_none=True)
            spent.append(time.perf_counter() - started)
        model.eval()
    return 1.1 * min(spent[1:] or spent)  # a tenth for the optimizer
