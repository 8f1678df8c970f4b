"""What every reducer does."""

from __future__ import annotations

from typing import Protocol

from torch import Generator, Tensor

from isometry.errors import DimensionMismatch, InputError


class Reducer(Protocol):
    """A text's token vectors to fewer of them; a frozen dataclass, so that equal settings are equal."""

    @property
    def keeps_norm(self) -> bool:
        """Whether vectors of norm 1 stay so."""
        ...

    def reduce(self, x: Tensor, mask: Tensor, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Return ``[b, k, d]`` and bool ``[b, k]``; a generator draws what is random, without one nothing is."""
        ...


def check_tokens(x: Tensor, mask: Tensor) -> None:
    """Raise unless ``x`` is ``[b, t, d]`` and ``mask`` bool ``[b, t]``."""
    if x.ndim != 3 or mask.shape != x.shape[:2] or str(mask.dtype) != "torch.bool":
        raise DimensionMismatch(
            f"A reducer takes tokens [b, t, d] and a bool mask [b, t], got {list(x.shape)} and {mask.dtype} "
            f"{list(mask.shape)}."
        )


def at_least_one(what: str, value: int) -> None:
    """Raise unless a count is 1 or more."""
    if value < 1:
        raise InputError(f"{what} must be at least 1, got {value}.")
