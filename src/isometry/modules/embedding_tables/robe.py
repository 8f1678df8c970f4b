"""One array shared by all elements of all rows, through hashes with signs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from isometry.errors import InputError
from isometry.modules.embedding_tables.table import CompressedEmbedding, Store, bucket_means
from isometry.modules.embedding_tables.universal import PRIME, coefficients
from isometry.numerics.budget import largest_within


def _grid(field: Tensor, ids: Tensor, column: Tensor) -> Tensor:
    """Keys (field, id, column) of every element, int64 ``[3, b, d]``."""
    none = torch.zeros(len(ids), len(column), dtype=torch.int64)
    return torch.stack([field + none, ids + none, column + none])


class ROBEEmbedding(CompressedEmbedding):
    """Random offset block embedding (ROBE; Desai et al., MLSys 2022).

    Element (i, j) of field f is ``sign * M[(((A f + B i + C (j // Z) + D) mod P) + j mod Z) mod |M|]``; the signs come
    from a second hash of the same kind. Coefficients are drawn again from the seed, not stored.

    Parameters
    ----------
    block
        Z, how many neighbouring elements lie side by side in the array.
    """

    def _build(self, limit: float, block: int = 1, **options: Any) -> None:
        if not 1 <= block <= self.d:
            raise InputError(f"block must lie in [1, {self.d}], got {block}.")
        size = self._need(largest_within(lambda m: 4 * m, 1, self.n * self.d, limit), 4)
        self.config |= {"size": size, "block": block}
        self.array = self._normal(size)

    def places(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return (position in the array, sign) of every element of the rows, ``[b, d]`` each."""
        j = torch.arange(self.d)
        keys = _grid(self.field_of(ids)[:, None], ids[:, None], j // self.config["block"])
        a, b = coefficients(8, seed=self.seed)
        where = ((keys * a[:3, None, None]) % PRIME).sum(0) + b[0]
        keys = _grid(keys[0], keys[1], j)
        sign = (((keys * a[3:6, None, None]) % PRIME).sum(0) + b[1]) % PRIME % 2 * 2 - 1
        return (where % PRIME + j % self.config["block"]) % self.config["size"], sign

    def _look(self, weights: Store, ids: Tensor) -> Tensor:
        place, sign = self.places(ids)
        return F.embedding(place, weights["array"].unsqueeze(1)).squeeze(2) * sign

    def _fit_rows(self, table: Tensor) -> None:
        """Set each cell to the mean of its elements, sign applied: the least-squares solution."""
        place, sign = self.places(self.rows_of_all())
        self.array.copy_(bucket_means((table * sign).reshape(-1), place.reshape(-1), self.config["size"]))
