"""The inverted file over nested codes: recall, probing, filters, churn, training, settings."""

import numpy as np
import pytest

from isometry.errors import CorruptStore, InputError
from isometry.indexes import IVF, CodeScan, Exact, check_recall
from isometry.types import Embeddings, Space, id_array

SPACE = Space("s", 64)


def emb(n, space=SPACE, seed=0, prefix="d", scale=0.0):
    """Clustered vectors, so that neighbours mean something; norms vary by ``scale``."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((40, space.dim))
    x = centres[rng.integers(40, size=n)] + 0.7 * rng.standard_normal((n, space.dim))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    x *= np.exp(scale * rng.standard_normal((n, 1)))
    return Embeddings(x.astype(np.float32), id_array(f"{prefix}{i}" for i in range(n)), space)


def filled(e, **settings):
    index = IVF(e.space, **settings)
    index.add(e)
    return index


def rows(hits):
    return [hits.row(i) for i in range(len(hits))]


SPACES = [
    (Space("s", 96), 0.0),
    (Space("s", 96, normalized=False), 0.5),
    (Space("s", 96, similarity="euclidean", normalized=False), 0.2),
    (Space("s", 96, similarity="dot"), 0.0),
    (Space("s", 96, similarity="dot", normalized=False), 0.2),
]
names = {"ids": lambda v: f"{v.similarity}-{v.normalized}" if isinstance(v, Space) else ""}


@pytest.mark.parametrize(("space", "scale"), SPACES, **names)
def test_recall_and_scores(space, scale):
    e, queries = emb(3000, space, scale=scale), emb(60, space, 1, scale=scale)
    index, exact = filled(e), Exact.of(e)
    assert index.probed < len(index._centroids)
    assert check_recall(index, exact, queries, 10).mean("recall@10") > 0.95
    hits, truth = index.search(queries, 5), exact.search(queries, 3000)
    for i in range(10):
        known = dict(truth.row(i))
        for identity, score in hits.row(i):
            assert score == pytest.approx(known[identity], abs=0.01 * max(1, np.exp(2 * scale)))


def test_recall_rises_with_probes():
    e, queries, recalls = emb(4000), emb(80, seed=1), []
    index = filled(e, lists=200)
    for index.probes in (1, 4, 16, 64, 200):
        recalls.append(check_recall(index, Exact.of(e), queries, 10).mean("recall@10"))
    assert recalls == sorted(recalls)
    assert recalls[0] < 0.7
    assert recalls[-1] > 0.99


@pytest.mark.parametrize(("space", "scale"), SPACES, **names)
def test_every_list_probed_is_a_scan_of_everything(space, scale):
    e, queries = emb(1200, space, scale=scale), emb(20, space, 1, scale=scale)
    index, scan = filled(e, lists=50, probes=50, oversample=20), CodeScan(space, oversample=(1200, 20))
    scan.add(e)
    every = np.ones(1200, bool)
    for mask in (None, every, np.arange(1200) % 3 == 0):
        expected = rows(index.exhaustive(queries, 10, mask))
        assert rows(index.search(queries, 10, mask)) == expected
        assert rows(scan.search(queries, 10, mask)) == expected


def test_rows_are_listed_under_their_nearest_centroid():
    e = emb(2000)
    index = filled(e, lists=60)
    lists = index._inverted()
    assert sorted(lists.rows.tolist()) == list(range(2000))
    distance = ((e.vectors[:, None] - index._centroids) ** 2).sum(axis=2)
    listed = np.empty(2000, np.int64)
    for number in range(60):
        listed[lists.rows[lists.offsets[number] : lists.offsets[number + 1]]] = number
    mine = distance[np.arange(2000), listed]
    np.testing.assert_allclose(mine, distance.min(axis=1), atol=0.02)  # codes, not vectors, decide between two as near
    assert mine.mean() < 0.9 * distance.mean(axis=1).min()


@pytest.mark.parametrize("share", [0.0005, 0.004, 0.05, 0.3, 0.9])
@pytest.mark.parametrize("grain", ["random", "with", "against"])
def test_filters_of_every_share_and_grain(share, grain):
    e, queries = emb(5000), emb(30, seed=1)
    index, exact = filled(e), Exact.of(e)
    near = e.vectors @ emb(1, seed=7).vectors[0]
    key = {"random": np.random.default_rng(0).random(5000), "with": -near, "against": near}[grain]
    mask = key <= np.sort(key)[int(share * 5000) - 1]
    matches = min(10, int(mask.sum()))
    found, best = index.search(queries, 10, mask), exact.search(queries, 10, mask)
    assert np.diff(found.offsets).tolist() == [matches] * 30
    assert set(found.ids) <= set(index.ids[mask])
    same = [len(set(found.ids[found.span(i)]) & set(best.ids[best.span(i)])) for i in range(30)]
    assert np.mean(same) > 0.9 * matches


def test_one_probe_goes_on_until_enough_is_found():
    e = emb(600)
    index = filled(e, lists=150, probes=1)
    for k in (1, 40, 600):
        assert np.diff(index.search(emb(5, seed=1), k).offsets).tolist() == [k] * 5
    only = np.zeros(600, bool)
    only[[3, 77, 300]] = True
    assert {tuple(sorted(i for i, _ in row)) for row in rows(index.search(e, 9, only))} == {("d3", "d300", "d77")}


def test_churn_keeps_recall_and_lists():
    rng = np.random.default_rng(0)
    e, queries = emb(3000), emb(50, seed=1)
    index, held = filled(e.take(np.arange(1500))), set(range(1500))
    for _ in range(6):
        out = rng.choice(sorted(held), 200, replace=False)
        index.remove([f"d{i}" for i in out])
        new = rng.choice(sorted(set(range(3000)) - held), 150, replace=False)
        index.add(e.take(new))
        held = (held - set(out.tolist())) | set(new.tolist())
    now = e.take([int(i[1:]) for i in index.ids])
    assert set(index.ids) == {f"d{i}" for i in held}
    assert sorted(index._inverted().rows.tolist()) == list(range(len(held)))
    assert check_recall(index, Exact.of(now), queries, 10).mean("recall@10") > 0.95


def test_a_replaced_row_moves_to_its_new_list():
    e = emb(1000)
    index = filled(e, lists=40, probes=1)
    moved = Embeddings(-e.vectors[:200], e.ids[:200], SPACE)
    index.add(moved)
    assert len(index) == 1000
    assert (index._nearest(np.arange(1000)) == index._home).all()
    found = [row[0][0] for row in rows(index.search(moved, 1))]  # one list: a row on a border may be missed
    assert np.mean(np.asarray(found, object) == moved.ids) > 0.97


def test_four_times_as_many_rows_train_again():
    e = emb(1700)
    index = filled(e.take(np.arange(400)))
    first = index._centroids
    assert len(first) == 80
    index.add(e.take(np.arange(400, 1599)))
    assert index._centroids is first
    index.add(e.take(np.arange(1599, 1700)))
    assert len(index._centroids) == round(4 * 1700**0.5)
    assert index._trained == 1700
    assert check_recall(index, Exact.of(e), emb(40, seed=1), 10).mean("recall@10") > 0.95


def test_an_emptied_index_learns_what_comes_next():
    e = emb(500)
    index = filled(e)
    old = index._centroids
    index.remove(e.ids.tolist())
    other = Embeddings(-e.vectors, e.ids, SPACE)
    index.add(other)
    assert not np.allclose(index._centroids, old)
    assert check_recall(index, Exact.of(other), other, 10).mean("recall@10") > 0.95


def test_one_seed_one_index():
    e, queries = emb(1500), emb(30, seed=1)
    first, again, other = (filled(e, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first._centroids, again._centroids)
    assert rows(first.search(queries, 10)) == rows(again.search(queries, 10))
    assert not np.array_equal(first._home, other._home)


def test_equal_vectors_need_no_more_lists_than_one():
    one = emb(1).vectors
    e = Embeddings(np.tile(one, (300, 1)), id_array(str(i) for i in range(300)), SPACE)
    index = filled(e)
    assert len(index.search(Embeddings(one, id_array("q"), SPACE), 300).ids) == 300


def test_memory_is_about_a_third():
    e = emb(4000, Space("s", 384))
    index = filled(e)
    index.search(e.take([0]), 3)
    assert index.nbytes < 0.36 * e.vectors.nbytes


def test_settings_and_lists_come_back(tmp_path):
    e, queries = emb(800), emb(20, seed=1)
    index = filled(e, lists=30, probes=4, seed=3, oversample=5)
    index.save(tmp_path)
    again = IVF.load(tmp_path)
    assert (again.lists, again.probes, again.seed, again.oversample) == (30, 4, 3, 5)
    assert rows(again.search(queries, 10)) == rows(index.search(queries, 10))
    index, more = filled(e), emb(100, seed=5, prefix="more")
    index.save(tmp_path)
    again = IVF.load(tmp_path)
    for each in (index, again):
        each.add(more)
    assert again.probed == index.probed
    assert rows(again.search(queries, 10)) == rows(index.search(queries, 10))


def test_lists_of_other_rows_are_refused(tmp_path):
    index = filled(emb(50))
    index._home = index._home[:-1]
    index.save(tmp_path)
    with pytest.raises(CorruptStore, match="49 rows, not 50"):
        IVF.load(tmp_path)


@pytest.mark.parametrize("bad", [{"lists": 0}, {"lists": 2.5}, {"probes": 0}, {"probes": -1}, {"oversample": 0}])
def test_bad_settings(bad):
    with pytest.raises(InputError, match="IVF needs lists >= 1"):
        IVF(SPACE, **bad)


def test_fewer_vectors_than_lists_are_refused_only_where_lists_are_asked_for():
    index = IVF(SPACE, lists=100)
    with pytest.raises(InputError, match="100 lists need as many vectors to begin with, got 99"):
        index.add(emb(99))
    assert len(index) == 0
    index.add(emb(0))
    index.add(emb(100))
    assert len(index._centroids) == 100
    index.remove([f"d{i}" for i in range(95)])
    index.add(emb(3, seed=4, prefix="new"))
    assert len(index.search(emb(1, seed=1), 10).ids) == 8
    assert len(filled(emb(5))._centroids) == 5


def test_more_probes_than_lists_probe_all():
    index = filled(emb(100), lists=7, probes=50)
    assert index.probed == 7
    assert rows(index.search(emb(4, seed=1), 5)) == rows(index.exhaustive(emb(4, seed=1), 5))
