"""Ranks of entries: brute force, synonyms, ties, cosine."""

import numpy as np
import pytest

from isometry.errors import InputError
from isometry.tasks import entry_ranks


def test_agrees_with_sorting():
    rng = np.random.default_rng(0)
    x, t, right = rng.normal(size=(600, 6)), rng.normal(size=(40, 6)), rng.integers(0, 40, 600)
    order = np.argsort(-(x @ t.T), axis=1)
    expected = [list(row).index(r) + 1 for row, r in zip(order, right, strict=True)]
    assert entry_ranks(x, t, [[r] for r in right]).tolist() == expected
    unit = t / np.linalg.norm(t, axis=1, keepdims=True)
    assert (entry_ranks(x, t, [[r] for r in right], cosine=True) == entry_ranks(x, unit, [[r] for r in right])).all()


def test_synonyms_help_and_ties_do_not():
    t = [[3.0], [2.0], [1.0], [0.0]]
    assert entry_ranks([[1.0]], t, [[2]]).tolist() == [3]
    assert entry_ranks([[1.0]], t, [[2, 0]]).tolist() == [1]
    assert entry_ranks([[1.0]], t, [[2, 1]]).tolist() == [2]
    assert entry_ranks([[0.0]], t, [[2]]).tolist() == [4]


def test_bad_input():
    for owners in ([], [[]], [[4]]):
        with pytest.raises(InputError, match="one of the 4 entries"):
            entry_ranks([[1.0]], np.eye(4)[:, :1], owners)
