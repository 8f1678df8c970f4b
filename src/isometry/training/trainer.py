"""sentence-transformers' trainer on a `Feed`, with a judge, and a stop when the loss is no number."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from torch import Tensor, nn
from transformers import EarlyStoppingCallback, TrainerCallback

from isometry.errors import InputError
from isometry.files import make_folder
from isometry.training.feeds import Feed
from isometry.training.fine_tuning import History, Judge, Settings, TrainingDiverged
from isometry.types.progress import Progress

JUDGED, WEIGHTS, LOSS_WEIGHTS = "eval_judge", "model.safetensors", "loss.safetensors"


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


class Collator:
    """From the number of a step to the features of its batch."""

    valid_label_columns: tuple[str, ...] = ()

    def __init__(self, feed: Feed, model: SentenceTransformer) -> None:
        self.feed, self.model = feed, model

    def __call__(self, chosen: list[dict[str, int]]) -> dict[str, Any]:
        """Return the feature dicts by column, and the labels."""
        batch = self.feed[chosen[0]["step"]]
        return {"columns": batch.features(self.model), "label": batch.labels}


class _Report(TrainerCallback):  # type: ignore[misc]
    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.progress(state.global_step, state.max_steps)


class Trainer(SentenceTransformerTrainer):  # type: ignore[misc]
    """The trainer of sentence-transformers; see `trainer_for`."""

    feed: Feed

    def get_batch_sampler(self, *_: Any, **__: Any) -> Any:
        """Return one batch a step."""
        return FixedBatches([[step] for step in range(len(self.feed))])

    def collect_features(self, inputs: dict[str, Any]) -> tuple[list[dict[str, Any]], Tensor | None]:
        """Return what `Collator` made."""
        return inputs["columns"], inputs["label"]

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
            rows = ", ".join(str(row + 1) for row in self.feed[step].rows[:8])
            kept = f" The last checkpoint is kept in {self.args.output_dir}." if self._keeps else ""
            raise TrainingDiverged(
                f"The loss is {value.item()} at step {step + 1}, on rows {rows} ...: lower the learning rate "
                f"({self.args.learning_rate:g}) or look at these rows.{kept}"
            )
        return found

    @property
    def _keeps(self) -> bool:
        return str(self.args.save_strategy.value) != "no"

    def _own_weights(self) -> dict[str, nn.Parameter]:
        """What the loss learns besides the model, such as a temperature or a decoder."""
        known = {id(p) for p in self.model.parameters()}
        return {name: p for name, p in self.loss.named_parameters() if p.requires_grad and id(p) not in known}

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Write the weights alone: a run goes on with the modules it began with, adapters included."""
        folder = make_folder(output_dir or self.args.output_dir)
        save_model(self.model, str(folder / WEIGHTS))
        if own := self._own_weights():
            save_file({name: p.detach().cpu().contiguous() for name, p in own.items()}, folder / LOSS_WEIGHTS)

    def _load_from_checkpoint(self, checkpoint_path: str) -> None:
        folder = Path(checkpoint_path)
        load_model(self.model, str(folder / WEIGHTS))
        kept = load_file(folder / LOSS_WEIGHTS) if (folder / LOSS_WEIGHTS).is_file() else {}
        with torch.no_grad():
            for name, p in self._own_weights().items():
                p.copy_(kept[name])

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
    model: SentenceTransformer, feed: Feed, loss: nn.Module, settings: Settings, *, folder: Path, keep: bool = True,
    judge: Judge | None = None, progress: Progress | None = None,
) -> Trainer:  # fmt: skip
    """Return a trainer whose checkpoints, if it keeps any, are in ``folder``; with a judge it ends with the best."""
    from datasets import Dataset

    steps = len(feed)
    every = max(1, math.ceil(steps / settings.checkpoints))
    kept: dict[str, Any] = {"save_strategy": "no"}
    if keep:
        kept = {"save_strategy": "steps", "save_steps": every, "save_total_limit": 2, "save_only_model": False}
    if judge is not None:
        kept |= {
            "eval_strategy": "steps", "eval_steps": every, "load_best_model_at_end": True,
            "metric_for_best_model": JUDGED, "greater_is_better": True,
        }  # fmt: skip
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder), max_steps=steps, per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.lr, weight_decay=settings.weight_decay,
        warmup_steps=math.ceil(settings.warmup * steps), seed=settings.seed,
        data_seed=settings.seed, logging_steps=1, report_to=[], disable_tqdm=True, dataloader_pin_memory=False,
        logging_nan_inf_filter=False, optim="adamw_torch_fused", **kept,
    )  # fmt: skip
    callbacks: list[TrainerCallback] = []
    if judge is not None and settings.patience is not None:
        callbacks.append(EarlyStoppingCallback(early_stopping_patience=settings.patience))
    if progress is not None:
        callbacks.append(_Report(progress))
    evaluator = None if judge is None else _evaluator(judge)
    trainer = Trainer(
        model=model, args=arguments, train_dataset=Dataset.from_dict({"step": range(steps)}), loss=loss,
        callbacks=callbacks, data_collator=Collator(feed, model), evaluator=evaluator,
    )  # fmt: skip
    trainer.feed = feed
    for callback in list(trainer.callback_handler.callbacks):
        if type(callback).__name__ in ("PrinterCallback", "ProgressCallback"):
            trainer.remove_callback(callback)
    return trainer


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
