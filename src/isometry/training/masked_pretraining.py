"""Pre-training by masked tokens: batches of texts through a masking collator into a loss module."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from isometry.modules import MaskingCollator
from isometry.training.checkpoints import Checkpoints
from isometry.training.length_batches import LengthBatches
from isometry.training.loop import train
from isometry.types.progress import Progress


def pretrain(
    module: nn.Module,
    texts: Sequence[str],
    collate: MaskingCollator,
    *,
    steps: int,
    batch_size: int = 32,
    lr: float = 1e-3,
    seed: int = 0,
    progress: Progress | None = None,
    keep: Checkpoints | None = None,
) -> list[float]:
    """Train a module on masked texts in place; return the loss of every step.

    Parameters
    ----------
    module
        Called with a batch of the collator, returns a scalar: `isometry.modules.RetroMAE` or
        `isometry.modules.SizedMAE`.
    texts
        Texts of like length share a batch.
    collate
        Hides tokens, anew in every batch.
    steps, batch_size, lr, seed, keep
        As in `isometry.training.train`; a run that goes on hides the tokens it would have hidden.
    """
    batches = LengthBatches([len(text) for text in texts], batch_size, seed=seed, drop_last=len(texts) >= batch_size)

    def loss(part: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        value: Tensor = part(batch)
        return value

    masked = _Masked(batches, texts, collate)
    return train(module, masked, loss, steps=steps, lr=lr, seed=seed, progress=progress, keep=keep)


@dataclass
class _Masked:
    """Batches of hidden tokens: the collator draws them in turn, also those a run that goes on has had."""

    batches: LengthBatches
    texts: Sequence[str]
    collate: MaskingCollator

    def set_epoch(self, epoch: int) -> None:
        self.batches.set_epoch(epoch)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for rows in self.batches:
            yield self.collate([self.texts[row] for row in rows])
