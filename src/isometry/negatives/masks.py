"""Mask sources for InfoNCE: which candidates of a batch are not negatives at all.

Every source is called with a batch's `Candidates` and returns bool masks by block, True where a candidate should be
left out. `Guided` in `isometry.negatives.guided` is one more.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from isometry.errors import InputError
from isometry.negatives.guided import guided_mask
from isometry.objectives.info_nce import Candidates, Masks, MaskSource, settle
from isometry.types import normal_text


def text_places(texts: Sequence[str]) -> dict[str, list[int]]:
    """Return where each text stands, by `isometry.types.normal_text`.

    >>> text_places(["a b", "c", "A  B"])
    {'a b': [0, 2], 'c': [1]}
    """
    places: dict[str, list[int]] = {}
    for place, text in enumerate(texts):
        places.setdefault(normal_text(text), []).append(place)
    return places


def same_text(candidates: Candidates) -> Masks:
    """Drop candidates whose text is that of the row's query or positive (text equality mask).

    The document-equality mask of Qwen3-Embedding (arXiv:2506.05176), for every block and up to `normal_text`.
    """
    if candidates.texts is None:
        raise InputError("same_text reads texts; pass them to the loss, or put them in the features with keep_texts.")
    queries, docs = candidates.texts
    numbers: dict[Hashable, int] = {}
    rows = [torch.tensor([numbers.setdefault(normal_text(t), len(numbers)) for t in side]) for side in (queries, docs)]
    return _same(candidates, *(row.to(candidates.targets.device) for row in rows))


def same_label(candidates: Candidates) -> Masks:
    """Drop candidates of the row's own class (label mask, e.g. QZhou-Embedding, arXiv:2508.21632).

    A candidate without a known class (a negative number) stays.
    """
    if candidates.labels is None:
        raise InputError("same_label reads class numbers; pass integer labels [b], one for each row, to the loss.")
    return _same(candidates, *candidates.labels)


def _same(candidates: Candidates, queries: Tensor, docs: Tensor) -> Masks:
    """Drop candidates whose number is that of the row's query or positive."""
    positives = docs[candidates.targets]
    sides = {"q": queries, "d": docs, "p": positives}
    columns = {block: sides[block[1]] for block in candidates.scores}
    return settle(
        {
            block: ((column == queries[:, None]) | (column == positives[:, None])) & (column >= 0)
            for block, column in columns.items()
        },
        candidates.targets,
    )


def other_rows(candidates: Candidates) -> Masks:
    """Drop everything but the row's own columns: in-batch negatives off, mined ones kept.

    The second stage of NV-Embed (arXiv:2405.17428), where two rows of a batch often share a class.
    """
    targets, masks = candidates.targets, {}
    for block, scores in candidates.scores.items():
        b, m = scores.shape
        if block[1] == "d" and m % b:
            raise InputError(f"Columns of {b} rows hold a multiple of {b} documents, got {m}.")
        masks[block] = torch.arange(m, device=targets.device)[None, :] % b != targets[:, None] % b
    return settle(masks, targets)


@dataclass(frozen=True)
class OwnScores:
    """Drop candidates that the model in training itself scores above its positive by more than ``margin``.

    The self-mask of Qwen3-Embedding (arXiv:2506.05176): ``s > s+ + 0.1``.
    """

    margin: float = 0.1

    def __call__(self, candidates: Candidates) -> Masks:
        """Return masks by block."""
        return guided_mask(candidates.scores, candidates.targets, margin=-self.margin)


@dataclass(frozen=True)
class AnyOf:
    """Drop what any of several mask sources drops."""

    sources: Sequence[MaskSource]

    def __call__(self, candidates: Candidates) -> Masks:
        """Return masks by block."""
        masks = [source(candidates) for source in self.sources]
        empty = {block: torch.zeros_like(s, dtype=torch.bool) for block, s in candidates.scores.items()}
        merged = {
            block: reduce(torch.logical_or, [m[block] for m in masks if block in m], e) for block, e in empty.items()
        }
        return settle(merged, candidates.targets)
