"""`check` of every index that may miss neighbours, and the order in which graphs take vectors."""

import numpy as np
import pytest

from isometry.codes import BinaryCode, RotatedCode
from isometry.diagnostics.insertion_order import insertion_order
from isometry.errors import EmptyInput, InputError, SpaceMismatch
from isometry.indexes import HNSW, IVF, Coded, CodeGraph, CodeScan, Exact, check_recall, code_graph, hnsw
from isometry.types import Embeddings, Space, id_array

SPACE = Space("s", 32)


@pytest.fixture(autouse=True)
def walk_the_graph(monkeypatch):
    monkeypatch.setattr(hnsw, "STEP_ROWS", {1: 0})
    monkeypatch.setattr(code_graph, "STEP_ROWS", {"all": 0, "filtered": 0})


def emb(n, seed=0, prefix="d", space=SPACE):
    x = np.random.default_rng(seed).standard_normal((n, space.dim))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return Embeddings(x.astype(np.float32), id_array(f"{prefix}{i}" for i in range(n)), space)


def fitted(code, space=SPACE, **settings):
    return Coded(space, code.fit(emb(600, 5).vectors), **settings)


E = emb(1500)
MADE = {
    "HNSW": lambda: HNSW(SPACE, threads=1, expansion_search=200),
    "CodeScan": lambda: CodeScan(SPACE),
    "CodeGraph": lambda: CodeGraph(SPACE, expansion_search=200),
    "Coded": lambda: fitted(RotatedCode(8)),
    "IVF": lambda: IVF(SPACE),
}
CRIPPLED = {
    "HNSW": lambda: HNSW(SPACE, threads=1, connectivity=2, expansion_add=2, expansion_search=1, rescore=False),
    "CodeScan": lambda: CodeScan(SPACE, oversample=(1, 1)),
    "CodeGraph": lambda: CodeGraph(SPACE, degree=3, expansion_add=3, expansion_search=1),
    "Coded": lambda: fitted(BinaryCode()),
    "IVF": lambda: IVF(SPACE, probes=1),
}


def filled(index, e=E):
    index.add(e)
    return index


@pytest.mark.parametrize("name", MADE)
def test_check_agrees_with_an_exact_index(name):
    index, queries = filled(MADE[name]()), emb(30, 1, "q")
    scores = index.check(queries, E, 7)
    assert scores.by_unit("recall@7") == check_recall(index, Exact.of(E), queries, 7).by_unit("recall@7")
    assert scores.mean("recall@7") > 0.95
    assert scores.system == type(index).__name__


@pytest.mark.parametrize("name", MADE)
def test_a_good_index_passes_and_a_crippled_one_does_not(name):
    good, bad, queries = filled(MADE[name]()), filled(CRIPPLED[name]()), emb(30, 1, "q")
    for vectors in (E, None):
        assert good.check(queries, vectors, 50).mean("recall@50") > 0.95
        if name == "Coded" and vectors is None:  # a flat scan finds all that its codes can tell
            assert bad.check(queries, k=50).mean("recall@50") == 1
        else:
            assert bad.check(queries, vectors, 50).mean("recall@50") < 0.8


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
def test_exhaustive_search_is_as_good_as_what_is_kept(name, similarity):
    space = Space("s", 32, similarity=similarity, normalized=False)
    index = Coded(space, RotatedCode(8).fit(E.vectors)) if name == "Coded" else type(MADE[name]())(space)
    e, queries = Embeddings(2 * E.vectors, E.ids, space), Embeddings(emb(20, 1).vectors, emb(20, 1, "q").ids, space)
    index.add(e)
    mask = np.arange(1500) % 2 == 0
    for where in (None, mask):
        found, best = index.exhaustive(queries, 10, where), Exact.of(e).search(queries, 10, where)
        same = [len(set(found.ids[found.span(i)]) & set(best.ids[best.span(i)])) for i in range(20)]
        assert np.mean(same) > 9.7
        np.testing.assert_allclose(found.scores, best.scores, atol=0.02)
    with pytest.raises(InputError, match="k must be"):
        index.exhaustive(queries, 0)


