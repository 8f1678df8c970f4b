"""No table at all: a network from many hashes of the id to its vector."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isometry.errors import InputError
from isometry.modules.embedding_tables.table import CompressedEmbedding, Store
from isometry.modules.embedding_tables.universal import coefficients, universal_hash
from isometry.numerics.budget import largest_within

BUCKETS = 10**6
LAYERS = 5


class DeepHashEmbedding(CompressedEmbedding):
    """Deep hash embedding (DHE; Kang et al., KDD 2021): k universal hashes scaled to [-1, 1], then an MLP.

    Five times linear, batch normalisation, Mish; then linear. The inference form folds the normalisation into the
    weights. The hash coefficients are drawn again from the seed, not stored.

    Parameters
    ----------
    hashes
        k.
    fit_steps
        Steps of the regression in `compress`.
    encoding
        ``"uniform"``, or ``"gaussian"`` (pairs of hashes through Box and Muller's transform).
    """

    def _build(
        self, limit: float, hashes: int = 1024, encoding: str = "uniform", fit_steps: int = 600, **options: Any
    ) -> None:
        if encoding not in ("uniform", "gaussian") or hashes < 2 or hashes % 2:
            raise InputError(f"encoding must be 'uniform' or 'gaussian', hashes even; got {encoding!r}, {hashes}.")
        hidden = largest_within(lambda h: 4 * self._numbers(h, hashes), 1, 4 * self.n, limit)
        hidden = self._need(hidden, 4 * self._numbers(1, hashes))
        self.fit_steps = fit_steps
        self.config |= {"hashes": hashes, "encoding": encoding, "hidden": hidden}
        widths = [hashes, *[hidden] * LAYERS, self.d]
        for i, (fan_in, fan_out) in enumerate(pairwise(widths)):
            self.register_parameter(f"weight{i}", self._normal(fan_out, fan_in, std=(2 / (fan_in + fan_out)) ** 0.5))
            self.register_parameter(f"bias{i}", nn.Parameter(torch.zeros(fan_out)))
            if i < LAYERS:
                self.register_parameter(f"scale{i}", nn.Parameter(torch.ones(fan_out)))
                self.register_parameter(f"shift{i}", nn.Parameter(torch.zeros(fan_out)))
                self.register_buffer(f"mean{i}", torch.zeros(fan_out))
                self.register_buffer(f"variance{i}", torch.ones(fan_out))

    def _numbers(self, hidden: int, hashes: int) -> int:
        return (hashes + 1) * hidden + (LAYERS - 1) * hidden * (hidden + 1) + (hidden + 1) * self.d

    def encode(self, ids: Tensor) -> Tensor:
        """Hash codes of ids, float32 ``[b, k]``."""
        a, b = coefficients(self.config["hashes"], seed=self.seed)
        codes = universal_hash(ids.unsqueeze(1), a, b, BUCKETS).float()
        if self.config["encoding"] == "uniform":
            return codes / (BUCKETS - 1) * 2 - 1
        first, second = ((codes + 1) / (BUCKETS + 1)).chunk(2, dim=1)
        radius = (-2 * first.log()).sqrt()
        return torch.cat([radius * (2 * torch.pi * second).cos(), radius * (2 * torch.pi * second).sin()], dim=1)

    def _look(self, weights: Store, ids: Tensor) -> Tensor:
        distinct, inverse = torch.unique(ids, return_inverse=True)
        x = self.encode(distinct).to(weights["weight0"].dtype)
        for i in range(LAYERS):
            x = F.linear(x, weights[f"weight{i}"], weights[f"bias{i}"])
            if f"mean{i}" in weights:
                x = F.batch_norm(x, weights[f"mean{i}"], weights[f"variance{i}"], weights[f"scale{i}"],
                                 weights[f"shift{i}"], training=self.training and len(x) > 1)  # fmt: skip
            x = F.mish(x)
        return F.linear(x, weights[f"weight{LAYERS}"], weights[f"bias{LAYERS}"])[inverse]

    def _pack(self) -> dict[str, Tensor]:
        weights = super()._pack()
        packed = {}
        for i in range(LAYERS + 1):
            packed[f"weight{i}"], packed[f"bias{i}"] = weights[f"weight{i}"], weights[f"bias{i}"]
            if i < LAYERS:
                factor = weights[f"scale{i}"] / (weights[f"variance{i}"] + 1e-5).sqrt()
                packed[f"weight{i}"] = packed[f"weight{i}"] * factor[:, None]
                packed[f"bias{i}"] = (packed[f"bias{i}"] - weights[f"mean{i}"]) * factor + weights[f"shift{i}"]
        return packed

    def _fit_rows(self, table: Tensor) -> None:
        """Regress the rows by Adam, on batches of 512."""
        optimizer, was = torch.optim.Adam(self.parameters(), 3e-3), self.training
        self.train()
        with torch.enable_grad():
            for _ in range(self.fit_steps):
                ids = torch.randint(self.n, (min(512, self.n),), generator=self.generator)
                optimizer.zero_grad()
                loss = F.mse_loss(self._look(self.weights(), ids), table[ids]) / table.var().clamp(min=1e-12)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        self.train(was)
