"""Early stopping for a plain training loop: the weights of the best judgement on held-out data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from isometry.errors import InputError


class BestWeights:
    """Early stopping: a training loop's ``progress`` that judges a module on its way and keeps the best weights.

    Parameters
    ----------
    module
        What is trained.
    judge
        Called with the module, returns how good it is; higher is better.
    every
        Steps between two judgements; the last step is always judged.
    """

    def __init__(self, module: nn.Module, judge: Callable[[Any], float], *, every: int) -> None:
        if every < 1:
            raise InputError(f"A module is judged every 1 or more steps, got {every}.")
        self.module, self.judge, self.every = module, judge, every
        self.history: list[tuple[int, float]] = []
        self._best: dict[str, Tensor] = {}

    def __call__(self, done: int, total: int | None) -> None:
        """Judge where it is time to."""
        if done % self.every and done != total:
            return
        was_training = self.module.training
        value = self.judge(self.module)
        self.module.train(was_training)
        if not self._best or value > max(known for _, known in self.history):
            self._best = {name: p.detach().clone() for name, p in self.module.named_parameters() if p.requires_grad}
        self.history.append((done, value))

    @torch.no_grad()
    def restore(self) -> None:
        """Put the best weights back; the first of equals."""
        parameters = dict(self.module.named_parameters())
        for name, value in self._best.items():
            parameters[name].copy_(value)
