"""Comparison of two sentence vectors by a small network, with the candidates' share computed once (DSE).

Encoding N candidates once and comparing a query with each costs one encoder pass and N passes of this head.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from isometry.errors import DataFormatError, DimensionMismatch, EmptyInput, InputError, UnknownName
from isometry.files import make_folder, write_whole
from isometry.modules.pooling.top_layers import TopLayerPooling
from isometry.types import FloatArray

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

CHUNK: Final = 1024  # candidates compared at once


class ComparisonHead(nn.Module):
    """Siamese comparison head: ``[u, v, u * v, |u - v|]``, a linear layer, ReLU, a linear layer (arXiv:1908.05161).

    Its first layer splits, ``W [u; v; u * v; |u - v|] = W1 u + W2 v + W3 (u * v) + W4 |u - v|``, so that ``W2 v`` is
    kept per candidate (`prepare`).

    Parameters
    ----------
    dim
        Width of a sentence vector.
    labels
        Logits per pair.
    hidden, dropout
        Of the network.
    symmetric
        Average both orders of each pair; otherwise ``f(u, v)`` and ``f(v, u)`` may differ.
    seed
        Initial weights.
    """

    def __init__(
        self,
        dim: int,
        *,
        labels: int = 1,
        hidden: int = 512,
        dropout: float = 0.1,
        symmetric: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if min(dim, labels, hidden) < 1:
            raise InputError(f"A head needs positive widths, got dim={dim}, hidden={hidden}, labels={labels}.")
        self.config = {"dim": dim, "labels": labels, "hidden": hidden, "dropout": dropout, "symmetric": symmetric}
        self.dim, self.labels, self.symmetric = dim, labels, symmetric
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first, self.second = nn.Linear(4 * dim, hidden), nn.Linear(hidden, labels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, u: Tensor, v: Tensor) -> Tensor:
        """Compare row by row: ``[b, d]`` and ``[b, d]`` to logits ``[b, labels]``."""
        logits = self._ordered(u, v)
        return (logits + self._ordered(v, u)) / 2 if self.symmetric else logits

    def _ordered(self, u: Tensor, v: Tensor) -> Tensor:
        features = torch.cat([u, v, u * v, (u - v).abs()], -1)
        logits: Tensor = self.second(self.dropout(self.first(features).relu()))
        return logits

    def prepare(self, v: Tensor) -> Tensor:
        """``W2 v`` of candidates ``[m, d]``, ``[m, hidden]``; with ``symmetric`` also ``W1 v``, ``[m, 2 hidden]``."""
        parts = self.first.weight.chunk(4, 1)
        sides = (1, 0) if self.symmetric else (1,)
        return torch.cat([v @ parts[side].T for side in sides], -1)

    def score(self, u: Tensor, v: Tensor, prepared: Tensor | None = None) -> Tensor:
        """Compare one query ``[d]`` with candidates ``[m, d]``: logits ``[m, labels]`` equal to those of `forward`."""
        if u.shape != (self.dim,) or v.ndim != 2 or v.shape[1] != self.dim:
            raise DimensionMismatch(
                f"The head compares [{self.dim}] with [m, {self.dim}], got {list(u.shape)} and {list(v.shape)}."
            )
        kept = self.prepare(v) if prepared is None else prepared
        w1, w2, w3, w4 = self.first.weight.chunk(4, 1)
        own = [self.first.bias + w1 @ u] + ([self.first.bias + w2 @ u] if self.symmetric else [])
        together = torch.cat([w3 * u, w4], 1).T  # [2 d, hidden]: products with u are absorbed into the weights
        found = []
        for start in range(0, len(v), CHUNK):
            rows, orders = v[start : start + CHUNK], kept[start : start + CHUNK].chunk(len(own), 1)
            shared = torch.cat([rows, (rows - u).abs()], 1) @ together
            logits = [self.second((shared + part + mine).relu()) for part, mine in zip(orders, own, strict=True)]
            found.append(torch.stack(logits).mean(0))
        return torch.cat(found) if found else v.new_empty(0, self.labels)


class DotHead(nn.Module):
    """Dot product of linearly projected vectors, for vector search: ``scale (P u) . (P v) + b``.

    Parameters
    ----------
    dim, width
        Width of a sentence vector and of its projection.
    unit
        Bring projections to length 1 first. Vectors that are means of states differ in length with their texts, and
        plain products follow that more than what the texts say.
    seed
        Initial weights.
    """

    labels = 1

    def __init__(self, dim: int, *, width: int = 256, unit: bool = True, seed: int = 0) -> None:
        super().__init__()
        if min(dim, width) < 1:
            raise InputError(f"A head needs positive widths, got dim={dim}, width={width}.")
        self.config = {"dim": dim, "width": width, "unit": unit}
        self.dim, self.unit = dim, unit
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.project = nn.Linear(dim, width, bias=False)
        self.scale, self.bias = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(1))

    def forward(self, u: Tensor, v: Tensor) -> Tensor:
        """Compare row by row: ``[b, d]`` and ``[b, d]`` to logits ``[b, 1]``."""
        return self.scale * (self.prepare(u) * self.prepare(v)).sum(-1, keepdim=True) + self.bias

    def prepare(self, v: Tensor) -> Tensor:
        """Projected vectors ``[m, width]``, which a vector index can hold."""
        projected: Tensor = self.project(v)
        return normalize(projected, dim=-1) if self.unit else projected / self.project.out_features**0.25

    @torch.no_grad()
    def calibrate(self, u: Tensor, v: Tensor) -> None:
        """Set scale and bias so that logits of these pairs, ``[n, d]`` each, have mean 0 and deviation 1.

        Two numbers move too slowly for an optimizer whose every step is as large as its learning rate.
        """
        products = (self.prepare(u) * self.prepare(v)).sum(-1)
        if len(products) < 2 or not float(products.std()) > 0:
            raise InputError(f"Calibration needs pairs with different products, got {len(products)} pairs.")
        self.scale.fill_(float(1 / products.std()))
        self.bias.fill_(float(-products.mean() / products.std()))

    def score(self, u: Tensor, v: Tensor, prepared: Tensor | None = None) -> Tensor:
        """Compare one query ``[d]`` with candidates ``[m, d]``: logits ``[m, 1]``."""
        kept = self.prepare(v) if prepared is None else prepared
        return self.scale * (kept @ self.prepare(u))[:, None] + self.bias


HEADS: dict[str, type[ComparisonHead] | type[DotHead]] = {"ComparisonHead": ComparisonHead, "DotHead": DotHead}


class PairStudent(nn.Module):
    """Bi-encoder that scores pairs: one encoder for both sentences, and a head that compares their vectors.

    Parameters
    ----------
    encoder
        A ``SentenceTransformer``, e.g. of `isometry.modules.pooling.top_layers.with_top_layers`.
    head
        A `ComparisonHead`, or a `DotHead`.
    """

    def __init__(self, encoder: SentenceTransformer, head: ComparisonHead | DotHead) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def vectors(self, texts: Sequence[str]) -> Tensor:
        """Vectors ``[n, d]`` of texts, with gradient.

        Raises
        ------
        EmptyInput
            If a text is empty; names its row, counted from 0.
        """
        _check_words(texts)
        features: dict[str, Any] = self.encoder.preprocess(list(texts))
        moved = {k: v.to(self.encoder.device) if isinstance(v, Tensor) else v for k, v in features.items()}
        out: Tensor = self.encoder(moved)["sentence_embedding"]
        return out

    def forward(self, left: Sequence[str], right: Sequence[str]) -> Tensor:
        """Logits ``[b, labels]`` of pairs, with gradient."""
        both = self.vectors([*left, *right])
        logits: Tensor = self.head(both[: len(left)], both[len(left) :])
        return logits

    @torch.no_grad()
    def encode(self, texts: Sequence[str], *, batch_size: int = 64) -> Tensor:
        """Vectors ``[n, d]`` of candidates, to be kept; texts of like length are read together."""
        self.eval()
        _check_words(texts)
        found = torch.empty(len(texts), self.head.dim, device=self.encoder.device)
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        for start in range(0, len(texts), batch_size):
            rows = order[start : start + batch_size]
            found[rows] = self.vectors([texts[row] for row in rows])
        return found

    @torch.no_grad()
    def predict(self, pairs: Sequence[tuple[str, str]]) -> FloatArray:
        """First logit of each pair, float32 ``[n]``: what `isometry.ranking.Rerank` asks of a scorer."""
        self.eval()
        u, v = (self.encode([pair[side] for pair in pairs]) for side in (0, 1))
        scores: FloatArray = self.head(u, v)[:, 0].float().cpu().numpy()
        return scores

    def save(self, path: str | Path) -> None:
        """Write encoder and head to a folder."""
        from safetensors.torch import save

        folder = make_folder(path)
        self.encoder.save(str(folder / "encoder"))
        weights = {name: value.detach().cpu().contiguous() for name, value in self.head.state_dict().items()}
        write_whole(folder / "head.safetensors", save(weights))
        about = {"kind": type(self.head).__name__, "config": self.head.config}
        write_whole(folder / "head.json", json.dumps(about, sort_keys=True).encode())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        DataFormatError
            If a file is missing or broken.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load
        from sentence_transformers import SentenceTransformer

        folder = Path(path)
        try:
            about = json.loads((folder / "head.json").read_text(encoding="utf-8"))
            if about["kind"] not in HEADS:
                raise UnknownName("comparison head", str(about["kind"]), HEADS)
            head = HEADS[about["kind"]](**about["config"])
            head.load_state_dict(load((folder / "head.safetensors").read_bytes()))
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise DataFormatError(folder, None, f"the pair student cannot be read ({error}).") from error
        ours = {f"{TopLayerPooling.__module__}.{TopLayerPooling.__name__}": TopLayerPooling}
        encoder = SentenceTransformer._load_with_module_classes(
            str(folder / "encoder"), ours, device="cpu", local_files_only=True
        )
        return cls(encoder, head)


def _check_words(texts: Sequence[str]) -> None:
    for row, text in enumerate(texts):
        if not text.strip():
            raise EmptyInput(f"Text {row} is empty; give it words or leave it out.")
