"""sentence-transformers' trainer with batches fixed beforehand, a judge, and a stop when the loss is no number."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_model, save_model
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from torch import Tensor, nn
from transformers import EarlyStoppingCallback, TrainerCallback

from isometry.errors import InputError
from isometry.files import make_folder
from isometry.training.collate import keep_texts
from isometry.training.fine_tuning import History, Judge, Progress, Settings, TrainingDiverged
from isometry.training.rows import Rows

if TYPE_CHECKING:
    from datasets import Dataset

JUDGED, WEIGHTS = "eval_judge", "model.safetensors"


class FixedBatches:
    """A batch sampler that yields the given batches, once."""

    def __init__(self, order: list[list[int]]) -> None:
        self.order = order
        self.batch_size, self.drop_last = len(order[0]), False

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: there is one pass."""

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.order)

    def __len__(self) -> int:
        return len(self.order)


class _Report(TrainerCallback):  # type: ignore[misc]
    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.progress(state.global_step, state.max_steps)


class Trainer(SentenceTransformerTrainer):  # type: ignore[misc]
    """The trainer of sentence-transformers; see `trainer_for`."""

    order: list[list[int]]

    def get_batch_sampler(self, *_: Any, **__: Any) -> Any:
        """Return the batches fixed beforehand."""
        return FixedBatches(self.order)

    def add_model_card_callback(self, default_args_dict: Any) -> None:
        """Do nothing: the card is written by whoever knows what was measured."""

    def compute_loss(self, model: nn.Module, inputs: Any, return_outputs: bool = False, **more: Any) -> Any:
        """Return the loss; stop if it is not finite.

        Raises
        ------
        TrainingDiverged
            Naming step and rows.
        """
        found = super().compute_loss(model, inputs, return_outputs, **more)
        value: Tensor = found[0] if return_outputs else found
        if not torch.isfinite(value):
            step = self.state.global_step
            rows = ", ".join(str(row + 1) for row in self.order[step][:8])
            raise TrainingDiverged(
                f"The loss is {value.item()} at step {step + 1}, on rows {rows} ...: lower the learning rate "
                f"({self.args.learning_rate:g}) or look at these rows. The last checkpoint is kept in "
                f"{self.args.output_dir}."
            )
        return found

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Write the weights alone: a run goes on with the modules it began with, adapters included."""
        folder = make_folder(output_dir or self.args.output_dir)
        save_model(self.model, str(folder / WEIGHTS))

    def _load_from_checkpoint(self, checkpoint_path: str) -> None:
        load_model(self.model, str(Path(checkpoint_path) / WEIGHTS))

    def _load_best_model(self) -> None:
        if self.state.best_model_checkpoint:
            self._load_from_checkpoint(self.state.best_model_checkpoint)

    def history(self, resumed_at: int) -> History:
        """Return what was logged, including before an interruption."""
        logs = self.state.log_history
        best = self.state.best_model_checkpoint
        return History(
            losses={entry["step"]: entry["loss"] for entry in logs if "loss" in entry},
            judged={entry["step"]: entry[JUDGED] for entry in logs if JUDGED in entry},
            kept_step=int(best.rpartition("-")[2]) if best else self.state.global_step,
            resumed_at=resumed_at,
        )


def trainer_for(
    model: SentenceTransformer, rows: Rows, loss: nn.Module, settings: Settings, order: list[list[int]], *,
    folder: Path, judge: Judge | None, progress: Progress | None,
) -> Trainer:  # fmt: skip
    """Return a trainer whose checkpoints are in ``folder``; with a judge it ends with the best state."""
    from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator

    every = max(1, math.ceil(settings.steps / settings.checkpoints))
    judged: dict[str, Any] = {}
    if judge is not None:
        judged = {
            "eval_strategy": "steps", "eval_steps": every, "load_best_model_at_end": True,
            "metric_for_best_model": JUDGED, "greater_is_better": True,
        }  # fmt: skip
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder), max_steps=settings.steps, per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.lr, warmup_steps=math.ceil(settings.warmup * settings.steps), seed=settings.seed,
        data_seed=settings.seed, save_strategy="steps", save_steps=every, save_total_limit=2, logging_steps=1,
        report_to=[], disable_tqdm=True, dataloader_pin_memory=False, logging_nan_inf_filter=False,
        save_only_model=False, optim="adamw_torch_fused", **judged,
    )  # fmt: skip
    callbacks: list[TrainerCallback] = []
    if judge is not None and settings.patience is not None:
        callbacks.append(EarlyStoppingCallback(early_stopping_patience=settings.patience))
    if progress is not None:
        callbacks.append(_Report(progress))
    trainer = Trainer(
        model=model, args=arguments, train_dataset=_dataset(rows), loss=loss, callbacks=callbacks,
        data_collator=SentenceTransformerDataCollator(preprocess_fn=keep_texts(model.preprocess)),
        evaluator=None if judge is None else _evaluator(judge),
    )  # fmt: skip
    trainer.order = order
    for callback in list(trainer.callback_handler.callbacks):
        if type(callback).__name__ in ("PrinterCallback", "ProgressCallback"):
            trainer.remove_callback(callback)
    return trainer


def _dataset(rows: Rows) -> Dataset:
    from datasets import Dataset

    columns: dict[str, list[Any]] = {f"text{i}": list(column) for i, column in enumerate(rows.columns)}
    if rows.labels is not None:
        columns["label"] = [int(v) for v in rows.labels] if rows.kind == "labelled" else list(map(float, rows.labels))
    return Dataset.from_dict(columns)


def _evaluator(judge: Callable[[SentenceTransformer], float]) -> Any:
    from sentence_transformers.sentence_transformer.evaluation import SentenceEvaluator

    class Evaluator(SentenceEvaluator):  # type: ignore[misc]
        primary_metric = "judge"

        def __call__(self, model: SentenceTransformer, *_: Any, **__: Any) -> dict[str, float]:
            training = model.training
            model.eval()
            try:
                value = judge(model)
            except InputError as error:
                raise TrainingDiverged(
                    f"The model cannot be judged any more ({error}); start over with a lower learning rate."
                ) from error
            model.train(training)
            return {"judge": float(value)}

    return Evaluator()