def test_coded_with_a_source_is_judged_by_the_source():
    lookup = dict(zip(E.ids.tolist(), E.vectors, strict=True))
    index = fitted(BinaryCode(), source=lambda ids: np.stack([lookup[i] for i in ids]), oversample=1)
    index.add(E)
    queries = emb(20, 1, "q")
    assert index.check(queries).by_unit("recall@10") == index.check(queries, E).by_unit("recall@10")
    assert index.check(queries).mean("recall@10") < 0.8


def test_own_rows_vectors_of_more_rows_and_what_is_refused():
    index = filled(CodeScan(SPACE))
    assert index.check(E.take(np.arange(20)), k=1).values.tolist() == [1] * 20
    index.remove([f"d{i}" for i in range(100)])
    queries = emb(10, 1, "q")
    now = E.take(np.arange(100, 1500))
    assert index.check(queries, E).values.tolist() == index.check(queries, now).values.tolist()
    with pytest.raises(InputError, match="different ids"):
        index.check(queries, E.take(np.arange(200)))
    with pytest.raises(EmptyInput, match="0 queries"):
        index.check(emb(0))
    with pytest.raises(EmptyInput, match="0 rows"):
        CodeScan(SPACE).check(queries)
    with pytest.raises(InputError, match="k must be"):
        index.check(queries, k=0)
    other = emb(1500, space=Space("other", 32))
    for bad in ((other, None), (queries, other)):
        with pytest.raises(SpaceMismatch, match="other"):
            index.check(*bad)


GRAPHS = {
    "HNSW": lambda: HNSW(SPACE, threads=1, connectivity=4, expansion_add=16, expansion_search=16),
    "CodeGraph": lambda: CodeGraph(SPACE, degree=12, expansion_add=32, expansion_search=32),
}


def shape(index, tmp_path):
    """What tells two graphs apart."""
    index.save(tmp_path)
    name = {"HNSW": "graph.*.usearch", "CodeGraph": "graph_links.*"}[type(index).__name__]
    return next(tmp_path.glob(name)).read_bytes()


@pytest.mark.parametrize("name", GRAPHS)
def test_the_order_makes_the_graph(name, tmp_path):
    orders = {order: insertion_order(E.vectors, order, k=20) for order in ("lid_descending", "lid_ascending", "time")}
    orders["default"], orders["random"] = None, np.random.default_rng(0).permutation(1500)
    graphs = {}
    for label, order in orders.items():
        index = GRAPHS[name]()
        index.add(E, order)
        assert index.ids.tolist() == E.ids.tolist()
        assert index.check(emb(20, 1, "q"), E).mean("recall@10") > 0.3
        graphs[label] = shape(index, tmp_path / label)
    assert graphs.pop("default") == graphs["random"]  # the order drawn with seed 0
    assert len(set(graphs.values())) == 4
    again = GRAPHS[name]()
    again.add(E, order=orders["lid_descending"].tolist())
    assert shape(again, tmp_path / "again") == graphs["lid_descending"]


@pytest.mark.parametrize("name", GRAPHS)
def test_an_order_of_known_and_repeated_ids(name):
    """Of several vectors of one id the last row counts, wherever the order puts it."""
    index = GRAPHS[name]()
    index.add(E.take(np.arange(200)))
    x = emb(60, 9).vectors
    more = Embeddings(x, id_array([f"d{i}" for i in range(30)] + ["n1", "n1"] + [f"n{i}" for i in range(2, 30)]), SPACE)
    index.add(more, np.arange(60)[::-1])
    assert len(index) == 229
    final = np.r_[np.arange(30), np.arange(31, 60)]
    found = index.search(more.take(final), 1)
    assert (found.ids == more.ids[final]).mean() > 0.95
    index.add(emb(0), [])
    assert len(index) == 229


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize(
    "order", [[0, 1, 1], [0, 1], [1, 2, 3], [0.0, 1.0, 2.0], [[0, 1, 2]], [-1, 0, 1], [True, False, True]]
)
def test_a_wrong_order_is_refused_before_anything_changes(name, order):
    index = GRAPHS[name]()
    index.add(E.take(np.arange(50)))
    with pytest.raises(InputError, match="order must hold each row number of the 3 embeddings once"):
        index.add(E.take(np.arange(100, 103)), order)
    assert len(index) == 50
    assert index.search(E.take([0]), 1).ids.tolist() == ["d0"]
