"""The two indexes over nested codes: recall at every similarity, memory, filters, churn, reachability."""

import numpy as np
import pytest

from isometry.codes import RotatedCode
from isometry.errors import InputError
from isometry.indexes import IVF, Coded, CodeGraph, CodeScan, Exact, check_recall, code_graph
from isometry.types import Embeddings, Space, id_array


@pytest.fixture(autouse=True)
def walk_the_graph(monkeypatch):
    monkeypatch.setattr(code_graph, "STEP_ROWS", {"all": 0, "filtered": 0})


def emb(n, space, seed=0, prefix="d", scale=0.0):
    """Clustered vectors, so that neighbours mean something; norms vary by ``scale``."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((40, space.dim))
    x = centres[rng.integers(40, size=n)] + 0.7 * rng.standard_normal((n, space.dim))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    x *= np.exp(scale * rng.standard_normal((n, 1)))
    return Embeddings(x.astype(np.float32), id_array(f"{prefix}{i}" for i in range(n)), space)


SPACES = [
    (Space("s", 96), 0.0),
    (Space("s", 96, normalized=False), 0.5),
    (Space("s", 96, similarity="euclidean", normalized=False), 0.2),
    (Space("s", 96, similarity="dot"), 0.0),
]


@pytest.mark.parametrize("cls", [CodeScan, CodeGraph])
@pytest.mark.parametrize(("space", "scale"), SPACES, ids=lambda v: getattr(v, "similarity", ""))
def test_recall_and_scores(cls, space, scale):
    index, e, queries = cls(space), emb(3000, space, scale=scale), emb(60, space, 1, scale=scale)
    index.add(e)
    assert check_recall(index, Exact.of(e), queries, 10).mean("recall@10") > 0.97
    hits, exact = index.search(queries, 5), Exact.of(e)
    truth = exact.search(queries, 3000)
    for i in range(10):
        known = dict(truth.row(i))
        for identity, score in hits.row(i):
            assert score == pytest.approx(known[identity], abs=0.01 * max(1, np.exp(2 * scale)))


def test_scan_of_dot_products_of_any_length():
    space = Space("s", 96, similarity="dot", normalized=False)
    index, e = CodeScan(space, oversample=(64, 4)), emb(2000, space, scale=0.3)
    index.add(e)
    assert check_recall(index, Exact.of(e), emb(40, space, 1), 10).mean("recall@10") > 0.9
    with pytest.raises(InputError, match="normalise"):
        CodeGraph(space)


def test_memory_is_about_a_third():
    space = Space("s", 384)
    e = emb(4000, space)
    for index, most in ((CodeScan(space), 0.36), (CodeGraph(space), 0.40)):
        index.add(e)
        index.search(e.take([0]), 3)
        assert index.nbytes < most * e.vectors.nbytes


@pytest.mark.parametrize("seed", [0, 1])
def test_every_row_can_be_reached_even_among_duplicates(seed):
    space = Space("s", 32)
    x = emb(800, space, seed).vectors
    x[200:500] = x[200]  # three hundred equal rows
    e = Embeddings(x, id_array(str(i) for i in range(800)), space)
    index = CodeGraph(space, degree=8, seed=seed)
    index.add(e)
    assert index.unreachable == 0
    assert index._graph.degree.max() <= 8
    found = index.search(e, 1)
    assert (found.scores > 0.999).mean() > 0.99


def test_a_wider_walk_finds_more():
    space = Space("s", 64)
    e, queries = emb(4000, space), emb(80, space, 1)
    index, recalls = CodeGraph(space, degree=8, expansion_add=24), []
    index.add(e)
    for index.expansion_search in (10, 40, 160):
        recalls.append(check_recall(index, Exact.of(e), queries, 10).mean("recall@10"))
    assert recalls == sorted(recalls)
    assert recalls[-1] > 0.98


def test_churn_keeps_recall():
    space, rng = Space("s", 64), np.random.default_rng(0)
    e, queries = emb(3000, space), emb(50, space, 1)
    index = CodeGraph(space)
    index.add(e.take(np.arange(1500)))
    held = set(range(1500))
    for turn in range(6):
        out = rng.choice(sorted(held), 200, replace=False)
        index.remove([f"d{i}" for i in out])
        new = rng.choice(sorted(set(range(3000)) - held), 150, replace=False)
        index.add(e.take(new))
        held = (held - set(out.tolist())) | set(new.tolist())
        assert index.unreachable == 0, turn
    now = e.take([int(i[1:]) for i in index.ids])
    assert set(index.ids) == {f"d{i}" for i in held}
    assert check_recall(index, Exact.of(now), queries, 10).mean("recall@10") > 0.97


@pytest.mark.parametrize("cls", [CodeScan, CodeGraph])
@pytest.mark.parametrize("share", [0.004, 0.05, 0.3, 0.9])
@pytest.mark.parametrize("grain", ["random", "with", "against"])
def test_filters_of_every_share_and_grain(cls, share, grain):
    space = Space("s", 64)
    e, queries = emb(5000, space), emb(30, space, 1)
    index, exact = cls(space), Exact.of(e)
    index.add(e)
    near = e.vectors @ emb(1, space, 7).vectors[0]
    key = {"random": np.random.default_rng(0).random(5000), "with": -near, "against": near}[grain]
    mask = key <= np.sort(key)[int(share * 5000) - 1]
    found, best = index.search(queries, 10, mask), exact.search(queries, 10, mask)
    assert np.diff(found.offsets).tolist() == [10] * 30
    assert set(found.ids) <= set(index.ids[mask])
    same = [len(set(found.ids[found.span(i)]) & set(best.ids[best.span(i)])) for i in range(30)]
    assert np.mean(same) > 9


def test_one_seed_one_graph_and_threads_change_nothing():
    space = Space("s", 64)
    e, queries = emb(1500, space), emb(40, space, 1)
    graphs = [CodeGraph(space, seed=s, threads=t) for s, t in ((0, 1), (0, 2), (1, 1))]
    for graph in graphs:
        graph.add(e)
    answers = [g.search(queries, 10) for g in graphs]
    assert [answers[0].row(i) for i in range(40)] == [answers[1].row(i) for i in range(40)]
    np.testing.assert_array_equal(graphs[0]._graph.links, graphs[1]._graph.links)
    assert not np.array_equal(graphs[0]._graph.links, graphs[2]._graph.links)


def test_bad_settings():
    space = Space("s", 8)
    for bad in ({"degree": 1}, {"alpha": 0.9}, {"expansion_search": 0}, {"threads": 0}):
        with pytest.raises(InputError, match="CodeGraph needs"):
            CodeGraph(space, **bad)
    for wrong in ((3, 5), (4, 0)):
        with pytest.raises(InputError, match="oversample"):
            CodeScan(space, oversample=wrong)
    with pytest.raises(InputError, match="oversample"):
        CodeScan(space, oversample=4)


@pytest.mark.parametrize("similarity", ["dot", "euclidean"])
@pytest.mark.parametrize("make", [CodeScan, IVF, lambda space: Coded(space, RotatedCode(8).fit(np.eye(16)))])
def test_overflow_is_refused_and_leaves_the_index_as_it_was(make, similarity):
    space = Space("s", 16, similarity=similarity)
    index, held = make(space), emb(30, space)
    index.add(held)
    huge = Embeddings(held.vectors * 1e20, held.ids, space)
    for attempt in (lambda: index.add(huge), lambda: index.search(huge, 3)):
        with pytest.raises(InputError, match="scale them down"):
            attempt()
    assert index.search(held, 1).ids.tolist() == held.ids.tolist()
    with pytest.raises(InputError, match="scale them up"):
        CodeScan(space).add(Embeddings(held.vectors * 1e-30, held.ids, space))


@pytest.mark.parametrize("cls", [CodeScan, CodeGraph, IVF])
@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_directions_have_no_length(cls, scale):
    space = Space("s", 16, normalized=False)
    held, index = emb(30, space), cls(space)
    index.add(Embeddings(held.vectors * scale, held.ids, space))
    assert index.search(held, 1).ids.tolist() == held.ids.tolist()
