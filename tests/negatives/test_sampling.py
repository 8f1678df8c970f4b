"""Batches without duplicates."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isometry.errors import EmptyInput, InputError
from isometry.negatives.sampling import DistinctBatches

rows = st.lists(st.frozensets(st.integers(0, 12), max_size=3), min_size=1, max_size=40)


@given(keys=rows, size=st.integers(1, 6), seed=st.integers(0, 99))
def test_rows_of_a_batch_share_no_key_and_come_once(keys, size, seed) -> None:
    sampler = DistinctBatches(keys, size, seed=seed, drop_last=False)
    batches = list(sampler)
    assert sorted(row for batch in batches for row in batch) == list(range(len(keys)))
    for batch in batches:
        assert len(batch) <= size
        assert sum(len(keys[row]) for row in batch) == len(frozenset().union(*(keys[row] for row in batch)))
    assert all(len(batch) == size for batch in DistinctBatches(keys, size, seed=seed))


def test_without_clashes_every_batch_is_full() -> None:
    assert [len(b) for b in DistinctBatches([{i} for i in range(10)], 4, drop_last=False)] == [4, 4, 2]


def test_a_row_that_clashed_goes_first_in_the_next_batch() -> None:
    """Rows sent to the end of the queue would gather there and clash with each other."""
    keys = [{"same"} if i < 32 else {i} for i in range(64)]
    sampler = DistinctBatches(keys, 8, drop_last=False)
    order = np.random.default_rng((0, 0)).permutation(64).tolist()
    first, second = list(sampler)[:2]
    clashed = [row for row in order[: order.index(first[-1])] if row not in first]
    assert clashed
    assert second[0] == clashed[0]


def test_order_depends_on_seed_and_epoch_alone() -> None:
    keys = [{i} for i in range(32)]
    sampler = DistinctBatches(keys, 4, seed=1)
    first = list(sampler)
    assert list(sampler) == first == list(DistinctBatches(keys, 4, seed=1))
    assert list(DistinctBatches(keys, 4, seed=2)) != first
    sampler.set_epoch(1)
    assert list(sampler) != first
    sampler.set_epoch(0)
    assert list(sampler) == first


def test_bad_input() -> None:
    with pytest.raises(InputError, match="batch_size"):
        DistinctBatches([{1}], 0)
    with pytest.raises(EmptyInput):
        DistinctBatches([], 2)
