"""Rows grouped by their norms, large rows coded more finely: MagPQ and MagSVD."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from isometry.codes.code import Code
from isometry.codes.low_rank import LowRankCode
from isometry.codes.product import ProductCode
from isometry.codes.table import TableCode, check_budget
from isometry.errors import InputError
from isometry.numerics.budget import infeasible
from isometry.types import FloatArray

_FEW = 65_536  # rows below which codebooks of 256 centroids weigh more than the codes they improve
POWER = 0.3  # rank of a group ~ its number of rows to the minus this


def norm_groups(x: FloatArray, groups: int) -> list[NDArray[np.int64]]:
    """Cut the rows, longest first, into groups of about equal sums of squared norms; rows within a group are sorted.

    >>> [g.tolist() for g in norm_groups(np.array([[3.0], [1.0], [2.0], [2.0], [1.0]], np.float32), 2)]
    [[0, 2], [1, 3, 4]]
    """
    mass = np.einsum("nd,nd->n", x, x).astype(np.float64)
    order = np.argsort(-mass, kind="stable")
    reached = np.cumsum(mass[order]) / (mass.sum() or 1.0)
    cuts = np.searchsorted(reached, np.arange(1, groups) / groups - 1e-9) + 1
    return [np.sort(part) for part in np.split(order, cuts) if len(part)]


class MagnitudeCode(TableCode):
    """Norm-grouped codes: each group of rows has a code of its own, larger for the group of the longest rows.

    With ``"svd"`` a group of n_g rows keeps ``lambda n_g^-0.3`` dimensions; with ``"pq"`` each group has the next
    smaller number of parts. What is largest within the budget is taken. Where rows went takes 4 bytes a row.

    Parameters
    ----------
    budget
        Share of ``4 n d`` bytes.
    kind
        ``"pq"`` (MagPQ) or ``"svd"`` (MagSVD).
    groups
        Number of groups of equal norm mass.
    seed
        Of the centroids.
    """

    def __init__(self, budget: float, *, kind: Literal["pq", "svd"] = "pq", groups: int = 2, seed: int = 0) -> None:
        if kind not in ("pq", "svd") or groups < 1:
            raise InputError(f"kind must be 'pq' or 'svd' and groups at least 1; got {kind!r}, {groups}.")
        self.budget, self.kind, self.groups, self.seed = check_budget(budget), kind, groups, seed

    def _fit(self, x: FloatArray) -> None:
        members = norm_groups(x, self.groups)
        plans = self._plans([len(rows) for rows in members], x.shape[1])
        limit, fixed = self.budget * 4 * x.size, 4 * len(x)
        fitting = [plan for size, plan in plans if size + fixed <= limit]
        if not fitting:
            raise infeasible(f"Mag{self.kind.upper()}", self.budget, (plans[0][0] + fixed) / (4 * x.size))
        place = np.empty(len(x), np.int64)
        place[np.concatenate(members)] = np.arange(len(x))
        self.place_, self.starts_ = place.astype(np.int32), np.cumsum([0] + [len(rows) for rows in members])
        self.codes_: list[Code] = [self._code(k, len(rows)).fit(x[rows]) for k, rows in zip(fitting[-1], members,
                                                                                            strict=True)]  # fmt: skip
        self.packed_ = [code.transform(x[rows]) for code, rows in zip(self.codes_, members, strict=True)]

    def _bits(self, n: int) -> int:
        return 8 if n >= _FEW else 4

    def _code(self, k: int, n: int) -> Code:
        return LowRankCode(k) if self.kind == "svd" else ProductCode(k, bits=self._bits(n), seed=self.seed)

    def _size(self, plan: tuple[int, ...], counts: list[int], d: int) -> int:
        if self.kind == "svd":
            return sum(4 * (n * k + k * d + d) for k, n in zip(plan, counts, strict=True))
        return sum(n * k * self._bits(n) // 8 + 4 * 2 ** self._bits(n) * d for k, n in zip(plan, counts, strict=True))

    def _plans(self, counts: list[int], d: int) -> list[tuple[int, tuple[int, ...]]]:
        """(bytes, rank or parts of each group), smallest first."""
        if self.kind == "svd":
            shares = np.asarray(counts, np.float64) ** -POWER
            scaled = (np.outer(np.arange(1, d + 1), shares / shares.max())).round().astype(int)
            plans = [tuple(max(1, min(k, n, d)) for k, n in zip(row, counts, strict=True)) for row in scaled.tolist()]
        else:
            if min(counts) < 16:
                raise InputError(f"MagPQ needs 16 rows in every group, got {counts}; ask for fewer groups.")
            ladder = [k for k in range(1, d + 1) if d % k == 0 and k * min(map(self._bits, counts)) >= 8]
            plans = [tuple(ladder[max(0, i - g)] for g in range(len(counts))) for i in range(len(ladder))]
        return sorted((self._size(plan, counts, d), plan) for plan in plans)

    def _rows(self, rows: NDArray[np.int64]) -> FloatArray:
        place = self.place_[rows].astype(np.int64)
        group = np.searchsorted(self.starts_, place, side="right") - 1
        found = np.empty((len(rows), self._shape()[1]), np.float32)
        for g, (code, packed) in enumerate(zip(self.codes_, self.packed_, strict=True)):
            if (mine := group == g).any():
                found[mine] = code.inverse_transform(packed[place[mine] - self.starts_[g]])
        return found

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """Where each row went, and for each group its packed rows and what its code keeps once."""
        arrays: dict[str, NDArray[Any]] = {"place": self.place_}
        for g, (code, packed) in enumerate(zip(self.codes_, self.packed_, strict=True)):
            arrays |= {f"rows{g}": packed, **{f"code{g}.{name}": array for name, array in code.arrays().items()}}
        return arrays
