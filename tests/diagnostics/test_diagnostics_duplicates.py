"""Duplicate groups equal brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.diagnostics import exact_duplicates, near_duplicates
from isometry.errors import InputError


def components(linked):
    """Groups of two or more by repeated merging."""
    labels = np.arange(len(linked))
    for _ in range(len(linked)):
        labels = np.array([labels[row].min() for row in linked | np.eye(len(linked), dtype=bool)])
    groups = [np.flatnonzero(labels == label).tolist() for label in np.unique(labels)]
    return sorted((g for g in groups if len(g) > 1), key=lambda g: (-len(g), g[0]))


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 50), threshold=st.floats(0.2, 0.99), seed=st.integers(0, 99))
def test_near_duplicates_equal_brute_force(n, threshold, seed):
    x = np.random.default_rng(seed).normal(size=(n, 3))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    linked = unit @ unit.T >= threshold
    np.fill_diagonal(linked, False)
    found = near_duplicates(x, threshold)
    assert found.groups == components(linked)
    assert found.pairs == linked.sum() // 2
    assert found.effective_n == n - found.extra == len(found.representatives)


def test_blocks_do_not_cut_groups(monkeypatch):
    monkeypatch.setattr("isometry.diagnostics.sphere._BLOCK_VALUES", 200)
    x = np.random.default_rng(0).normal(size=(90, 3))
    narrow = near_duplicates(x, 0.95)
    monkeypatch.undo()
    assert narrow.groups == near_duplicates(x, 0.95).groups
    np.testing.assert_array_equal(narrow.labels, near_duplicates(x, 0.95).labels)


def test_copies_are_found_at_threshold_one_at_any_scale():
    x = np.random.default_rng(1).normal(size=(50, 300)).astype(np.float32)
    found = near_duplicates(np.concatenate([x, 7 * x]), 1.0)
    assert found.groups == [[i, i + 50] for i in range(50)]


def test_all_the_same_row():
    found = near_duplicates(np.ones((3000, 2)))
    assert found.effective_n == 1
    assert found.pairs == 3000 * 2999 // 2


def test_exact_duplicates_see_values_not_bits():
    found = exact_duplicates([[0.0, 1], [-0.0, 1], [0, 2], [0, 1]])
    assert found.groups == [[0, 1, 3]]
    assert found.pairs == 3
    assert found.labels.tolist() == [0, 0, 1, 0]
    assert exact_duplicates(np.zeros((0, 3))).effective_n == 0


def test_representatives_are_first_rows():
    x = np.eye(3)[[0, 1, 0, 2, 1]]
    assert near_duplicates(x).representatives.tolist() == exact_duplicates(x).representatives.tolist() == [0, 1, 3]


@pytest.mark.parametrize("threshold", [1.1, -1.0])
def test_impossible_thresholds(threshold):
    with pytest.raises(InputError, match="threshold"):
        near_duplicates(np.eye(2), threshold)
