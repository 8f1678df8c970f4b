"""A table as the product of three small cores."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isometry.errors import InputError
from isometry.modules.embedding_tables.table import INIT_STD, CompressedEmbedding, Store
from isometry.numerics.budget import largest_within
from isometry.numerics.tensor_train import train_shape, tt_svd


def _take(core: Tensor, digits: Tensor) -> Tensor:
    """Slices of a core ``[n, ...]`` (the gradient of an embedding is faster than that of indexing)."""
    return F.embedding(digits, core.flatten(1)).reshape(len(digits), *core.shape[1:])


class TensorTrainEmbedding(CompressedEmbedding):
    """Tensor-train table ``E[i] = G1[i1] G2[i2] G3[i3]`` (TT-Rec; Yin et al., MLSys 2021).

    Parameters
    ----------
    rank
        Rank of both bonds, instead of the largest that fits the budget; at full rank a given table is reproduced.
    """

    def _build(self, limit: float, rank: int | None = None, **options: Any) -> None:
        shape = train_shape(self.n, self.d)
        if rank is not None and rank < 1:
            raise InputError(f"The rank of a tensor train must be at least 1, got {rank}.")
        if rank is None:
            found = largest_within(lambda r: 4 * shape.parameters(r), 1, shape.full_rank, limit)
            rank = self._need(found, 4 * shape.parameters(1))
        r1, r2 = shape.ranks(min(rank, shape.full_rank))
        self.config |= {"rows": shape.rows, "columns": shape.columns, "rank": rank}
        scale = (INIT_STD**2 / (r1 * r2)) ** (1 / 6)  # a product of three, summed over both bonds
        (a, b, c), (p, q, s) = shape
        self.first = nn.Parameter(scale * self._away_from_zero(a, p, r1))
        self.second = nn.Parameter(scale * self._away_from_zero(b, r1, q, r2))
        self.third = nn.Parameter(scale * self._away_from_zero(c, r2, s))

    def _away_from_zero(self, *shape: int) -> Tensor:
        """Normal values with the middle third cut out, of unit variance: their products stay away from 0."""
        low = 0.5 * (1 + math.erf(0.43 / math.sqrt(2)))
        uniform = low + (1 - 1e-6 - low) * torch.rand(*shape, generator=self.generator)
        sign = torch.randint(0, 2, shape, generator=self.generator) * 2 - 1
        density = math.exp(-(0.43**2) / 2) / math.sqrt(2 * math.pi)
        values: Tensor = sign * torch.special.ndtri(uniform) / math.sqrt(1 + 0.43 * density / (1 - low))
        return values

    def _look(self, weights: Store, ids: Tensor) -> Tensor:
        _, n2, n3 = self.config["rows"]
        ids, inverse = torch.unique(ids, return_inverse=True)
        first, third = _take(weights["first"], ids // (n2 * n3)), _take(weights["third"], ids % n3)
        second = _take(weights["second"], ids // n3 % n2)
        b, _, q, r2 = second.shape
        left = torch.bmm(first, second.flatten(2)).reshape(b, first.shape[1] * q, r2)
        return F.embedding(inverse, torch.bmm(left, third).flatten(1))

    def _fit_rows(self, table: Tensor) -> None:
        cores = tt_svd(table.numpy(), train_shape(self.n, self.d), self.config["rank"])
        for parameter, core in zip((self.first, self.second, self.third), cores, strict=True):
            parameter.copy_(torch.from_numpy(core))
