"""Compressing vectors after the fact: every compressor keeps its budget, recall and decoding are what they say."""

import numpy as np
import pytest

from isometry.diagnostics.compression_study import (
    COMPRESSORS,
    compress_vectors,
    decode_times,
    nearest_by_product,
    neighbour_recall,
)
from isometry.errors import UnknownName
from isometry.numerics.budget import BudgetInfeasible


def vectors(n=600, d=32):
    x = np.random.default_rng(0).standard_normal((n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("name", COMPRESSORS)
def test_a_budget_is_kept_and_rows_decode_to_the_reconstruction(name):
    options = {"hashes": 16, "fit_steps": 3} if name == "DHE" else {}
    made = compress_vectors(name, vectors(), 0.5, **options)
    assert 0 < made.ratio <= 0.5 + 1e-4
    assert made.vectors.shape == (600, 32)
    rows = np.array([3, 599, 3])
    np.testing.assert_allclose(made.decode(rows), made.vectors[rows], atol=1e-5)
    with pytest.raises(BudgetInfeasible, match="infeasible"):
        compress_vectors(name, vectors(), 1e-6, **options)


def test_recall_is_one_for_the_vectors_themselves_and_chance_for_others():
    x = vectors()
    truth = nearest_by_product(x, x[:20], 5)
    assert np.array_equal(truth[:, 0], np.arange(20))
    assert neighbour_recall("same", x, x[:20], truth).mean("recall@5") == 1
    assert neighbour_recall("other", -x, x[:20], truth).mean("recall@5") == 0


def test_unknown_compressors_are_named():
    with pytest.raises(UnknownName, match="Did you mean"):
        compress_vectors("SDV", vectors(), 0.5)


def test_decoding_is_timed_as_often_as_asked():
    calls = []
    times = decode_times(lambda rows: calls.append(len(rows)), 10, batch=6, repeats=4)
    assert len(times) == 4
    assert calls == [6] * 5
