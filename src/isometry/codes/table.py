"""Base of codes of a whole table, whose rows are stored together and may take different room."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from isometry.errors import EmptyInput, InputError, NotFitted
from isometry.types import FloatArray, check_vectors


class TableCode(ABC):
    """A table ``[n, d]`` in less memory: ``fit`` takes the table itself, ``inverse_transform`` gives rows of it back.

    Unlike a `Code`, which codes any vector on its own, it stands for the rows it was fitted to.
    """

    shape_: tuple[int, int] | None = None

    @abstractmethod
    def _fit(self, x: FloatArray) -> None:
        """Choose and store the arrays for float32 ``[n, d]``."""

    @abstractmethod
    def _rows(self, rows: NDArray[np.int64]) -> FloatArray:
        """Rows ``[b, d]`` of the stored table."""

    @abstractmethod
    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """Everything that is stored."""

    def fit(self, X: Any, y: Any = None) -> Self:
        """Compress a table ``[n, d]``; ``y`` is ignored.

        Raises
        ------
        InputError
            If the budget is infeasible for it, naming the feasible range.
        """
        x = check_vectors(X, what="the table")
        if not x.size:
            raise EmptyInput(f"{type(self).__name__} needs a table, got an array of shape {x.shape}.")
        self._fit(x)
        self.shape_ = x.shape
        return self

    def inverse_transform(self, rows: Any = None) -> FloatArray:
        """Reconstruct the rows at these positions, float32 ``[b, d]``; all of them by default."""
        n, _ = self._shape()
        chosen = np.arange(n) if rows is None else np.asarray(rows, np.int64).reshape(-1)
        if len(chosen) and not 0 <= int(chosen.min()) <= int(chosen.max()) < n:
            raise InputError(f"Rows must lie in [0, {n}), got {int(chosen.min())} to {int(chosen.max())}.")
        return self._rows(chosen)

    @property
    def n_bytes(self) -> int:
        """Bytes of all stored arrays."""
        self._shape()
        return sum(array.nbytes for array in self.arrays().values())

    @property
    def ratio(self) -> float:
        """``n_bytes`` over the ``4 n d`` bytes of the table."""
        n, d = self._shape()
        return self.n_bytes / (4 * n * d)

    def _shape(self) -> tuple[int, int]:
        if self.shape_ is None:
            raise NotFitted(f"This {type(self).__name__} is not fitted yet; call fit with a table first.")
        return self.shape_


def check_budget(budget: float) -> float:
    """Return a budget, the share of ``4 n d`` bytes, if it lies in (0, 1]."""
    if not 0 < budget <= 1:
        raise InputError(f"budget must lie in (0, 1], a share of 4 n d bytes; got {budget}.")
    return budget
