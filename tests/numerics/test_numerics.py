"""Sparse rows, tensor trains and shared blocks as arrays."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.numerics.block_sharing import blocks_of, share_blocks, stable_hashes
from isometry.numerics.sparse_rows import most_kept, sparse_bytes, sparse_rows, to_sparse, top_mask
from isometry.numerics.tensor_train import mixed_radix, train_rows, train_shape, tt_svd


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 20), st.integers(0, 800), st.integers(0, 99))
def test_sparse_rows_come_back_in_either_form(n, d, kept, seed):
    table = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    kept = min(kept, n * d)
    mask = top_mask(table, kept)
    assert mask.sum() == kept
    arrays = to_sparse(table, mask)
    assert ("pointers" in arrays) == (kept >= 3 * n)
    assert sum(a.nbytes for a in arrays.values()) == sparse_bytes(n, d, kept)
    ids = np.random.default_rng(seed).integers(0, n, 25)
    np.testing.assert_array_equal(sparse_rows(arrays, ids, d), (table * mask)[ids])
    assert sparse_rows(arrays, ids[:0], d).shape == (0, d)


def test_wide_tables_number_columns_with_two_bytes():
    table = np.random.default_rng(0).standard_normal((5, 300)).astype(np.float32)
    arrays = to_sparse(table, top_mask(table, 900))
    assert arrays["columns"].dtype == np.int16
    assert sparse_rows(arrays, np.arange(5), 300)[table == np.abs(table).max()].size <= 1
    assert sum(a.nbytes for a in arrays.values()) == sparse_bytes(5, 300, 900)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 12), st.floats(0, 3000))
def test_no_more_entries_fit_than_are_kept(n, d, limit):
    expected = max((k for k in range(n * d + 1) if sparse_bytes(n, d, k) <= limit), default=-1)
    assert most_kept(n, d, limit) == expected


def test_largest_entries_are_the_ones_marked():
    table = np.array([[3.0, -5.0], [0.1, 4.0]], np.float32)
    assert top_mask(table, 2).tolist() == [[False, True], [False, True]]


@pytest.mark.parametrize(("n", "d"), [(1, 1), (7, 5), (100, 16), (64, 12), (1000, 384)])
def test_shapes_cover_the_table(n, d):
    rows, columns = train_shape(n, d)
    assert np.prod(rows) >= n
    assert np.prod(columns) == d
    ids = np.arange(n)
    first, second, third = mixed_radix(ids, rows)
    assert np.array_equal((first * rows[1] + second) * rows[2] + third, ids)
    assert (first < rows[0]).all()


@pytest.mark.parametrize(("n", "d"), [(60, 8), (61, 12), (5, 7)])
def test_full_rank_reproduces_and_no_rank_is_worse_than_a_smaller(n, d):
    table = np.random.default_rng(0).standard_normal((n, d)).astype(np.float32)
    shape = train_shape(n, d)
    errors = []
    for rank in range(1, shape.full_rank + 1):
        cores = tt_svd(table, shape, rank)
        assert sum(core.size for core in cores) == shape.parameters(rank)
        errors.append(float(np.square(train_rows(cores, np.arange(n)) - table).sum()))
    assert errors[-1] < 1e-8
    assert all(b <= a + 1e-5 for a, b in pairwise(errors))
    # within the bound of TT-SVD: the sum of what both truncations drop (Oseledets 2011, theorem 2.2)
    (a, b, c), (p, q, s) = shape
    padded = np.zeros((a * b * c, d))
    padded[:n] = table
    tensor = padded.reshape(a, b, c, p, q, s).transpose(0, 3, 1, 4, 2, 5)
    for rank in (1, 2, 3):
        dropped = sum(np.square(np.linalg.svd(m, compute_uv=False)[rank:]).sum()
                      for m in (tensor.reshape(a * p, -1), tensor.reshape(a * p * b * q, -1)))  # fmt: skip
        if rank <= len(errors):
            assert errors[rank - 1] <= dropped * (1 + 1e-5) + 1e-9


def test_near_points_share_hashes_more_often_than_far_ones():
    rng = np.random.default_rng(0)
    base = rng.standard_normal((200, 30)).astype(np.float32)
    hashes = [stable_hashes(points, width=2.0, tables=40, seed=1) for points in
              (base, base + 0.05 * rng.standard_normal((200, 30)).astype(np.float32), base[::-1].copy())]  # fmt: skip
    assert (hashes[0] == hashes[1]).mean() > (hashes[0] == hashes[2]).mean() + 0.4


def test_blocks_give_way_only_to_similar_kept_ones():
    rng = np.random.default_rng(0)
    distinct = rng.standard_normal((30, 40)).astype(np.float32)
    near = distinct + 1e-4 * rng.standard_normal((30, 40)).astype(np.float32)
    owner = share_blocks(np.concatenate([distinct, near]), closeness=0.01)
    assert len(np.unique(owner)) == 30
    assert np.array_equal(owner[:30] % 30, np.arange(30))
    assert np.array_equal(owner[30:] % 30, np.arange(30))
    assert np.array_equal(owner[owner], owner)
    assert len(np.unique(share_blocks(np.concatenate([distinct, near]), closeness=0.01, keep=50))) == 50
    assert np.array_equal(share_blocks(distinct, closeness=0.01), np.arange(30))


def test_closeness_is_relative_to_the_scale_of_the_table():
    blocks = np.random.default_rng(0).standard_normal((40, 12)).astype(np.float32)
    assert np.array_equal(share_blocks(blocks, closeness=0.8), share_blocks(blocks * 1000, closeness=0.8))


def test_the_last_block_is_padded():
    table = np.arange(14, dtype=np.float32).reshape(7, 2)
    assert blocks_of(table, 3).shape == (3, 6)
    assert blocks_of(table, 3)[2].tolist() == [12, 13, 0, 0, 0, 0]
