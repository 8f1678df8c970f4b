"""Batches of texts of like length: little padding, and still another order in every pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from isometry.errors import EmptyInput, InputError


class LengthBatches:
    """Batch sampler by length buckets: rows are shuffled, sorted within pools, cut, and the batches shuffled.

    Parameters
    ----------
    lengths
        Of each row, in any unit.
    batch_size
        Rows per batch; only the last of a pass may hold fewer.
    pool
        Batches whose rows are sorted together.
    drop_last
        Leave out the batch that is not full.

    Examples
    --------
    >>> sorted(map(sorted, LengthBatches([9, 1, 8, 2], 2)))
    [[0, 2], [1, 3]]
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, *, seed: int = 0, pool: int = 50, drop_last: bool = False
    ) -> None:
        if batch_size < 1 or pool < 1:
            raise InputError(f"batch_size and pool must be >= 1, got {batch_size} and {pool}.")
        if not len(lengths):
            raise EmptyInput("There is no row to make batches of.")
        self.lengths, self.batch_size = np.asarray(lengths), batch_size
        self.seed, self.pool, self.drop_last, self.epoch = seed, pool, drop_last, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        """Yield row numbers batch by batch."""
        rng = np.random.default_rng((self.seed, self.epoch))
        order, size = rng.permutation(len(self.lengths)), self.batch_size
        batches = list[list[int]]()
        for start in range(0, len(order), self.pool * size):
            rows = order[start : start + self.pool * size]
            rows = rows[np.argsort(self.lengths[rows], kind="stable")]
            batches += [rows[i : i + size].tolist() for i in range(0, len(rows), size)]
        for i in rng.permutation(len(batches)):
            if len(batches[i]) == size or not self.drop_last:
                yield batches[i]
