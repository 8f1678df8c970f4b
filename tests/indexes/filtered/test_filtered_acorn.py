"""ACORN: exhaustive with all links, sorted and bounded lists, exact below its selectivity."""

import numpy as np
import pytest

from isometry.indexes.filtered import Acorn, Attributes, Rows


def cloud(n, seed=0, d=12):
    x = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("share", [0.05, 0.3, 1.0])
def test_acorn_with_all_links_is_exhaustive_on_the_matches(share):
    n, x = 300, cloud(300)
    index = Acorn.build(x, Attributes([{}] * n), m=30, gamma=10, near=300, fallback=0.0)
    rng = np.random.default_rng(0)
    for q in cloud(20, 1):
        mask = rng.random(n) < share
        exact = np.flatnonzero(mask)[np.argsort(1 - x[mask] @ q)][:10]
        assert index.search(q, Rows(mask), 10, ef=n).ids.tolist() == exact.tolist()


def test_acorn_lists_are_sorted_bounded_and_compressed_only_on_layer_0():
    x = cloud(800)
    index = Acorn.build(x, Attributes([{}] * 800), m=6, gamma=8, near=12)
    for i in range(800):
        for level in range(index.levels[i] + 1):
            row = index.rows[i] + level
            mine = index.links[row, : index.counts[row]]
            distances = 1 - x[mine] @ x[i]
            assert (np.diff(distances) >= -1e-5).all()
            assert i not in mine
            assert len(set(mine.tolist())) == len(mine) <= 48
    plain = Acorn.build(x, Attributes([{}] * 800), m=6, gamma=8, near=48)
    assert index.size_bytes < plain.size_bytes


def test_acorn_searches_the_matches_exactly_below_its_selectivity():
    index = Acorn.build(cloud(400), Attributes([{}] * 400), m=8, gamma=10)
    mask = np.arange(400) < 30  # 7.5 % < 1 / 10
    assert index.search(cloud(1, 1)[0], Rows(mask), 5).computed == 30
