"""Pre-training by masked tokens: batches of texts through a masking collator into a loss module."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from isometry.modules import MaskingCollator
from isometry.training.length_batches import LengthBatches
from isometry.training.loop import train


def pretrain(
    module: nn.Module,
    texts: Sequence[str],
    collate: MaskingCollator,
    *,
    steps: int,
    batch_size: int = 32,
    lr: float = 1e-3,
    seed: int = 0,
    progress: Callable[[int, int | None], None] | None = None,
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
    steps, batch_size, lr, seed
        As in `isometry.training.train`.
    """
    batches = LengthBatches([len(text) for text in texts], batch_size, seed=seed, drop_last=len(texts) >= batch_size)

    def loss(part: nn.Module, rows: list[int]) -> Tensor:
        value: Tensor = part(collate([texts[row] for row in rows]))
        return value

    return train(module, batches, loss, steps=steps, lr=lr, seed=seed, progress=progress)
