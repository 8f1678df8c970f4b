"""Tensor trains of three cores: shapes, decomposition by successive SVDs, and rows back from the cores."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class TrainShape(NamedTuple):
    """How a table ``[n, d]`` is cut: row factors ``n1 n2 n3 >= n`` and column factors ``d1 d2 d3 = d``."""

    rows: tuple[int, int, int]
    columns: tuple[int, int, int]

    def ranks(self, rank: int) -> tuple[int, int]:
        """Return (r1, r2): ``rank``, or less where the unfolding cannot have that many."""
        (a, b, c), (p, q, s) = self.rows, self.columns
        r1 = min(rank, a * p, b * q * c * s)
        return r1, min(rank, r1 * b * q, c * s)

    @property
    def full_rank(self) -> int:
        """The smallest rank at which any table of this shape is reproduced."""
        (a, b, c), (p, q, s) = self.rows, self.columns
        return max(min(a * p, b * q * c * s), min(a * p * b * q, c * s))

    def parameters(self, rank: int) -> int:
        """Numbers in the three cores."""
        (a, b, c), (p, q, s) = self.rows, self.columns
        r1, r2 = self.ranks(rank)
        return a * p * r1 + b * r1 * q * r2 + c * r2 * s


def train_shape(n: int, d: int) -> TrainShape:
    """Cut n rows and d columns into three factors as equal as they come.

    >>> train_shape(1000, 16)
    TrainShape(rows=(10, 10, 10), columns=(2, 2, 4))
    """
    first = max(1, math.ceil(round(n ** (1 / 3), 9)))
    second = max(1, math.ceil(math.sqrt(math.ceil(n / first))))
    triples = [(a, b, d // a // b) for a in range(1, d + 1) if d % a == 0 for b in range(a, d // a + 1)
               if (d // a) % b == 0 and d // a // b >= b]  # fmt: skip
    return TrainShape((first, second, math.ceil(n / first / second)), min(triples, key=lambda t: t[2] - t[0]))


def tt_svd(table: Floats, shape: TrainShape, rank: int) -> tuple[Floats, Floats, Floats]:
    """Decompose a table by truncated SVDs of its unfoldings (TT-SVD, Oseledets 2011, algorithm 1).

    Parameters
    ----------
    table
        ``[n, d]``; rows are padded with zeros to ``n1 n2 n3``.
    rank
        Largest rank of both bonds; at ``shape.full_rank`` the table is reproduced.

    Returns
    -------
    tuple
        Cores float32 ``[n1, d1, r1]``, ``[n2, r1, d2, r2]``, ``[n3, r2, d3]``.
    """
    (a, b, c), (p, q, s) = shape
    r1, r2 = shape.ranks(rank)
    padded = np.zeros((a * b * c, p * q * s))
    padded[: len(table)] = table
    tensor = padded.reshape(a, b, c, p, q, s).transpose(0, 3, 1, 4, 2, 5)
    left, values, right = np.linalg.svd(tensor.reshape(a * p, -1), full_matrices=False)
    rest = (values[:r1, None] * right[:r1]).reshape(r1 * b * q, c * s)
    middle, weights, final = np.linalg.svd(rest, full_matrices=False)
    first = left[:, :r1].reshape(a, p, r1).astype(np.float32)
    second = middle[:, :r2].reshape(r1, b, q, r2).transpose(1, 0, 2, 3).astype(np.float32, order="C")
    third = (weights[:r2, None] * final[:r2]).reshape(r2, c, s).transpose(1, 0, 2).astype(np.float32, order="C")
    return first, second, third


def mixed_radix(ids: NDArray[np.int64], rows: tuple[int, int, int]) -> tuple[NDArray[np.int64], ...]:
    """Return the three digits of each id, the first the most significant."""
    return ids // (rows[1] * rows[2]), ids // rows[2] % rows[1], ids % rows[2]


def train_rows(cores: tuple[Floats, Floats, Floats], ids: NDArray[np.int64]) -> Floats:
    """Rows ``[b, d]`` of the table the cores stand for."""
    digits = mixed_radix(ids, (len(cores[0]), len(cores[1]), len(cores[2])))
    first, second, third = (core[digit] for core, digit in zip(cores, digits, strict=True))
    b, r1, q, r2 = second.shape
    left = np.asarray(first @ second.reshape(b, r1, q * r2)).reshape(b, first.shape[1] * q, r2)
    return np.asarray((left @ third).reshape(b, first.shape[1] * q * third.shape[2]), np.float32)
