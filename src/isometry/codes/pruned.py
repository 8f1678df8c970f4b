"""Tables of which only the largest entries are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isometry.codes.table import TableCode, check_budget
from isometry.numerics.budget import infeasible
from isometry.numerics.sparse_rows import most_kept, sparse_bytes, sparse_rows, to_sparse, top_mask
from isometry.types import FloatArray


class PrunedCode(TableCode):
    """Magnitude pruning: the entries of largest magnitude in the whole table, as CSR or COO, positions counted.

    CSR where a row keeps three entries or more on average, else COO.

    Parameters
    ----------
    budget
        Share of ``4 n d`` bytes.
    """

    def __init__(self, budget: float) -> None:
        self.budget = check_budget(budget)

    def _fit(self, x: FloatArray) -> None:
        n, d = x.shape
        kept = most_kept(n, d, self.budget * 4 * n * d)
        if kept < 1:
            raise infeasible("pruning", self.budget, sparse_bytes(n, d, 1) / (4 * n * d))
        self.arrays_ = to_sparse(x, top_mask(x, kept))

    def _rows(self, rows: NDArray[np.int64]) -> FloatArray:
        return sparse_rows(self.arrays_, rows, self._shape()[1])

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """Values, columns, and row pointers (CSR) or rows (COO)."""
        return self.arrays_
