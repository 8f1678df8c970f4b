"""Learning from worked examples: a small causal transformer trained on `AttributeExamples`, and how well it reads them.

As LG-ANNA-Embedding and bge-en-icl do, each query of a batch gets its own random number of examples, the embedding is
the last token's, and documents are embedded without any.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from isometry.data.attribute_examples import AttributeBatch, AttributeExamples
from isometry.modules.attention_mask import run
from isometry.modules.pooling.plain import last_pool
from isometry.objectives.info_nce import info_nce
from isometry.training.loop import train
from isometry.types import IntArray
from isometry.types.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def embed_last(body: nn.Module, ids: IntArray, mask: IntArray | None = None) -> Tensor:
    """Return the normalised hidden state of each sequence's last token under causal attention, ``[b, d]``.

    Parameters
    ----------
    body
        The transformer below a decoder's head.
    ids, mask
        int64 ``[b, t]``; without a mask every token counts.
    """
    there = torch.from_numpy(np.ones_like(ids) if mask is None else mask)
    states = run(body, there, input_ids=torch.from_numpy(ids))
    return normalize(last_pool(states, there), dim=-1)


def train_in_context(
    model: PreTrainedModel,
    task: AttributeExamples,
    *,
    steps: int,
    batch_size: int = 64,
    most: int = 5,
    lr: float = 3e-3,
    temperature: float = 0.05,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[float]:
    """Train a causal model in place; each query gets ``0 .. most`` examples. Return the loss of every step."""
    rng = np.random.default_rng(seed)

    def batches() -> Iterator[AttributeBatch]:
        while True:
            yield task.batch(rng.integers(most + 1, size=batch_size), rng)

    def loss(_: nn.Module, batch: AttributeBatch) -> Tensor:
        body = model.base_model
        q, docs = embed_last(body, batch.ids, batch.mask), embed_last(body, task.documents)
        return info_nce(q, docs, temperature=temperature, targets=torch.from_numpy(batch.target))

    return train(model, batches(), loss, steps=steps, lr=lr, seed=seed, progress=progress)


def accuracy_in_context(
    model: PreTrainedModel, task: AttributeExamples, count: int, *, queries: int = 500, seed: int = 0
) -> float:
    """Return how often a query with ``count`` examples finds the attribute asked for among those of its own item."""
    batch = task.batch(np.full(queries, count), np.random.default_rng(seed))
    model.eval()
    with torch.no_grad():
        q, docs = (embed_last(model.base_model, *x) for x in ((batch.ids, batch.mask), (task.documents,)))
    return batch.accuracy((q @ docs.T).numpy())
