"""Fine-tuning on sentence-transformers' trainer: resumed after any interruption, stopped before harm is kept.

What is ours is around the trainer: batches fixed beforehand, so that a resumed run sees exactly the rows it would have
seen; parts of like length instead of padding; gradient caching for large batches; a loss that is not a number stops the
run and names step and rows.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from isometry.errors import InputError, IsometryError
from isometry.files import make_folder, write_whole
from isometry.training.collate import keep_texts
from isometry.training.length_aware import LengthAware
from isometry.training.rows import Rows, batches

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Judge = Callable[["SentenceTransformer"], float]
Progress = Callable[[int, int | None], None]


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
    from isometry.training.trainer import trainer_for

    make_folder(folder)
    last = _last_checkpoint(folder, settings, rows, loss) if resume else None
    if last is None:
        clear_checkpoints(folder)
        make_folder(folder)
        write_whole(folder / "run.json", json.dumps(_signature(settings, rows, loss), indent=1).encode())
    order = batches(rows, settings.steps, settings.batch_size, same_class=same_class, seed=settings.seed)
    with _prepared(model, loss, settings):
        trainer = trainer_for(model, rows, loss, settings, order, folder=folder, judge=judge, progress=progress)
        with quiet():
            trainer.train(resume_from_checkpoint=None if last is None else str(last))
    model.eval()
    return trainer.history(0 if last is None else int(last.name.rpartition("-")[2]))


def clear_checkpoints(folder: Path) -> None:
    """Remove what `fine_tune` kept in a folder, and the folder."""
    for kept in [*folder.glob("checkpoint-*"), *folder.glob("run.json"), *folder.glob("eval")]:
        shutil.rmtree(kept) if kept.is_dir() else kept.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _signature(settings: Settings, rows: Rows, loss: nn.Module) -> dict[str, Any]:
    from hashlib import blake2b

    text = "\n".join("\t".join(texts) for texts in zip(*rows.columns, strict=True))
    digest = blake2b(f"{text}{list(rows.labels or ())}".encode(), digest_size=12).hexdigest()
    return {**asdict(settings), "rows": len(rows), "kind": rows.kind, "texts": digest, "loss": type(loss).__name__}


def _last_checkpoint(folder: Path, settings: Settings, rows: Rows, loss: nn.Module) -> Path | None:
    """Return the newest checkpoint that was written to its end; the trainer's own state is written last."""
    if not (folder / "run.json").is_file():
        return None
    wanted, found = _signature(settings, rows, loss), json.loads((folder / "run.json").read_text())
    if differ := sorted(key for key in wanted if wanted[key] != found.get(key)):
        raise InputError(
            f"{folder} holds an unfinished run with other {', '.join(differ)}; choose another folder, repeat the "
            "earlier command to go on with it, or start over with --fresh."
        )
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
def quiet() -> Iterator[None]:
    """Silence the bars and reports of the libraries below."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def seconds_per_step(model: SentenceTransformer, rows: Rows, loss: nn.Module, settings: Settings) -> float:
    """Measure one step, by running a few without changing the model; in seconds of wall-clock time."""
    import time

    chosen = batches(rows, 3, settings.batch_size, seed=settings.seed + 1)
    spent = []
    with _prepared(model, loss, settings), torch.random.fork_rng():
        model.train()
        for batch in chosen:
            started = time.perf_counter()
            features = [keep_texts(model.preprocess)([column[row] for row in batch]) for column in rows.columns]
            labels = None if rows.labels is None else label_tensor(rows, batch)
            value: Tensor = loss([{k: _to(v, model.device) for k, v in f.items()} for f in features], labels)
            value.backward()  # type: ignore[no-untyped-call]
            model.zero_grad(set_to_none=True)
            spent.append(time.perf_counter() - started)
        model.eval()
    return 1.1 * min(spent[1:] or spent)  # a tenth for the optimizer


def label_tensor(rows: Rows, batch: list[int]) -> Tensor:
    """Return the labels of some rows: int64 classes, or float32 similarities."""
    values = torch.tensor([(rows.labels or ())[row] for row in batch])
    return values.long() if rows.kind == "labelled" else values.float()


def _to(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value
