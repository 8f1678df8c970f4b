"""Every method of filtered search: answers satisfy the filter, are as long as can be, and nearly the exact ones."""

import numpy as np
import pytest

from isometry.errors import DimensionMismatch, InputError
from isometry.indexes.filtered import (
    UNG,
    Acorn,
    Attributes,
    Between,
    Contains,
    Equals,
    Everything,
    FilteredVamana,
    InlineHNSW,
    IVFBitmap,
    Planned,
    PostFilter,
    PreFilter,
    Rows,
    SeRF,
    StitchedVamana,
    Vamana,
    contains_all,
    overlaps,
)

N, D = 1500, 16
ANY = ("prefilter", "postfilter", "inline", "strict", "ivf", "acorn", "acorn1", "vamana", "planned")
OWN = ("filtered-lang", "filtered-tags", "stitched-lang", "stitched-tags", "ung", "serf")


def cloud(n, seed, d=D):
    x = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def records(n, seed=0):
    rng = np.random.default_rng(seed)
    rows = [
        {"lang": f"l{rng.integers(6)}", "year": int(rng.integers(0, 1000)),
         "tags": [f"t{j}" for j in range(8) if rng.random() < 0.5 ** (1 + j / 2)]}
        for _ in range(n)
    ]  # fmt: skip
    for row in rows[:40]:
        row.pop(str(rng.choice(["lang", "year", "tags"])))
    return rows


def build_all(x, items):
    inline = InlineHNSW.build(x, items, m=8, ef_construction=60)
    return {
        "prefilter": PreFilter.build(x, items),
        "postfilter": PostFilter(inline.graph, items),
        "inline": inline,
        "strict": InlineHNSW(inline.graph, items, strict=True),
        "ivf": IVFBitmap.build(x, items),
        "acorn": Acorn.build(x, items, m=8, gamma=8, ef_construction=60),
        "acorn1": Acorn.build(x, items, m=8, gamma=1, ef_construction=60),
        "vamana": Vamana.build(x, items, degree=16, width=60),
        "planned": Planned(inline, crossover=100),
        "filtered-lang": FilteredVamana.build(x, items, "lang", degree=24, width=60),
        "filtered-tags": FilteredVamana.build(x, items, "tags", degree=24, width=60),
        "stitched-lang": StitchedVamana.build(x, items, "lang", degree=24, small=12, width=40),
        "stitched-tags": StitchedVamana.build(x, items, "tags", degree=24, small=12, width=40),
        "ung": UNG.build(x, items, "tags", degree=16, width=60),
        "serf": SeRF.build(x, items, "year", m=8, ef_construction=60),
    }


@pytest.fixture(scope="module")
def items():
    return Attributes(records(N))


@pytest.fixture(scope="module")
def indexes(items):
    return build_all(cloud(N, 0), items)


PREDICATES = [
    Everything(), Equals("lang", "l2"), Equals("lang", "l1") | Equals("lang", "l3"), ~Equals("lang", "l2"),
    Between("year", 0, 999), Between("year", 300, 700), Between("year", 500, 510), Equals("year", 77),
    Contains("tags", "t0"), Contains("tags", "t6"), contains_all("tags", ("t0", "t1", "t2")),
    overlaps("tags", ("t5", "t6")), Equals("lang", "l0") & Between("year", 100, 200),
]  # fmt: skip


@pytest.mark.parametrize("name", [*ANY, *OWN])
def test_answers_match_the_filter_and_are_nearly_exact(indexes, items, name):
    index, oracle, queries, asked = indexes[name], indexes["prefilter"], cloud(15, 1), 0
    for predicate in PREDICATES:
        if not index.supports(predicate):
            with pytest.raises(InputError, match="cannot answer"):
                index.search(queries[0], predicate, 5)
            continue
        asked += 1
        mask, hits, possible = items.mask(predicate), 0, 0
        for q in queries:
            found, exact = index.search(q, predicate, 10, 120), oracle.search(q, predicate, 10)
            assert mask[found.ids].all()
            assert len(found.ids) == len(set(found.ids.tolist())) == min(10, mask.sum())
            assert (np.diff(found.distances) >= 0).all()
            np.testing.assert_allclose(found.distances, 1 - index.vectors[found.ids] @ q, atol=1e-5)
            hits += len(set(found.ids.tolist()) & set(exact.ids.tolist()))
            possible += len(exact.ids)
        assert hits >= 0.85 * possible, (predicate, hits / possible)
    assert asked == len(PREDICATES) if name in ANY else asked >= 2


def test_prefilter_is_the_brute_force_over_the_matches(indexes, items):
    x, q = cloud(N, 0), cloud(1, 3)[0]
    mask = items.mask(Between("year", 300, 700))
    order = np.flatnonzero(mask)[np.argsort(1 - x[mask].astype(np.float64) @ q)][:10]
    found = indexes["prefilter"].search(q, Between("year", 300, 700), 10)
    assert found.ids.tolist() == order.tolist()
    assert found.computed == mask.sum()


@pytest.mark.parametrize("name", [*ANY, "filtered-lang", "ung", "serf"])
def test_a_filter_nothing_matches_gives_an_empty_answer(indexes, name):
    nothing = {"filtered-lang": Equals("lang", "zz"), "ung": Contains("tags", "zz"), "serf": Between("year", 2000)}
    found = indexes[name].search(cloud(1, 1)[0], nothing.get(name, ~Everything()), 5)
    assert found.ids.shape == found.distances.shape == (0,)
    assert found.computed == 0


