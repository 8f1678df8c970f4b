"""Training a pointwise yes/no reranker by supervised fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from isometry.errors import InputError
from isometry.training.adapters import add_lora, merge_lora
from isometry.training.checkpoints import Checkpoints
from isometry.training.cross_encoder import Schedule, batches_of
from isometry.training.loop import train
from isometry.types.progress import Progress

if TYPE_CHECKING:
    from isometry.modules.yes_no import YesNoModel


def yes_no_loss(model: YesNoModel, pairs: Sequence[tuple[str, str]], labels: Tensor, *, sft: bool = True) -> Tensor:
    """Return ``-log p(label | query, document)``, a scalar.

    Parameters
    ----------
    labels
        bool ``[n]``: True where the answer is yes.
    sft
        p over the whole vocabulary, as in supervised fine-tuning (Qwen3-Embedding, equation 2); False: over the two
        answers, which teaches no tendency to answer at all.
    """
    index = torch.where(labels, 0, 1)
    if not sft:
        return cross_entropy(model.logits(pairs), index)
    logits = model.next_token_logits(pairs)
    return cross_entropy(logits, torch.tensor(model.answer_ids, device=logits.device)[index.to(logits.device)])


def train_yes_no(
    model: YesNoModel,
    pairs: Sequence[tuple[str, str]],
    labels: Sequence[bool],
    schedule: Schedule,
    *,
    sft: bool = True,
    freeze_embeddings: bool = False,
    rank: int = 0,
    progress: Progress | None = None,
    keep: Checkpoints | None = None,
) -> list[float]:
    """Train a yes/no reranker in place and return the loss of every step.

    Parameters
    ----------
    pairs, labels
        Queries with documents, and whether each document answers its query.
    sft
        See `yes_no_loss`.
    freeze_embeddings
        Leave the table of tokens as it is, and with it an output layer that is tied to it.
    rank
        Above 0: train low-rank adapters of that rank, and nothing else, and merge them in the end.
    keep
        Where an interrupted training goes on from.

    Raises
    ------
    InputError
        If there are not as many labels as pairs, or all of them are the same.
    """
    wanted = torch.as_tensor([bool(label) for label in labels])
    if len(pairs) != len(wanted) or bool(wanted.all()) or not wanted.any():
        raise InputError(f"{len(pairs)} pairs need as many labels, some yes and some no; got {len(wanted)}.")

    def loss(module: nn.Module, rows: list[int]) -> Tensor:
        return yes_no_loss(model, [pairs[row] for row in rows], wanted[rows], sft=sft)

    table = list(model.lm.get_input_embeddings().parameters()) if freeze_embeddings and not rank else []
    frozen = [p for p in table if p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    if rank:
        add_lora(model.lm, r=rank, alpha=2 * rank, dropout=0.0, seed=schedule.seed)
    try:
        batches = batches_of(len(pairs), schedule.batch_size, schedule.seed)
        return train(model, batches, loss, **schedule.options(), progress=progress, keep=keep)
    finally:
        if rank:
            merge_lora(model.lm)
        for parameter in frozen:
            parameter.requires_grad_(True)
