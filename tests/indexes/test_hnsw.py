import json

import numpy as np
import pytest

from isometry.errors import InputError, UnknownName
from isometry.indexes import HNSW, Exact, check_recall, hnsw
from isometry.types import Embeddings, Space, id_array


@pytest.fixture(autouse=True)
def walk_the_graph(monkeypatch):
    monkeypatch.setattr(hnsw, "STEP_ROWS", {1: 0})


def emb(n, space, seed=0, prefix="d"):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, space.dim)) * (1 + np.arange(space.dim)) ** -0.5
    if space.normalized:
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    return Embeddings(x, id_array(f"{prefix}{i}" for i in range(n)), space)


@pytest.mark.parametrize(("similarity", "normalized"), [("cosine", True), ("cosine", False), ("euclidean", False)])
@pytest.mark.parametrize("rescore", [True, "float16", False])
def test_every_similarity_and_its_scores(similarity, normalized, rescore):
    space = Space("s", 24, similarity=similarity, normalized=normalized)
    index, e, queries = HNSW(space, rescore=rescore, threads=1), emb(2000, space), emb(50, space, 1)
    index.add(e)
    best = Exact.of(e).search(queries, 10)
    assert check_recall(index, Exact.of(e), queries, 10).mean("recall@10") > (0.97 if rescore is True else 0.9)
    found = index.search(queries, 10)
    truth = Exact.of(e).search(queries, 2000)
    for i in range(50):
        true = dict(truth.row(i))
        for identity, score in found.row(i):
            assert score == pytest.approx(
                true[identity], rel=1e-6 if rescore is True else 0.02, abs=0.02 * (rescore is not True)
            )
    assert (found.scores[::10] <= best.scores[::10] + 0.02).all()


def test_dot_product_with_norms():
    space = Space("s", 24, similarity="dot", normalized=False)
    index, e = HNSW(space, threads=1), emb(1000, space)
    index.add(e)
    assert check_recall(index, Exact.of(e), emb(30, space, 1), 10).mean("recall@10") > 0.9


def test_one_thread_and_a_seed_give_one_graph(tmp_path):
    space = Space("s", 16)
    graphs = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        index = HNSW(space, threads=1, seed=seed, connectivity=4, expansion_add=8, expansion_search=4)
        index.add(emb(500, space))
        index.save(tmp_path / name)
        (file,) = (tmp_path / name).glob("graph.*.usearch")
        graphs[name] = file.read_bytes()
    assert graphs["a"] == graphs["b"] != graphs["c"]


def test_settings_survive_saving(tmp_path):
    """usearch's file holds neither search width: without ours a loaded graph would search with other ones."""
    space = Space("s", 32)
    index = HNSW(space, expansion_search=7, expansion_add=33, connectivity=5, dtype="f32", rescore=False, threads=1)
    index.add(emb(3000, space))
    index.save(tmp_path)
    loaded = HNSW.load(tmp_path)
    assert (loaded._graph.expansion_search, loaded._graph.expansion_add, loaded._graph.connectivity) == (7, 33, 5)
    assert (loaded.dtype, loaded.rescore, loaded.threads) == ("f32", False, 1)
    queries = emb(50, space, 1)
    assert loaded.search(queries, 3).ids.tolist() == index.search(queries, 3).ids.tolist()


def test_a_wider_search_finds_more():
    space, recalls = Space("s", 32), []
    e, queries = emb(4000, space), emb(60, space, 1)
    for width in (1, 200):
        index = HNSW(space, expansion_search=width, connectivity=6, expansion_add=40, rescore=False, threads=1)
        index.add(e)
        recalls.append(check_recall(index, Exact.of(e), queries, 10).mean("recall@10"))
    assert recalls[0] < recalls[1]
    assert recalls[1] > 0.95


def test_what_the_graph_cannot_reach_is_found_exactly(monkeypatch):
    space = Space("s", 8)
    index, e = HNSW(space, threads=1), emb(100, space)
    index.add(e)
    lost = Exact.of(e).search(e, 10)
    empty = HNSW(space, threads=1)
    empty.add(emb(3, space, 5, "x"))
    monkeypatch.setattr(index, "_graph", empty._graph)  # a graph of three of the hundred rows
    found = index.search(e, 10)
    assert np.diff(found.offsets).tolist() == [10] * 100
    assert found.ids.tolist() == lost.ids.tolist()


def test_the_planner_prefers_a_scan_of_few_rows(monkeypatch):
    monkeypatch.undo()
    space = Space("s", 16)
    index, e = HNSW(space, threads=1), emb(6000, space)
    index.add(e)
    walked = []
    real = index._ask
    monkeypatch.setattr(index, "_ask", lambda *a: walked.append(a[1]) or real(*a))
    few = np.arange(6000) % 100 == 0
    one = emb(1, space, 1)
    assert index.search(one, 10, few).row(0) == Exact.of(e).search(one, 10, few).row(0)
    assert not walked
    index.search(one, 10)
    index.search(one, 10, ~few)
    assert len(walked) == 2


def test_churn_keeps_recall():
    space = Space("s", 16)
    index, e = HNSW(space, threads=1), emb(1500, space)
    index.add(e)
    for start in range(0, 1000, 250):
        part = e.take(range(start, start + 250))
        index.remove(part.ids.tolist())
        index.add(Embeddings(emb(250, space, start + 1).vectors, part.ids, space))
    now = Exact(space)
    now.add(e)
    for start in range(0, 1000, 250):
        now.add(Embeddings(emb(250, space, start + 1).vectors, e.ids[start : start + 250], space))
    assert check_recall(index, now, emb(50, space, 77), 10).mean("recall@10") > 0.95


def test_bad_settings():
    space = Space("s", 4)
    for bad in ({"connectivity": 1}, {"expansion_add": 0}, {"expansion_search": 0}, {"threads": -1}):
        with pytest.raises(InputError, match="HNSW needs"):
            HNSW(space, **bad)
    with pytest.raises(UnknownName, match="dtype"):
        HNSW(space, dtype="f64")
    with pytest.raises(UnknownName, match="dtype"):
        HNSW(space, rescore="f16")
    with pytest.raises(InputError, match="directions"):
        HNSW(Space("s", 4, similarity="dot"), dtype="i8")


def test_the_manifest_names_the_settings(tmp_path):
    space = Space("s", 4)
    index = HNSW(space)
    index.add(emb(3, space))
    index.save(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())["manifest"]
    assert manifest["facts"]["settings"]["dtype"] == "bf16"
