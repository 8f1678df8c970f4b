import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from isometry.errors import DimensionMismatch, InputError, UnknownName
from isometry.indexes import Exact, exact, scan
from isometry.types import Embeddings, Space, id_array

KINDS = [("cosine", True), ("cosine", False), ("dot", False), ("euclidean", False)]


def brute_force(x, q, ids, k, similarity, normalized):
    """Float64 scores rounded once to float32, sorted by falling score and rising id."""
    x, q = x.astype(np.float64), q.astype(np.float64)
    if similarity == "cosine" and not normalized:
        x, q = (np.divide(v, n := np.linalg.norm(v, axis=1, keepdims=True), out=0 * v, where=n > 0) for v in (x, q))
    rows = []
    for one in q:
        scores = -np.linalg.norm(x - one, axis=1) if similarity == "euclidean" else x @ one
        ranked = sorted(zip(ids, scores.astype(np.float32).tolist(), strict=True), key=lambda p: (-p[1], p[0]))
        rows.append(ranked[:k])
    return rows


def embeddings(x, space, prefix=""):
    return Embeddings(x, id_array(f"{prefix}{i}" for i in range(len(x))), space)


def same(hits, rows):
    for i, row in enumerate(rows):
        got = hits.row(i)
        assert [s for _, s in got] == pytest.approx([s for _, s in row], rel=2e-7, abs=1e-7)
        # numpy's products of one and of many rows round the last float64 bit differently, so near-equal float32
        # scores may swap; ids must agree wherever the scores are told apart
        for (a, s), (b, _) in zip(got, row, strict=True):
            if a != b:
                near = [t for c, t in row if abs(t - s) <= 2e-7 * max(1, abs(s))]
                assert len(near) > 1 or abs(row[-1][1] - s) <= 2e-7 * max(1, abs(s))


# Values on a coarse grid: sums are exact in float64, so that ties are ties and ids must agree everywhere.
grid = st.integers(-8, 8).map(lambda v: v / 4)


@st.composite
def problems(draw):
    n, d, q = draw(st.integers(1, 40)), draw(st.integers(1, 9)), draw(st.integers(1, 5))
    return draw(arrays(np.float32, (n, d), elements=grid)), draw(arrays(np.float32, (q, d), elements=grid))


@settings(max_examples=80, deadline=None)
@given(problems(), st.integers(1, 50), st.sampled_from(["dot", "euclidean"]), st.sampled_from(["float32", "float16"]))
def test_equals_brute_force_ties_included(problem, k, similarity, dtype):
    x, q = problem
    space = Space("grid", x.shape[1], similarity=similarity, normalized=False)
    index = Exact(space, dtype=dtype)
    index.add(embeddings(x, space))
    hits = index.search(embeddings(q, space), k)
    expected = brute_force(x, q, index.ids.tolist(), k, similarity, False)
    assert [hits.row(i) for i in range(len(q))] == expected


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_equals_brute_force_on_any_floats(data):
    similarity, normalized = data.draw(st.sampled_from(KINDS))
    n, d = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 6))
    floats = st.floats(-1e6, 1e6, width=32).map(lambda v: v if abs(v) > 1e-6 else 0.0)
    x, q = (
        data.draw(arrays(np.float32, (n, d), elements=floats)),
        data.draw(arrays(np.float32, (2, d), elements=floats)),
    )
    space = Space("any", d, similarity=similarity, normalized=normalized)
    hits = Exact.of(embeddings(x, space)).search(embeddings(q, space), 5)
    for i, row in enumerate(brute_force(x, q, [str(j) for j in range(n)], 5, similarity, normalized)):
        scale = np.linalg.norm(q[i].astype(float)) * (np.linalg.norm(x.astype(float), axis=1).max() + 1) + 1
        np.testing.assert_allclose([s for _, s in hits.row(i)], [s for _, s in row], rtol=2e-7, atol=1e-12 * scale)


