"""The loss along the straight line between two sets of weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from isometry.errors import InputError
from isometry.training.merging.states import State, average


@dataclass(frozen=True)
class Barrier:
    """The loss at points between two models.

    Parameters
    ----------
    points
        Places on the line, 0 the first model, 1 the second.
    losses
        The loss at each.
    """

    points: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def height(self) -> float:
        """The largest excess of the loss over the straight line between the losses of both ends."""
        first, last = self.losses[0], self.losses[-1]
        return max(loss - (1 - t) * first - t * last for t, loss in zip(self.points, self.losses, strict=True))

    def check(self, most: float) -> None:
        """Raise `InputError` if the barrier is higher than ``most``: such models should not be merged."""
        if self.height > most:
            raise InputError(
                f"A loss barrier of {self.height:.4g} (allowed: {most:.4g}) lies between the models; "
                "merge only models that were trained from one start."
            )


def loss_barrier(a: State, b: State, loss: Callable[[dict[str, Tensor]], float], *, points: int = 11) -> Barrier:
    """Measure the loss barrier between two sets of weights (linear mode connectivity, Frankle et al. 2020).

    Models from one start usually have none and can be averaged; models from different starts, or with their hidden
    units in another order, have a high one although each is good.

    Parameters
    ----------
    a, b
        State dicts.
    loss
        A state dict to its loss on fixed data, e.g. ``lambda state: evaluate(functional_call(model, state, batch))``.
    points
        How many places, both ends included; at least 3.

    Raises
    ------
    InputError
        If the states do not fit each other, there are fewer than 3 points, or a loss is not finite.

    Examples
    --------
    >>> import torch
    >>> a, b = {"w": torch.tensor(-1.0)}, {"w": torch.tensor(1.0)}
    >>> round(loss_barrier(a, b, lambda state: float((state["w"] ** 2 - 1) ** 2)).height, 6)     # two valleys
    1.0
    """
    if points < 3:
        raise InputError(f"A line between two models needs at least 3 points, got {points}.")
    places = tuple(i / (points - 1) for i in range(points))
    losses = tuple(float(loss(average([a, b], [1 - t, t]))) for t in places)
    if not all(map(math.isfinite, losses)):
        raise InputError(f"The loss is not finite everywhere on the line: {losses}.")
    return Barrier(places, losses)
