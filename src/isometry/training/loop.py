"""A compact, deterministic training loop in plain torch, for heads and small encoders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor, nn

from isometry.errors import EmptyInput, InputError
from isometry.training.checkpoints import Checkpoints
from isometry.types.progress import Progress

Batch = TypeVar("Batch")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block under torch's generators seeded with ``seed``, then put them back as they were.

    >>> with seeded(0):
    ...     first = torch.rand(2)
    >>> with seeded(0):
    ...     bool((torch.rand(2) == first).all())
    True
    """
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def train(
    module: nn.Module,
    batches: Iterable[Batch],
    loss: Callable[[nn.Module, Batch], Tensor],
    *,
    steps: int,
    lr: float = 1e-3,
    warmup: float = 0.1,
    weight_decay: float = 0.0,
    eps: float = 1e-8,
    clip: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    keep: Checkpoints | None = None,
) -> list[float]:
    """Train a module in place with AdamW, linear warm-up and linear decay to 0; return the loss of every step.

    Parameters
    ----------
    module
        What is trained: its parameters that require a gradient. Left in the mode (train or eval) it came in.
    batches
        Gone through again as often as needed; an object with ``set_epoch`` is told which pass begins.
    loss
        Called with (module, batch), returns a scalar.
    steps
        Number of updates.
    lr, warmup
        Highest learning rate, reached after the share ``warmup`` of the steps.
    weight_decay, eps
        Of AdamW; the first of matrices alone, biases and norms are left out.
    clip
        Longest gradient; longer ones are shortened.
    seed
        For what is random inside the module, such as dropout.
    progress
        Called with (steps done, steps).
    keep
        Where the run is kept on its way; an interrupted one goes on from there, with the batches it would have had.

    Raises
    ------
    EmptyInput
        If ``batches`` yields nothing.
    InputError
        If nothing in the module can be trained, or the loss is not finite.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters or steps < 1 or not 0 <= warmup < 1:
        raise InputError(
            "Training needs a module with parameters to train, steps >= 1 and 0 <= warmup < 1; "
            f"got {len(parameters)} parameters, steps={steps}, warmup={warmup}."
        )
    matrices, others = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=lr, eps=eps)
    rise = max(1, round(warmup * steps))
    was_training, history = module.training, list[float]()
    module.train()
    try:
        with seeded(seed):
            if keep is not None:
                history = keep.restore(module, optimizer)
            done = len(history)
            for step, batch in zip(range(done, steps), islice(_forever(batches), done, None), strict=False):
                value = loss(module, batch)
                history.append(float(value.detach()))
                if not torch.isfinite(value):
                    raise InputError(
                        f"The loss is {history[-1]} at step {step}: lower lr ({lr}) or look at the batches."
                    )
                optimizer.zero_grad(set_to_none=True)
                value.backward()  # type: ignore[no-untyped-call]
                if clip is not None:
                    nn.utils.clip_grad_norm_(parameters, clip)
                rate = lr * min((step + 1) / rise, (steps - step) / max(1, steps - rise))
                for group in optimizer.param_groups:
                    group["lr"] = rate
                optimizer.step()
                if progress is not None:
                    progress(step + 1, steps)
                if keep is not None and ((step + 1) % keep.every == 0 or step + 1 == steps):
                    keep.save(module, optimizer, history)
    finally:
        module.train(was_training)
    return history


def _forever(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Go through ``batches`` again and again, announcing each pass."""
    epoch, found = 0, True
    while found:
        if hasattr(batches, "set_epoch"):
            batches.set_epoch(epoch)
        found = False
        for batch in batches:
            found = True
            yield batch
        epoch += 1
    if epoch == 1:
        raise EmptyInput("There is no batch to train on; fewer rows than one batch holds, or all of them clash.")
    raise EmptyInput(
        f"The batches ended after {epoch - 1} pass; give a list or sampler, which can be gone through again."
    )