@pytest.mark.parametrize(("similarity", "normalized"), KINDS)
@pytest.mark.parametrize("compiled", [0, 1 << 62])
@pytest.mark.parametrize("cells", [1 << 7, 1 << 21])
def test_blocks_batches_and_kernels_make_no_difference(similarity, normalized, compiled, cells, monkeypatch):
    monkeypatch.setattr(exact, "COMPILED", compiled)
    monkeypatch.setattr(exact, "CELLS", cells)
    monkeypatch.setattr(exact, "QUERIES", 7)
    rng = np.random.default_rng(0)
    x, q = rng.standard_normal((400, 24)).astype(np.float32), rng.standard_normal((20, 24)).astype(np.float32)
    x[200:300] = x[:100]
    if normalized:
        x, q = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, q))
    space = Space("s", 24, similarity=similarity, normalized=normalized)
    index, queries = Exact.of(embeddings(x, space)), embeddings(q, space)
    hits = index.search(queries, 30)
    same(hits, brute_force(x, q, index.ids.tolist(), 30, similarity, normalized))
    alone = [index.search(queries.take([i]), 30).row(0) for i in range(20)]
    assert alone == [hits.row(i) for i in range(20)]
    mask = rng.random(400) < 0.3
    some = index.search(queries, 30, mask)
    same(some, brute_force(x[mask], q, index.ids[mask].tolist(), 30, similarity, normalized))


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_crowds_of_equal_vectors_are_settled_on_the_way(dtype, monkeypatch):
    monkeypatch.setattr(scan, "CROWD", 50)
    monkeypatch.setattr(exact, "CELLS", 256)
    space = Space("s", 8, similarity="dot", normalized=False)
    index = Exact(space, dtype=dtype)
    index.add(embeddings(np.ones((3000, 8)), space))
    hits = index.search(embeddings(np.ones((2, 8)), space), 20)
    assert hits.ids.tolist() == sorted(index.ids)[:20] * 2
    assert hits.scores.tolist() == pytest.approx([8] * 40)


@pytest.mark.parametrize("size", [1e-30, 1e17, 1e30])
@pytest.mark.parametrize("similarity", ["dot", "euclidean", "cosine"])
def test_tiny_and_huge_numbers(size, similarity):
    rng = np.random.default_rng(0)
    x, q = rng.standard_normal((2, 50, 6))
    space = Space("s", 6, similarity=similarity, normalized=False)
    index = Exact.of(embeddings((x * size).astype(np.float32), space))
    hits = index.search(embeddings(q.astype(np.float32), space), 50)
    assert np.isfinite(hits.scores).all()
    if similarity != "euclidean":
        plain = Exact.of(embeddings(x, space)).search(embeddings(q, space), 50)
        assert (hits.ids == plain.ids).mean() > 0.95


def test_far_from_the_origin_distances_keep_their_order():
    """Where |q|^2 - 2 q.v + |v|^2 cancels in single precision, the rescoring must save the order."""
    rng = np.random.default_rng(0)
    x = (1000 + 0.01 * rng.standard_normal((500, 8))).astype(np.float32)
    space = Space("s", 8, similarity="euclidean", normalized=False)
    hits = Exact.of(embeddings(x, space)).search(embeddings(x[:20], space), 10)
    same(hits, brute_force(x, x[:20], [str(i) for i in range(500)], 10, "euclidean", False))


@settings(max_examples=40, deadline=None)
@given(problems())
def test_int8_stays_within_its_stated_error(problem):
    x, q = problem
    space = Space("s", x.shape[1], similarity="dot", normalized=False)
    index = Exact(space, dtype="int8")
    index.add(embeddings(x, space))
    hits = index.search(embeddings(q, space), len(x))
    step = np.abs(x).max(axis=1) / 127
    for i in range(len(q)):
        for identity, score in hits.row(i):
            bound = np.abs(q[i]).sum() * step[int(identity)] / 2
            assert abs(score - x[int(identity)] @ q[i]) <= bound * (1 + 1e-5) + 1e-5


