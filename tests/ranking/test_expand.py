import numpy as np
import pytest

from isometry.errors import InputError, UnknownName
from isometry.indexes import Exact
from isometry.ranking import (
    Compress,
    Diversify,
    Edge,
    Expand,
    NeighbourGraph,
    Objective,
    Retrieve,
    Surroundings,
    Walk,
    explain,
    trace,
)
from isometry.types import Embeddings, Hits, Queries, Space, id_array

SPACE = Space("plane", 2)


def angle(*degrees):
    t = np.radians(degrees)
    return np.stack([np.cos(t), np.sin(t)], axis=1).astype(np.float32)


IDS = id_array(["a", "b", "c", "far", "farther", "alone"])
DOCS = Embeddings(angle(0, 10, 25, 100, 150, 200), IDS, SPACE)
LINKS = [Edge("a", "far"), Edge("far", "farther")]
GRAPH = NeighbourGraph.of(IDS, LINKS, reverse=0)
QUERIES = Queries(id_array(["q"]), ["?"], Embeddings(angle(2), id_array(["q"]), SPACE, role="query"))
INDEX = Exact.of(DOCS)
DIRECT = Retrieve(None, INDEX, k=3)


@pytest.mark.parametrize("method", ["power", "push", "exact", "paths"])
def test_a_link_brings_in_what_similarity_does_not(method):
    walk = Walk(method=method, seeds=2)
    hits = (DIRECT >> Expand(GRAPH, beta=0.5, walk=walk))(QUERIES)
    assert [i for i, _ in hits.row(0)][:1] == ["a"]
    assert set(hits.ids) == {"a", "b", "c", "far", "farther"}
    found = dict(hits.row(0))
    assert found["far"] > found["farther"] > 0
    one = (DIRECT >> Expand(GRAPH, beta=0.5, walk=Walk(method=method, seeds=2, hops=1)))(QUERIES)
    assert set(one.ids) == {"a", "b", "c", "far"}


def test_the_blend_is_the_formula():
    hits = (DIRECT >> Expand(GRAPH, beta=0.4, walk=Walk(method="exact", alpha=0.5, seeds=1, hops=1)))(QUERIES)
    direct = dict(DIRECT(QUERIES).row(0))
    similar = {i: (s - direct["c"]) / (direct["a"] - direct["c"]) for i, s in direct.items()} | {"far": 0.0}
    near = {"a": 1.0, "b": 0.0, "c": 0.0, "far": 0.5}  # one step on: (1 - alpha) of what a keeps
    expected = {i: 0.6 * similar[i] + 0.4 * near[i] for i in similar}
    assert dict(hits.row(0)) == pytest.approx(expected, abs=1e-6)
    told = dict(zip(hits.ids, explain(hits), strict=True))
    assert [line["stage"] for line in told["b"]] == ["retrieve", "graph", "expand"]
    assert [line["score"] for line in told["far"] if line["stage"] == "graph"] == pytest.approx([0.5])


def test_rank_normalisation_uses_places_only():
    walk = Walk(method="exact", alpha=0.5, seeds=1, hops=1)
    hits = (DIRECT >> Expand(GRAPH, beta=0.5, walk=walk, blend="rank"))(QUERIES)
    assert dict(hits.row(0)) == pytest.approx({"a": 1.0, "b": 1 / 3, "c": 1 / 6, "far": 3 / 8})


def test_beta_zero_is_the_hits_and_an_unknown_seed_leaves_their_order():
    direct = DIRECT(QUERIES)
    same = (DIRECT >> Expand(GRAPH, beta=0))(QUERIES)
    assert same.row(0) == direct.row(0)
    elsewhere = NeighbourGraph.of("xyz", [Edge("x", "y")])
    assert (DIRECT >> Expand(elsewhere))(QUERIES).ids.tolist() == direct.ids.tolist()
    nothing = Hits.build(["q"], [[]])
    assert Expand(GRAPH)(QUERIES, nothing).row(0) == []


def test_only_what_is_allowed_is_added():
    hits = (DIRECT >> Expand(GRAPH, beta=0.5, allowed=["farther"]))(QUERIES)
    assert set(hits.ids) == {"a", "b", "c", "farther"}


def test_hubs_can_be_discounted():
    spokes = [Edge(s, "hub") for s in "abcdefgh"]
    graph = NeighbourGraph.of([*"abcdefgh", "hub", "own"], [*spokes, Edge("a", "own")])
    hits = Hits.build(["q"], [[("a", 1.0)]])

    def gap(**options):
        found = dict(Expand(graph, beta=0.9, walk=Walk(seeds=1, **options))(QUERIES, hits).row(0))
        return found.get("hub", 0.0) - found["own"]

    assert gap(discount_hubs=True) < gap()
    assert gap(normalise="symmetric") < gap()


def test_surroundings_stand_in_for_the_whole_graph():
    around = Surroundings(lambda ids: DOCS.take([IDS.tolist().index(i) for i in ids]), INDEX.search, k=2, hops=2)
    hits = (DIRECT >> Expand(around, beta=0.5))(QUERIES)
    assert {"a", "b", "c"} <= set(hits.ids)


def test_the_whole_pipeline_says_where_each_result_comes_from():
    expand = Expand(GRAPH, beta=0.5, walk=Walk(seeds=2))
    direct = DIRECT(QUERIES)
    pool = expand(QUERIES, direct)
    found = Compress(Objective(), k=4, vectors=INDEX.vectors)(QUERIES, pool)
    told = dict(zip(found.ids, trace(found, direct, expand=expand, pool=pool, vectors=INDEX.vectors)[0], strict=True))
    assert told["a"].rank == 1
    assert told["a"].path == ()
    assert told["far"].rank is None
    assert told["far"].path == ("a", "far")
    assert told["far"].seed == "a"
    reached = trace(pool, direct, expand=expand)[0]
    assert {p.path for p in reached} >= {("a", "far", "farther")}
    assert all(p.gain is None for p in reached)
    gains = [told[i].gain for i in found.ids]
    assert gains == found.scores.tolist()
    assert gains == sorted(gains, reverse=True)
    assert set(told["far"].to_dict()) == {"rank", "seed", "path", "gain", "copies"}


def test_copies_that_were_passed_over_are_named():
    x = {"a": [1.0, 0.0], "a2": [2.0, 0.0], "b": [0.0, 1.0]}
    pool = Hits.build(["q"], [[("a", 1.0), ("a2", 0.9), ("b", 0.5)]])
    found = Diversify(k=2, vectors=x, lam=0.3)(QUERIES, pool)
    assert [p.copies for p in trace(found, pool, pool=pool, vectors=x)[0]] == [("a2",), ()]


def test_bad_arguments():
    for beta in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="beta"):
            Expand(GRAPH, beta=beta)
    with pytest.raises(InputError, match="needs the hits"):
        Expand(GRAPH)(QUERIES)
    with pytest.raises(UnknownName, match="blend"):
        Expand(GRAPH, blend="sum")
    with pytest.raises(InputError, match="floor"):
        Expand(GRAPH, floor=-1)
    for bad in ({"alpha": 0}, {"gamma": 2}, {"seeds": 0}, {"hops": 0}):
        with pytest.raises(InputError, match="must"):
            Walk(**bad)
    for bad in ({"method": "fly"}, {"normalise": "no"}):
        with pytest.raises(UnknownName):
            Walk(**bad)
    assert Expand(GRAPH).fingerprint != Expand(GRAPH, beta=0.4).fingerprint
    other = NeighbourGraph.of(IDS, LINKS)
    assert Expand(GRAPH).fingerprint != Expand(other).fingerprint
