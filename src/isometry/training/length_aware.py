"""Embedding a batch in parts of like length: the same loss and gradients without the work spent on padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from isometry.errors import InputError
from isometry.training.freed_memory import give_back_freed_memory
from isometry.training.gradient_caching import embed_cached

PART_COST = 96  # padding tokens that cost as much as one more part; measured on a small encoder
GRAIN = 8  # lengths are told apart in steps of this many tokens


def length_parts(lengths: Sequence[int], *, most: int = 1 << 30) -> list[list[int]]:
    """Group rows by length so that padded tokens plus a cost per group are fewest; return row numbers by group.

    Parameters
    ----------
    lengths
        Tokens of each row.
    most
        Most padded tokens of one group; a single row may exceed it.

    Examples
    --------
    >>> length_parts([250, 8, 9, 240])
    [[1, 2], [3, 0]]
    """
    order = sorted(range(len(lengths)), key=lambda row: (lengths[row], row))
    grains = [-(-lengths[row] // GRAIN) * GRAIN for row in order]
    ends = [i for i in range(1, len(order) + 1) if i == len(order) or grains[i] != grains[i - 1]]
    best: dict[int, tuple[int, int]] = {0: (0, 0)}  # rows covered: (cost, where the last group begins)
    for end in ends:
        starts = [start for start in best if (end - start) * grains[end - 1] <= most] or [max(best)]
        best[end] = min((best[s][0] + (end - s) * grains[end - 1] + PART_COST, s) for s in starts)
    parts, end = list[list[int]](), len(order)
    while end:
        start = best[end][1]
        size = max(1, most // max(1, grains[end - 1]))
        parts += [order[max(start, stop - size) : stop] for stop in range(end, start, -size)]
        end = start
    return parts[::-1]


class LengthAware(nn.Module):
    """A sentence-transformers model that embeds each batch in parts of like length.

    Every row gets the vector it would get in the whole batch, up to rounding and to which random numbers its dropout
    draws, so that any loss over sentence embeddings stays what it is; what is saved is padding.

    Parameters
    ----------
    model
        From features with an ``attention_mask`` to features with a ``sentence_embedding``.
    cache_above
        Padded tokens of a batch above which its parts are embedded with gradient caching, so that memory no longer
        grows with the batch; None: never.
    part_tokens
        Most padded tokens of one part where caching is used.
    """

    def __init__(self, model: nn.Module, *, cache_above: int | None = None, part_tokens: int = 2048) -> None:
        super().__init__()
        if part_tokens < 1 or (cache_above is not None and cache_above < 0):
            raise InputError(f"part_tokens must be >= 1 and cache_above >= 0, got {part_tokens} and {cache_above}.")
        self.model, self.cache_above, self.part_tokens = model, cache_above, part_tokens

    def forward(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``{"sentence_embedding": [b, d]}`` of features that carry an ``attention_mask [b, t]``."""
        mask = features.get("attention_mask")
        if not isinstance(mask, Tensor):
            return dict(self.model(dict(features)))
        lengths = mask.sum(1).tolist()
        cached = self.cache_above is not None and max(lengths) * len(lengths) > self.cache_above
        parts = length_parts(lengths, most=self.part_tokens) if cached else length_parts(lengths)
        if len(parts) == 1 and not cached:
            return dict(self.model(dict(features)))
        if cached:
            give_back_freed_memory()
        chunks = [feature_rows(features, mask, part) for part in parts]
        vectors = embed_cached(self._embed, chunks) if cached else torch.cat([self._embed(chunk) for chunk in chunks])
        back = torch.argsort(torch.tensor([row for part in parts for row in part], device=vectors.device))
        return {"sentence_embedding": vectors[back]}

    def _embed(self, features: dict[str, Any]) -> Tensor:
        vectors: Tensor = self.model(dict(features))["sentence_embedding"]
        return vectors


def feature_rows(features: Mapping[str, Any], mask: Tensor, rows: list[int]) -> dict[str, Any]:
    """Return some rows of a batch, without the columns that are padding in all of them."""
    index = torch.tensor(rows, device=mask.device)
    used = mask[index].bool().any(0).nonzero().squeeze(1)

    def take(value: Any) -> Any:
        if isinstance(value, Tensor) and value.shape[:1] == mask.shape[:1]:
            value = value[index]
            return value[:, used] if value.ndim > 1 and value.shape[1] == mask.shape[1] else value
        if isinstance(value, list) and len(value) == len(mask):
            return [value[row] for row in rows]
        return value

    return {name: take(value) for name, value in features.items()}
