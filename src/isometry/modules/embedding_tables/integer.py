"""Tables of 8- or 16-bit integers with one fixed scale, rounded at random."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from isometry.errors import InputError
from isometry.modules.embedding_tables.table import CompressedEmbedding, Store

INTEGERS = {8: torch.int8, 16: torch.int16}


def stochastic_round(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Round each value down or up at random so that the expectation is the value: ``floor(x + U)``, U in [0, 1).

    >>> bool((stochastic_round(torch.full((8,), 3.0)) == 3).all())
    True
    """
    return torch.floor(x + torch.rand(x.shape, generator=generator))


def bits_within(limit: float, size: dict[int, float]) -> int | None:
    """Return the most bits whose table fits."""
    return max((bits for bits, taken in size.items() if taken <= limit), default=None)


class IntegerEmbedding(CompressedEmbedding):
    """INT8 or INT16 table: the scale is fixed, the zero point 0, and every update is rounded stochastically.

    Small updates would be lost by rounding to nearest; at random they are kept on average. During training the values
    are held as floats that lie on the integers' grid, so training saves no memory here; inference stores integers.

    Parameters
    ----------
    bits
        8 or 16; the most that fits the budget where not given (the 4 bytes of the scale go on top).
    scale
        Step between two values (for 16 bits it is divided by 256, for the same range).
    """

    def _build(self, limit: float, bits: int | None = None, scale: float = 0.01, **options: Any) -> None:
        if bits not in (None, 8, 16) or scale <= 0:
            raise InputError(f"bits must be 8 or 16 and scale positive, got bits={bits}, scale={scale}.")
        sizes = {b: b // 8 * self.n * self.d for b in (8, 16) if bits in (None, b)}
        found = self._need(bits_within(limit, {b: float(size) for b, size in sizes.items()}), min(sizes.values()))
        self.config["bits"] = found
        self.register_buffer("scale", torch.tensor([scale if found == 8 else scale / 256]))
        self.table = self._normal(self.n, self.d)
        with torch.no_grad():
            self.after_step()

    def _limits(self) -> tuple[int, int]:
        half = 2 ** (self.config["bits"] - 1)
        return -half, half - 1

    def _look(self, weights: Store, ids: Tensor) -> Tensor:
        return F.embedding(ids, weights["table"])

    @torch.no_grad()
    def after_step(self) -> None:
        """Put the updated values back on the grid, by stochastic rounding."""
        scale = self.weights()["scale"]
        self.table.copy_(stochastic_round(self.table / scale, self.generator).clamp(*self._limits()) * scale)

    def _pack(self) -> dict[str, Tensor]:
        scale = self.weights()["scale"].clone()
        steps = (self.table.detach() / scale).round().clamp(*self._limits())
        return {"table": steps.to(INTEGERS[self.config["bits"]]), "scale": scale}

    def _look_stored(self, store: Store, ids: Tensor) -> Tensor:
        return store["table"][ids].float() * store["scale"]

    def _fit_rows(self, table: Tensor) -> None:
        """Set the scale by the largest value, then round stochastically."""
        self.weights()["scale"].copy_((table.abs().max() / self._limits()[1]).clamp(min=1e-12))
        self.table.copy_(table)
        self.after_step()
