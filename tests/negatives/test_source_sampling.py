"""Batches by source: pure, semi-homogeneous, drawn with weights and shares."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.errors import EmptyInput, InputError
from isometry.negatives import SourceBatches, WeightedBatches, with_share

sources = st.lists(st.sampled_from("abc"), min_size=1, max_size=50)


@settings(deadline=None, max_examples=40)
@given(rows=sources, size=st.integers(1, 7), purity=st.sampled_from([0.0, 0.3, 0.5, 1.0]), seed=st.integers(0, 99))
def test_every_row_comes_once_and_pure_batches_have_one_source(rows, size, purity, seed) -> None:
    batches = list(SourceBatches(rows, size, purity=purity, seed=seed, drop_last=False))
    assert sorted(row for batch in batches for row in batch) == list(range(len(rows)))
    full = sum(count // size for count in Counter(rows).values())
    assert all(len(batch) == size for batch in batches[:full])
    moved = int(size * (1 - purity) + 1e-9)
    for batch in batches[:full]:
        assert len({rows[row] for row in batch[: size - moved]}) <= 1
    assert list(SourceBatches(rows, size, purity=purity, seed=seed)) == batches[:full]


def test_purity_moves_the_stated_share_between_batches() -> None:
    rows = np.repeat(list("abcd"), 250).tolist()
    for purity, least, most in ((1.0, 1.0, 1.0), (0.9, 0.9, 0.99), (0.5, 0.5, 0.75), (0.0, 0.2, 0.5)):
        batches = list(SourceBatches(rows, 10, purity=purity))
        main = [max(Counter(rows[row] for row in batch).values()) / 10 for batch in batches]
        assert least <= np.mean(main) <= most
        assert sorted(row for batch in batches for row in batch) == list(range(1000))


def test_keys_do_not_meet_in_a_batch_of_one_source() -> None:
    rows, keys = ["a"] * 12 + ["b"] * 12, [{i % 6} for i in range(24)]
    for batch in SourceBatches(rows, 4, keys=keys, drop_last=False, seed=3):
        if len({rows[row] for row in batch}) == 1:
            assert len({row % 6 for row in batch}) == len(batch)


def test_order_depends_on_seed_and_epoch_alone() -> None:
    for sampler in (SourceBatches(["a", "b"] * 20, 4, seed=1), WeightedBatches(["a", "b"] * 20, 4, seed=1)):
        first = list(sampler)
        assert list(sampler) == first
        sampler.set_epoch(1)
        assert list(sampler) != first


def test_shares_of_drawn_batches_are_as_asked() -> None:
    rows = ["retrieval"] * 60 + ["sts"] * 20 + ["class"] * 40
    weights = with_share(Counter(rows), {"retrieval"}, 0.3)
    assert weights == pytest.approx({"retrieval": 0.3, "sts": 0.7 / 3, "class": 1.4 / 3})
    batches = list(WeightedBatches(rows, 8, weights=weights, steps=4000))
    names = [{rows[row] for row in batch} for batch in batches]
    assert all(len(name) == 1 for name in names)
    assert all(len(set(batch)) == 8 for batch in batches)
    for source, share in weights.items():
        observed = sum(name == {source} for name in names) / 4000
        assert abs(observed - share) < 3 * np.sqrt(share * (1 - share) / 4000)


def test_drawn_batches_use_all_rows_before_they_repeat() -> None:
    batches = list(WeightedBatches(["a"] * 12, 4, steps=6))
    for three in (batches[:3], batches[3:]):
        assert sorted(row for batch in three for row in batch) == list(range(12))
    assert len(WeightedBatches(["a"] * 13, 4)) == 3


def test_each_source_may_have_its_own_batch_size() -> None:
    rows = ["a"] * 20 + ["b"] * 20
    batches = list(WeightedBatches(rows, {"a": 4, "b": 10}, steps=50))
    assert {(rows[batch[0]], len(batch)) for batch in batches} == {("a", 4), ("b", 10)}
    assert len(WeightedBatches(rows, {"a": 4, "b": 10})) == 7
    with pytest.raises(InputError, match="every source"):
        WeightedBatches(rows, {"a": 4})


def test_bad_input() -> None:
    with pytest.raises(InputError, match="purity"):
        SourceBatches(["a"], 1, purity=1.5)
    with pytest.raises(InputError, match="sets of keys"):
        SourceBatches(["a"], 1, keys=[])
    with pytest.raises(InputError, match="batch_size"):
        SourceBatches(["a"], 0)
    with pytest.raises(EmptyInput):
        WeightedBatches([], 2)
    with pytest.raises(InputError, match="'b' has 1 rows and cannot fill a batch of 2"):
        WeightedBatches(["a", "a", "b"], 2)
    assert len(list(WeightedBatches(["a", "a", "b"], 2, weights={"a": 1.0}, steps=5))) == 5
    for weights in ({"z": 1.0}, {"a": 0.0}, {"a": -1.0}, {}):
        with pytest.raises(InputError, match="weights must be"):
            WeightedBatches(["a"], 1, weights=weights)
    for share, chosen in ((1.5, {"a"}), (0.5, {"z"}), (0.5, {"a", "b"})):
        with pytest.raises(InputError, match="share"):
            with_share({"a": 1, "b": 1}, chosen, share)
    assert with_share({"a": 1, "b": 3}, {"a"}, 0.0) == {"a": 0.0, "b": 1.0}
