"""Length buckets: every row once, like lengths together, another order every pass."""

import numpy as np
import pytest

from isometry.errors import EmptyInput, InputError
from isometry.training import LengthBatches


def test_every_row_comes_once_a_pass_in_another_order():
    lengths = np.random.default_rng(0).integers(1, 100, 103)
    batches = LengthBatches(lengths, 10, seed=1)
    first = list(batches)
    assert sorted(row for batch in first for row in batch) == list(range(103))
    assert list(batches) == first
    batches.set_epoch(1)
    assert list(batches) != first
    assert list(LengthBatches(lengths, 10, seed=1)) == first
    full = list(LengthBatches(lengths, 10, drop_last=True))
    assert len(full) == 10
    assert {len(batch) for batch in full} == {10}


def test_padding_is_less_than_in_random_batches():
    lengths = np.random.default_rng(0).integers(1, 100, 1000)
    spread = np.mean([np.ptp(lengths[batch]) for batch in LengthBatches(lengths, 10)])
    random = np.mean([np.ptp(lengths[batch]) for batch in LengthBatches(lengths, 10, pool=1)])
    assert spread < 0.2 * random


def test_bad_input():
    with pytest.raises(InputError, match="batch_size and pool"):
        LengthBatches([1], 0)
    with pytest.raises(EmptyInput, match="no row"):
        LengthBatches([], 2)
