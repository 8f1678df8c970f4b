"""Training an encoder on many of its sizes, in one process and without checkpoints, for controlled comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from isometry.modules import layer_embeddings
from isometry.training.feeds import Batch, RowFeed
from isometry.training.fine_tuning import Settings
from isometry.training.length_aware import feature_rows, length_parts
from isometry.training.loop import train
from isometry.training.rows import Rows
from isometry.types.progress import Progress

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def embed_layers(model: SentenceTransformer, features: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """Return `isometry.modules.layer_embeddings` of a column, computed in parts of like length: less padding.

    Give it to `isometry.objectives.SizedLoss` as ``embed``.
    """
    mask = features["attention_mask"]
    parts = length_parts(mask.sum(1).tolist())
    if len(parts) == 1:
        return layer_embeddings(model, features)
    found = [layer_embeddings(model, feature_rows(features, mask, part)) for part in parts]
    back = torch.argsort(torch.tensor([row for part in parts for row in part], device=mask.device))
    return tuple(torch.cat(layer)[back] for layer in zip(*found, strict=True))


def tune_in_memory(
    model: SentenceTransformer,
    rows: Rows,
    loss: nn.Module,
    settings: Settings,
    *,
    progress: Progress | None = None,
) -> list[float]:
    """Tune a model in place by a loss over features, in the plain loop; return the loss of every step.

    The batches are those of `isometry.training.fine_tune`; nothing is written.

    Parameters
    ----------
    model, rows, loss
        The loss is called with (features by column, labels); each feature dict holds its raw ``"text"``.
    settings
        Steps, batch size, rate, warm-up, seed and longest text.
    """
    window = model.max_seq_length
    if settings.max_tokens is not None:
        model.max_seq_length = min(settings.max_tokens, window or settings.max_tokens)
    loss.train()

    feed = RowFeed(rows, settings.steps, settings.batch_size, seed=settings.seed)

    def step(_: nn.Module, batch: Batch) -> Tensor:
        labels = None if batch.labels is None else batch.labels.to(model.device)
        value: Tensor = loss(batch.features(model), labels)
        return value

    try:
        return train(model, (feed[i] for i in range(len(feed))), step, steps=len(feed), lr=settings.lr,
                     warmup=settings.warmup, seed=settings.seed, progress=progress)  # fmt: skip
    finally:
        model.max_seq_length = window
        model.eval()
