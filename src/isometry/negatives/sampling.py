"""Batch samplers: without duplicates, of one source, semi-homogeneous, drawn with weights.

A sampler is gone through once an epoch and yields lists of row numbers; ``set_epoch`` chooses the order.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from isometry.errors import EmptyInput, InputError

Source = TypeVar("Source", bound=Hashable)


class DistinctBatches:
    """Batch sampler without duplicates: the rows of a batch share no key.

    A new order every epoch; a row that clashes with the batch being filled waits for the next one, so every row comes
    once an epoch, except those that an incomplete last batch would hold (``drop_last``).

    Parameters
    ----------
    keys
        For each row, what must not meet in a batch: its texts, or its class.
    batch_size
        Rows per batch.
    seed
        Order of rows; the same seed and epoch give the same batches.
    drop_last
        Whether to leave out batches that cannot be filled.

    Examples
    --------
    >>> keys = [{"a", "b"}, {"b", "c"}, {"d"}, {"e"}]
    >>> sorted(sorted(batch) for batch in DistinctBatches(keys, 2)) in ([[0, 2], [1, 3]], [[0, 3], [1, 2]], [[2, 3]])
    True
    """

    def __init__(
        self, keys: Sequence[Iterable[Hashable]], batch_size: int, *, seed: int = 0, drop_last: bool = True
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size must be >= 1, got {batch_size}.")
        if len(keys) == 0:
            raise EmptyInput("There is no row to make batches of.")
        self.keys = [frozenset(row) for row in keys]
        self.batch_size, self.seed, self.drop_last, self.epoch = batch_size, seed, drop_last, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        """Yield row numbers batch by batch."""
        order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.keys)).tolist()
        for batch in _fill(order, self.keys, self.batch_size):
            if len(batch) == self.batch_size or not self.drop_last:
                yield batch


class SourceBatches:
    """Batch sampler by source: each batch from one data set, or (semi-homogeneous) a share of it.

    In a batch of one source the other rows are in-domain negatives, and the kind of loss is beyond doubt. Every row
    comes once an epoch. Rows left over from a source too short for another batch are gathered in mixed batches at the
    end, unless ``drop_last`` leaves them out.

    Parameters
    ----------
    sources
        The source of each row.
    batch_size
        Rows per batch.
    purity
        1: homogeneous. Below (KaLM-Embedding-V2): the last ``floor(batch_size (1 - purity))`` rows of every batch are
        thrown together, shuffled and dealt out again.
    keys
        As in `DistinctBatches`: what must not meet in a batch of one source.
    seed
        Order of rows and batches.
    drop_last
        Whether to leave out what fills no batch of its source.

    Examples
    --------
    >>> batches = SourceBatches(["a", "b"] * 4, 2)
    >>> all(len({row % 2 for row in batch}) == 1 for batch in batches)
    True
    """

    def __init__(
        self,
        sources: Sequence[Hashable],
        batch_size: int,
        *,
        purity: float = 1.0,
        keys: Sequence[Iterable[Hashable]] | None = None,
        seed: int = 0,
        drop_last: bool = True,
    ) -> None:
        self.rows = _by_source(sources, batch_size)
        if not 0 <= purity <= 1:
            raise InputError(f"purity must be in 0..1, got {purity}.")
        if keys is not None and len(keys) != len(sources):
            raise InputError(f"{len(sources)} rows need {len(sources)} sets of keys, got {len(keys)}.")
        self.keys = None if keys is None else [frozenset(row) for row in keys]
        self.batch_size, self.purity, self.seed, self.drop_last, self.epoch = batch_size, purity, seed, drop_last, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        """Yield row numbers batch by batch."""
        rng = np.random.default_rng((self.seed, self.epoch))
        full: list[list[int]] = []
        left: list[int] = []
        for rows in self.rows.values():
            order = rng.permutation(rows).tolist()
            for batch in _fill(order, self.keys, self.batch_size):
                if len(batch) == self.batch_size:
                    full.append(batch)
                else:
                    left.extend(batch)
        full = [full[i] for i in rng.permutation(len(full))]
        # Rounded before the floor: 10 (1 - 0.9) is a hair below 1.
        moved = math.floor(round(self.batch_size * (1.0 - self.purity), 9))
        if moved and full:
            pool = rng.permutation([row for batch in full for row in batch[-moved:]])
            full = [batch[:-moved] + pool[i :: len(full)].tolist() for i, batch in enumerate(full)]
        yield from full
        if not self.drop_last:
            yield from _fill(rng.permutation(left).astype(int).tolist(), self.keys, self.batch_size)


class WeightedBatches:
    """Batch sampler that draws the source of every batch: each batch from one data set, by given weights.

    A source's rows come in a new order each time round; what is left of a round and fills no batch is left out of it.

    Parameters
    ----------
    sources
        The source of each row.
    batch_size
        Rows per batch, one number or by source; sources with fewer rows are refused.
    weights
        By source, its share of the batches up to a common factor; default: its number of rows. See `with_share`.
    steps
        Batches in an epoch; default: as many as there are rows for.
    seed
        For all draws.

    Raises
    ------
    InputError
        If weights name another source, are negative or all 0, or a source that should be drawn cannot fill a batch.
    """

    def __init__(
        self,
        sources: Sequence[Hashable],
        batch_size: int | Mapping[Any, int],
        *,
        weights: Mapping[Any, float] | None = None,
        steps: int | None = None,
        seed: int = 0,
    ) -> None:
        self.rows = _by_source(sources, batch_size if isinstance(batch_size, int) else min(batch_size.values()))
        sizes = dict.fromkeys(self.rows, batch_size) if isinstance(batch_size, int) else batch_size
        if missing := self.rows.keys() - sizes.keys():
            raise InputError(f"batch_size must name every source; {sorted(map(str, missing))} are missing.")
        weights = {source: len(rows) for source, rows in self.rows.items()} if weights is None else weights
        if weights.keys() - self.rows.keys() or min(weights.values(), default=0) < 0 or not sum(weights.values()) > 0:
            raise InputError(
                f"weights must be >= 0, not all 0, and by source, of {list(self.rows)}; got {dict(weights)}."
            )
        for source, weight in weights.items():
            if weight and len(self.rows[source]) < sizes[source]:
                raise InputError(
                    f"Source {source!r} has {len(self.rows[source])} rows and cannot fill a batch of {sizes[source]}; "
                    "give it weight 0 or more rows."
                )
        total = sum(weights.values())
        self.shares = {source: weights.get(source, 0.0) / total for source in self.rows}
        self.sizes, self.seed, self.epoch = sizes, seed, 0
        self.steps = max(1, sum(len(rows) // sizes[source] for source, rows in self.rows.items()))
        self.steps = self.steps if steps is None else steps

    def set_epoch(self, epoch: int) -> None:
        """Choose the draws of the next pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        """Yield row numbers batch by batch."""
        rng = np.random.default_rng((self.seed, self.epoch))
        names = list(self.rows)
        waiting: dict[Hashable, list[int]] = {name: [] for name in names}
        for choice in rng.choice(len(names), size=self.steps, p=[self.shares[name] for name in names]):
            name, size = names[choice], self.sizes[names[choice]]
            if len(waiting[name]) < size:
                waiting[name] = rng.permutation(self.rows[name]).tolist()
            yield waiting[name][:size]
            del waiting[name][:size]