def test_int8_ranked_by_its_source_gives_exact_scores():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2000, 32)).astype(np.float32)
    space = Space("s", 32, normalized=False)
    full, queries = Exact.of(embeddings(x, space)), embeddings(rng.standard_normal((20, 32)), space)
    asked = []

    def source(ids):
        asked.append(len(ids))
        return x[[int(i) for i in ids]]

    index = Exact(space, dtype="int8", source=source)
    index.add(embeddings(x, space))
    got, best = index.search(queries, 10), full.search(queries, 10)
    assert got.ids.tolist() == best.ids.tolist()
    np.testing.assert_array_equal(got.scores, best.scores)
    assert sum(asked) <= 20 * 40
    short = Exact(space, dtype="int8", source=lambda ids: x[:1])
    short.add(embeddings(x, space))
    with pytest.raises(InputError, match="one vector per id"):
        short.search(queries, 10)


def test_of_does_not_copy_and_keeps_the_last_of_equal_ids():
    space = Space("s", 4, normalized=False, similarity="dot")
    e = embeddings(np.eye(4), space)
    assert np.shares_memory(Exact.of(e)._rows.codes, e.vectors)
    twice = Embeddings(np.eye(4), id_array("abab"), space)
    index = Exact.of(twice)
    assert index.ids.tolist() == ["a", "b"]
    np.testing.assert_array_equal(index.vectors(["b", "a"]), np.eye(4)[[3, 2]])


def test_zero_vectors_score_zero_under_cosine():
    space = Space("s", 3, normalized=False)
    index = Exact.of(embeddings(np.array([[0, 0, 0], [2, 0, 0], [-1, 0, 0]]), space))
    assert index.search(embeddings(np.array([[5.0, 0, 0]]), space), 3).row(0) == [("1", 1.0), ("0", 0.0), ("2", -1.0)]
    assert index.search(embeddings(np.zeros((1, 3)), space), 3).ids.tolist() == ["0", "1", "2"]


def test_many_small_changes_equal_one_build():
    rng = np.random.default_rng(0)
    space = Space("s", 5, normalized=False)
    index, truth = Exact(space), {}
    for step in range(60):
        names = [str(i) for i in rng.integers(0, 80, size=rng.integers(0, 9))]
        x = rng.standard_normal((len(names), 5)).astype(np.float32)
        index.add(Embeddings(x, id_array(names), space))
        truth.update(zip(names, x, strict=True))
        gone = [str(i) for i in rng.integers(0, 80, size=2)]
        assert index.remove(gone) == len({g for g in gone if truth.pop(g, None) is not None}), step
    assert set(index.ids) == set(truth)
    fresh = Exact.of(Embeddings(np.stack([truth[i] for i in sorted(truth)]), id_array(sorted(truth)), space))
    queries = embeddings(rng.standard_normal((10, 5)), space)
    got, best = index.search(queries, 7), fresh.search(queries, 7)
    assert [got.row(i) for i in range(10)] == [best.row(i) for i in range(10)]


def test_bad_arguments():
    space = Space("s", 2)
    with pytest.raises(UnknownName, match="dtype"):
        Exact(space, dtype="float64")
    with pytest.raises(InputError, match="oversample"):
        Exact(space, oversample=0)
    with pytest.raises(UnknownName, match="nobody"):
        Exact.of(embeddings(np.eye(2), space)).vectors(["nobody"])
    with pytest.raises(DimensionMismatch, match="65504"):
        Exact(space, dtype="float16").add(embeddings(np.full((1, 2), 1e6), space))


def test_the_bound_never_exceeds_the_kth_largest():
    rng = np.random.default_rng(0)
    for rows, k in ((10, 3), (2000, 1), (2000, 50), (5, 9), (640, 640)):
        s = rng.standard_normal((rows, 4)).astype(np.float32)
        bound = scan.kth_largest_bound(s, k)
        truth = np.sort(s, axis=0)[-k] if k <= rows else np.full(4, -np.inf)
        assert (bound <= truth).all()
        assert np.isfinite(bound).all() == (k <= rows)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 70), st.integers(1, 5), st.floats(0, 1))
def test_rare_is_flatnonzero(rows, width, share):
    mask = np.random.default_rng(rows).random((rows, width)) < share
    np.testing.assert_array_equal(scan.rare(mask), np.flatnonzero(mask))