@pytest.mark.parametrize("name", ["inline", "strict", "postfilter"])
def test_a_filter_all_match_is_the_unfiltered_search_of_the_graph(indexes, name):
    graph, queries = indexes["inline"].graph, cloud(20, 5)
    plain, computed = graph.search(queries, 10, ef=50)
    for i, q in enumerate(queries):
        found = indexes[name].search(q, Everything(), 10, 50)
        assert found.ids.tolist() == plain[i].tolist()
        assert found.computed == computed[i]


@pytest.mark.parametrize("name", [*ANY])
def test_few_matches_are_all_found(indexes, name):
    rng = np.random.default_rng(0)
    for q in cloud(5, 7):
        rows = np.sort(rng.choice(N, 4, replace=False))
        found = indexes[name].search(q, Rows(np.isin(np.arange(N), rows)), 10, 10)
        if name in ("prefilter", "planned"):
            assert sorted(found.ids.tolist()) == rows.tolist()
        assert len(found.ids) == 4


def test_a_beam_that_dies_is_restarted_wider_and_never_padded(items, indexes):
    far = np.argsort(cloud(N, 0) @ cloud(1, 9)[0])[:30]  # the matches lie on the other side of the sphere
    where = Rows(np.isin(np.arange(N), far))
    once = InlineHNSW(indexes["inline"].graph, items, strict=True, once=True)
    dead = once.search(cloud(1, 9)[0], where, 10, 10)
    assert len(dead.ids) < 10
    found = indexes["strict"].search(cloud(1, 9)[0], where, 10, 10)
    assert len(found.ids) == 10
    assert found.restarts > 0
    assert found.computed > dead.computed


def test_the_wider_post_filter_searches_about_k_over_sigma(indexes, items):
    wide = indexes["postfilter"]._width(Equals("lang", "l2"), 10, 10)
    assert wide == np.ceil(2 * 10 / items.selectivity(Equals("lang", "l2")))


def test_permuting_the_items_permutes_the_answers(items):
    x, rows, queries = cloud(400, 0), records(400), cloud(10, 1)
    order = np.random.default_rng(0).permutation(400)
    shuffled = Attributes([rows[i] for i in order])
    for predicate in (Contains("tags", "t1"), Between("year", 200, 600)):
        for make in (PreFilter, IVFBitmap, InlineHNSW):
            one, two = make.build(x, Attributes(rows)), make.build(x[order], shuffled)
            for q in queries:
                a = one.search(q, predicate, 10, 400).ids
                assert a.tolist() == order[two.search(q, predicate, 10, 400).ids].tolist()


@pytest.mark.parametrize("name", ["inline", "acorn", "vamana", "serf", "ung"])
def test_same_seed_same_index(indexes, items, name):
    again = {"inline": InlineHNSW, "acorn": Acorn, "vamana": Vamana, "serf": SeRF, "ung": UNG}[name]
    field = {"serf": ("year",), "ung": ("tags",)}.get(name, ())
    a, b = (again.build(cloud(300, 2), Attributes(records(300)), *field) for _ in range(2))
    q, where = (
        cloud(1, 1)[0],
        {"serf": Between("year", 100, 800), "ung": Contains("tags", "t0")}.get(name, Everything()),
    )
    one, two = a.search(q, where, 10), b.search(q, where, 10)
    assert one.ids.tolist() == two.ids.tolist()
    assert (one.computed, a.build_distances, a.size_bytes) == (two.computed, b.build_distances, b.size_bytes)


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_tiny_collections(n):
    rows = [{"lang": "a", "year": i, "tags": ["t"]} for i in range(n)] or []
    items, x = Attributes(rows, kinds={"lang": "categorical"}), cloud(n, 0, 4)
    for index in (PreFilter.build(x, items), InlineHNSW.build(x, items), Acorn.build(x, items), Vamana.build(x, items),
                  IVFBitmap.build(x, items)):  # fmt: skip
        assert len(index.search(np.ones(4), Everything(), 3).ids) == min(3, n)
    if n:
        for index, where in ((SeRF.build(x, items, "year"), Between("year")),
                             (UNG.build(x, items, "tags"), Contains("tags", "t")),
                             (FilteredVamana.build(x, items, "lang"), Equals("lang", "a")),
                             (StitchedVamana.build(x, items, "lang"), Equals("lang", "a"))):  # fmt: skip
            assert len(index.search(np.ones(4), where, 3).ids) == min(3, n)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda i, x: i["inline"].search(x[0], Everything(), 0), InputError, "k must be at least 1"),
        (lambda i, x: i["inline"].search(x[0, :3], Everything(), 1), DimensionMismatch, r"must be \[16\], got \[3\]"),
        (lambda i, x: i["inline"].search(x[0] * np.nan, Everything(), 1), DimensionMismatch, "NaN"),
        (lambda i, x: PreFilter.build(x[:3], Attributes([{}])), InputError, "3 vectors need as many"),
        (lambda i, x: Acorn.build(x, i["inline"].attributes, m=1), InputError, "m >= 2"),
        (lambda i, x: SeRF.build(x, i["inline"].attributes, "lang"), InputError, "no order"),
        (lambda i, x: SeRF.build(x, i["inline"].attributes, "year", leap="far"), InputError, "leap"),
        (lambda i, x: UNG.build(x, i["inline"].attributes, "year"), InputError, "ordered"),
        (lambda i, x: UNG.build(x, i["inline"].attributes, "tags", cross=0), InputError, "cross=0"),
        (lambda i, x: Vamana.build(x, i["inline"].attributes, alpha=0.5), InputError, "alpha >= 1"),
        (lambda i, x: IVFBitmap.build(x, i["inline"].attributes, lists=0), InputError, "at least one list"),
    ],
)
def test_bad_input(indexes, make, error, message):
    with pytest.raises(error, match=message):
        make(indexes, cloud(N, 0))
