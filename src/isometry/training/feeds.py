"""What a training run is fed: the batch of every step, told by the number of the step alone.

A run that was interrupted and goes on at step ``n`` therefore sees exactly what it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from isometry.errors import EmptyInput
from isometry.training.collate import keep_texts
from isometry.training.rows import Rows, batches

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


@dataclass(frozen=True)
class Batch:
    """The texts of one step.

    Parameters
    ----------
    columns
        Texts by column, such as queries, positives and negatives, each ``[b]``.
    labels
        What a loss reads besides: classes or similarities ``[b]``, or vectors ``[b, d]``.
    prompts
        What stands before the texts of each column; nothing where it is left out.
    rows
        Which rows of the data these are, to name them when something is wrong.
    """

    columns: Sequence[Sequence[str]]
    labels: Tensor | None = None
    prompts: Sequence[str | None] = ()
    rows: Sequence[int] = ()

    def features(self, model: SentenceTransformer) -> list[dict[str, Any]]:
        """Return the feature dict of each column on the model's device, with its raw ``"text"``."""
        prompts = self.prompts or [None] * len(self.columns)
        found = []
        for texts, prompt in zip(self.columns, prompts, strict=True):
            features = keep_texts(model.preprocess)(list(texts), **({} if prompt is None else {"prompt": prompt}))
            found.append({k: v.to(model.device) if isinstance(v, Tensor) else v for k, v in features.items()})
        return found


class Feed(Protocol):
    """The batches of a run, as long as it has steps."""

    def __len__(self) -> int:
        """Return the number of steps."""
        ...

    def __getitem__(self, step: int, /) -> Batch:
        """Return the batch of a step, counted from 0; the same whenever it is asked for."""
        ...

    def about(self) -> Mapping[str, Any]:
        """Return what tells these data from others, JSON: an unfinished run on others is not gone on with."""
        ...


def passes(sampler: Iterable[list[int]], steps: int) -> list[tuple[int, int, list[int]]]:
    """Return the first ``steps`` batches of a sampler, each with the number of its pass and its place in it.

    Parameters
    ----------
    sampler
        Gone through again and again; an object with ``set_epoch`` is told which pass begins.

    Raises
    ------
    EmptyInput
        If a pass yields nothing.

    Examples
    --------
    >>> passes([[0, 1], [2, 3]], 3)
    [(0, 0, [0, 1]), (0, 1, [2, 3]), (1, 0, [0, 1])]
    """
    found: list[tuple[int, int, list[int]]] = []
    epoch = 0
    while len(found) < steps:
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        made = [(epoch, place, rows) for place, rows in enumerate(islice(sampler, steps - len(found)))]
        if not made:
            raise EmptyInput("There is no batch to train on; fewer rows than one batch holds, or all of them clash.")
        found += made
        epoch += 1
    return found


class RowFeed:
    """Batches of `Rows`; see `isometry.training.rows.batches` for their order."""

    def __init__(self, rows: Rows, steps: int, batch_size: int, *, same_class: bool = False, seed: int = 0) -> None:
        self.rows = rows
        self.order = batches(rows, steps, batch_size, same_class=same_class, seed=seed)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, step: int, /) -> Batch:
        """Return the batch of a step."""
        chosen = self.order[step]
        columns = [[column[row] for row in chosen] for column in self.rows.columns]
        return Batch(columns, label_tensor(self.rows, chosen), rows=chosen)

    def about(self) -> dict[str, Any]:
        """Return kind, number and digest of the rows."""
        texts = digest(zip(*self.rows.columns, strict=True), list(self.rows.labels or ()))
        return {"rows": len(self.rows), "kind": self.rows.kind, "texts": texts}


def label_tensor(rows: Rows, chosen: Sequence[int]) -> Tensor | None:
    """Return the labels of some rows: int64 classes, float32 similarities, or None where the kind has none."""
    if rows.labels is None:
        return None
    values = torch.tensor([rows.labels[row] for row in chosen])
    return values.long() if rows.kind == "labelled" else values.float()


def digest(rows: Iterable[Iterable[str]], more: object = "") -> str:
    """Return what rows of texts are told apart by."""
    from hashlib import blake2b

    text = "\n".join("\t".join(row) for row in rows)
    return blake2b(f"{text}{more or ''}".encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
