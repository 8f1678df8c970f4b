"""Tables stored as codes of a product quantiser that is learned with the task."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from isometry.errors import InputError
from isometry.modules.embedding_tables.bit_codes import pack_bits, packed_width, unpack_bits
from isometry.modules.embedding_tables.table import CompressedEmbedding, Store, positions


def _centroids(books: Tensor, codes: Tensor) -> Tensor:
    """Vectors ``[b, parts * w]`` of codes ``[b, parts]`` in codebooks ``[parts, K, w]``."""
    parts, count, _ = books.shape
    return F.embedding(codes + count * torch.arange(parts), books.flatten(0, 1)).flatten(1)


class ProductEmbedding(CompressedEmbedding):
    """Differentiable product quantisation (DPQ-VQ; Chen et al., ICML 2020).

    Training keeps the full table; the forward pass gives the chosen centroids, and gradients pass straight through to
    the row (``x + sg(c - x)``); centroids follow by the penalty ``mean (c - sg(x))^2`` or by moving averages. Choices
    are made on batch-normalised responses, which keeps centroids in use. Inference is codes and codebooks.

    Parameters
    ----------
    parts, bits
        Sub-spaces, and bits of a code; by default the pair with the most code bits that fits the budget, sub-spaces
        having 4 dimensions or more (4 parts at width 16, as in the survey).
    learn
        ``"gradient"`` or ``"ema"`` (decay 0.99) for the centroids.
    """

    hot_share = 0.0
    fewer_bits = 0  # how much shorter codes of the other rows are

    def _build(
        self, limit: float, parts: int | None = None, bits: int | None = None,
        learn: Literal["gradient", "ema"] = "gradient", **options: Any,
    ) -> None:  # fmt: skip
        if learn not in ("gradient", "ema"):
            raise InputError(f"learn must be 'gradient' or 'ema', got {learn!r}.")
        hot = round(self.hot_share * self.n)
        divisors = [
            p for p in range(1, self.d + 1) if self.d % p == 0 and (parts == p if parts else 4 * p <= self.d or p == 1)
        ]
        pairs = [(p, b) for p in divisors for b in range(self.fewer_bits + 1, 9) if bits in (None, b)]
        sizes = {pair: self._size(*pair, hot) for pair in pairs}
        if not sizes:
            raise InputError(f"parts must divide d={self.d} and bits be at most 8; got parts={parts}, bits={bits}.")
        fitting = [pair for pair, size in sizes.items() if size <= limit]
        chosen = max(fitting, key=lambda pair: (pair[0] * pair[1], pair[1]), default=None)
        parts, bits = self._need(chosen, min(sizes.values()))
        self.config |= {"parts": parts, "bits": bits, "learn": learn}
        self.table = self._normal(self.n, self.d)
        self.codebooks = self._normal(parts, 2**bits, self.d // parts)
        self.codebooks.requires_grad_(learn == "gradient")
        self.register_buffer("mean", torch.zeros(parts * 2**bits))
        self.register_buffer("variance", torch.ones(parts * 2**bits))
        if hot:
            self.register_buffer("hot", torch.from_numpy(self.hottest(hot)).to(torch.int32))
        if learn == "ema":
            self.register_buffer("counts", torch.ones(parts, 2**bits))
            self.register_buffer("sums", self.codebooks.detach().clone())
        self.normalise = True
        self._last: tuple[Tensor, Tensor] | None = None

    def _size(self, parts: int, bits: int, hot: int) -> int:
        codes = hot * (packed_width(parts, bits) + 4) + (self.n - hot) * packed_width(parts, bits - self.fewer_bits)
        return int(4 * 2**bits * self.d + codes)

    def codes_of(self, x: Tensor, ids: Tensor, weights: Store) -> Tensor:
        """Choose a centroid per part for rows ``x`` ``[b, d]``: int64 ``[b, parts]``."""
        books = weights["codebooks"].detach()
        parts, count, width = books.shape
        split = x.detach().reshape(-1, parts, width)
        response = 2 * torch.einsum("bpw,pkw->bpk", split, books) - (books**2).sum(2)
        if self.normalise:
            flat = F.batch_norm(response.reshape(len(x), -1), weights["mean"], weights["variance"],
                                training=self.training and len(x) > 1, eps=1e-10)  # fmt: skip
            response = flat.reshape(response.shape)
        if self.fewer_bits and count > 1:
            hit = positions(weights["hot"], ids)[1] if "hot" in weights else torch.zeros(len(ids), dtype=torch.bool)
            response[:, :, count >> self.fewer_bits :].masked_fill_(~hit[:, None, None], -torch.inf)
        return response.argmax(2)

    def _look(self, weights: Store, ids: Tensor) -> Tensor:
        x = F.embedding(ids, weights["table"])
        codes = self.codes_of(x, ids, weights)
        chosen = _centroids(weights["codebooks"], codes)
        if self.training:
            self._last = chosen, x.detach()
            if self.config["learn"] == "ema":
                self._move_averages(x.detach(), codes)
        return x + (chosen - x).detach()

    def penalty(self) -> Tensor | None:
        """Mean squared distance between rows and their centroids; gradients reach the centroids only."""
        if self._last is None:
            return None
        chosen, x = self._last
        self._last = None
        return F.mse_loss(chosen, x)

    def _move_averages(self, x: Tensor, codes: Tensor, decay: float = 0.99) -> None:
        parts, count, width = self.codebooks.shape
        counts, sums = self.get_buffer("counts"), self.get_buffer("sums")
        for p, values in enumerate(x.reshape(-1, parts, width).unbind(1)):
            hits = torch.bincount(codes[:, p], minlength=count).float()
            counts[p].mul_(decay).add_(hits, alpha=1 - decay)
            sums[p].mul_(decay).index_add_(0, codes[:, p], values, alpha=1 - decay)
        with torch.no_grad():
            self.codebooks.copy_(sums / counts.clamp(min=1e-5)[:, :, None])

    def _pack(self) -> dict[str, Tensor]:
        was, bits = self.training, self.config["bits"]
        self.training = False
        weights = {name: value.detach() for name, value in self.weights().items()}
        codes = torch.cat(
            [self.codes_of(weights["table"][ids], ids, weights) for ids in torch.split(self.rows_of_all(), 4096)]
        )
        self.training = was
        store = {"codebooks": weights["codebooks"].clone()}
        cold = torch.ones(self.n, dtype=torch.bool)
        if "hot" in weights:
            store["hot"] = weights["hot"].clone()
            cold[store["hot"].long()] = False
            store["hot_codes"] = pack_bits(codes[~cold], bits)
        return store | {"codes": pack_bits(codes[cold], bits - self.fewer_bits)}

    def _look_stored(self, store: Store, ids: Tensor) -> Tensor:
        books, bits = store["codebooks"], self.config["bits"]
        parts = len(books)
        if "hot" not in store:
            codes = unpack_bits(store["codes"][ids], parts, bits - self.fewer_bits)
        else:
            place, hit = positions(store["hot"], ids)
            codes = torch.empty(len(ids), parts, dtype=torch.int64)
            codes[hit] = unpack_bits(store["hot_codes"][place[hit]], parts, bits)
            codes[~hit] = unpack_bits(store["codes"][(ids - place)[~hit]], parts, bits - self.fewer_bits)
        return _centroids(books, codes)

    def _fit_rows(self, table: Tensor) -> None:
        """Lloyd's iterations in each part, the rows of few centroids restricted to theirs."""
        self.table.copy_(table)
        self.normalise = False
        parts, count, width = self.codebooks.shape
        split = table.reshape(self.n, parts, width)
        start = torch.randperm(self.n, generator=self.generator).repeat(-(-count // self.n))[:count]
        self.codebooks.copy_(split[start].transpose(0, 1))
        ids = self.rows_of_all()
        for _ in range(12):
            codes = torch.cat([self.codes_of(table[i], i, self.weights()) for i in torch.split(ids, 1024)])
            for p in range(parts):
                hits = torch.bincount(codes[:, p], minlength=count)
                total = torch.zeros(count, width).index_add_(0, codes[:, p], split[:, p])
                used = hits > 0
                self.codebooks[p, used] = total[used] / hits[used, None]