def with_share(weights: Mapping[Source, float], chosen: Collection[Source], share: float) -> dict[Source, float]:
    """Return weights in which the chosen sources hold a given share together, each group's own proportions kept.

    The retrieval share of QZhou-Embedding (arXiv:2508.21632): the probability that the next batch is one of retrieval.

    Raises
    ------
    InputError
        If the share is not in 0..1, or a group that should be drawn has no weight.

    Examples
    --------
    >>> with_share({"msmarco": 3, "nq": 1, "sts": 5}, {"msmarco", "nq"}, 0.5)
    {'msmarco': 0.375, 'nq': 0.125, 'sts': 0.5}
    """
    inside = sum(weight for source, weight in weights.items() if source in chosen)
    outside = sum(weights.values()) - inside
    if not 0 <= share <= 1 or (share > 0 and not inside > 0) or (share < 1 and not outside > 0):
        raise InputError(
            f"A share must be in 0..1 with weight to draw from on both sides, got {share} with weights {inside:g} of "
            f"the chosen and {outside:g} of the other sources."
        )
    factors = {True: share / inside if inside else 0.0, False: (1 - share) / outside if outside else 0.0}
    return {source: weight * factors[source in chosen] for source, weight in weights.items()}


def _by_source(sources: Sequence[Hashable], batch_size: int) -> dict[Hashable, list[int]]:
    """Return the rows of each source, sources in order of appearance."""
    if batch_size < 1:
        raise InputError(f"batch_size must be >= 1, got {batch_size}.")
    if len(sources) == 0:
        raise EmptyInput("There is no row to make batches of.")
    rows: dict[Hashable, list[int]] = {}
    for row, source in enumerate(sources):
        rows.setdefault(source, []).append(row)
    return rows


def _fill(order: Sequence[int], keys: Sequence[frozenset[Hashable]] | None, size: int) -> Iterator[list[int]]:
    """Yield batches of rows that share no key, in order; a row that clashes is first in the next. The rest is short."""
    if keys is None:
        yield from (list(order[start : start + size]) for start in range(0, len(order), size))
        return
    waiting = deque(order)
    while waiting:
        batch: list[int] = []
        clashing: list[int] = []
        taken: set[Hashable] = set()
        while waiting and len(batch) < size:
            row = waiting.popleft()
            if taken.isdisjoint(keys[row]):
                batch.append(row)
                taken |= keys[row]
            else:
                clashing.append(row)
        waiting.extendleft(reversed(clashing))
        yield batch
