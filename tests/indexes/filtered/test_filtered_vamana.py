"""Vamana's filtered pruning rule, and its two labelled graphs."""

import numpy as np
import pytest

from isometry.indexes.filtered import Attributes, Contains, FilteredVamana, StitchedVamana, Vamana
from isometry.indexes.filtered.vamana import robust_prune


def cloud(n, seed=0, d=12):
    x = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def tagged(n, seed=0, tags=6):
    rng = np.random.default_rng(seed)
    return [
        {"tags": [t for t in range(tags) if rng.random() < 0.4], "year": int(rng.integers(0, 50))} for _ in range(n)
    ]


def test_robust_prune_keeps_the_nearest_and_respects_labels():
    x = cloud(40)
    node = np.arange(1, 40, dtype=np.int32)
    dist = (1 - x[1:] @ x[0]).astype(np.float32)
    out = np.empty(40, np.int32)

    def pruned(bits, square, most=40):
        kept, _ = robust_prune(x, bits, 0, node, dist, np.float32(square), most, out)
        return out[:kept].tolist()

    one = np.ones((40, 1), np.uint64)
    kept = pruned(one, 1.44)
    assert kept[0] == node[dist.argmin()]
    for c in set(node.tolist()) - set(kept):  # whatever was dropped is covered by a nearer neighbour
        assert any(1.44 * (1 - x[c] @ x[k]) <= dist[c - 1] + 1e-6 and dist[k - 1] <= dist[c - 1] for k in kept)
    for i, c in enumerate(kept):
        assert all(1.44 * (1 - x[c] @ x[k]) > dist[c - 1] - 1e-6 for k in kept[:i])
    assert len(pruned(one, 1.0)) <= len(kept)
    assert pruned(one, 1.44, 3) == kept[:3]
    apart = np.full((40, 1), 3, np.uint64)  # p and all candidates share two labels; each nearer one has only the first
    apart[1 + dist.argmin()] = 1
    assert len(pruned(apart, 1.44)) >= len(kept)
    alone = np.array([[np.uint64(2**63 - 1)]] + [[np.uint64(2**i)] for i in range(39)])
    assert sorted(pruned(alone, 1.44)) == node.tolist()  # no candidate has another's label: nothing may be dropped


def test_filtered_vamana_of_one_label_is_vamana():
    x, items = cloud(500), Attributes([{"lang": "a"}] * 500)
    labelled = FilteredVamana.build(x, items, "lang", degree=12, width=40, seed=3)
    plain = Vamana.build(x, items, degree=12, width=40, seed=3, random_start=False)
    np.testing.assert_array_equal(labelled.counts, plain.counts)
    np.testing.assert_array_equal(labelled.links, plain.links)
    assert labelled.build_distances == plain.build_distances


def test_stitched_vamana_of_one_label_is_vamana_when_nothing_is_pruned():
    x, items = cloud(300), Attributes([{"lang": "a"}] * 300)
    one = StitchedVamana.build(x, items, "lang", degree=12, small=12, width=40, alpha=1.2)
    plain = Vamana.build(x, items, degree=12, width=40)
    for i in range(300):  # pruning again only drops
        mine, theirs = one.links[i, : one.counts[i]], plain.links[i, : plain.counts[i]]
        assert set(mine.tolist()) <= set(theirs.tolist())


def reached(links, counts, starts, mask=None):
    seen, front = set(starts), list(starts)
    while front:
        node = front.pop()
        for other in links[node, : counts[node]].tolist():
            if other not in seen and (mask is None or mask[other]):
                seen.add(other)
                front.append(other)
    return seen


@pytest.mark.parametrize("method", [FilteredVamana, StitchedVamana])
def test_every_label_is_reachable_within_itself(method):
    items = Attributes(tagged(600))
    index = method.build(cloud(600), items, "tags", degree=24, width=50)
    assert (index.counts <= 24).all()
    for tag in range(6):
        mask = items.mask(Contains("tags", tag))
        code = index.labels.code(tag)
        assert mask[index.starts[code]]
        found = reached(index.links, index.counts, [int(index.starts[code])], mask)
        assert len(found) >= 0.98 * mask.sum()
