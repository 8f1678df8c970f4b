"""Batches in which no text occurs twice, so that no row's positive is another row's negative by accident."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sequence

import numpy as np

from isometry.errors import EmptyInput, InputError


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
        waiting = deque(np.random.default_rng((self.seed, self.epoch)).permutation(len(self.keys)).tolist())
        while waiting:
            batch: list[int] = []
            clashing: list[int] = []
            taken: set[Hashable] = set()
            while waiting and len(batch) < self.batch_size:
                row = waiting.popleft()
                if taken.isdisjoint(self.keys[row]):
                    batch.append(row)
                    taken |= self.keys[row]
                else:
                    clashing.append(row)
            waiting.extendleft(reversed(clashing))
            if len(batch) == self.batch_size or not self.drop_last:
                yield batch
