"""Tables as tensor trains of three cores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isometry.codes.table import TableCode, check_budget
from isometry.errors import InputError
from isometry.numerics.budget import infeasible
from isometry.numerics.tensor_train import train_rows, train_shape, tt_svd
from isometry.types import FloatArray


class TensorTrainCode(TableCode):
    """TT-SVD of a table: rows and columns cut into three factors each (Oseledets 2011).

    Parameters
    ----------
    budget
        Share of ``4 n d`` bytes; the largest rank that fits is taken.
    rank
        Instead of the budget; at full rank the table is reproduced (and may take more room than before).
    """

    def __init__(self, budget: float = 1.0, *, rank: int | None = None) -> None:
        if rank is not None and rank < 1:
            raise InputError(f"The rank of a tensor train must be at least 1, got {rank}.")
        self.budget, self.rank = check_budget(budget), rank

    def _fit(self, x: FloatArray) -> None:
        shape = train_shape(*x.shape)
        rank = self.rank
        if rank is None:
            fitting = (r for r in range(shape.full_rank, 0, -1) if shape.parameters(r) <= self.budget * x.size)
            rank = next(fitting, 0)
        if not rank:
            raise infeasible("a tensor train", self.budget, shape.parameters(1) / x.size)
        self.cores_ = tt_svd(x, shape, min(rank, shape.full_rank))

    def _rows(self, rows: NDArray[np.int64]) -> FloatArray:
        return train_rows(self.cores_, rows)

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """The three cores."""
        return dict(zip(("first", "second", "third"), self.cores_, strict=True))
