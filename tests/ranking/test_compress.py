import numpy as np
import pytest

from isometry.errors import DataWarning, InputError, UnknownName
from isometry.ranking import Compress, Diversify, Objective, best_subset
from isometry.ranking.affinity import affinity
from isometry.types import Hits, Queries

QUERIES = Queries.of(["q"])


def pool(seed=0, n=30, d=4):
    rng = np.random.default_rng(seed)
    x = {f"{i:02d}": v for i, v in enumerate(rng.standard_normal((n, d)).astype(np.float32))}
    return x, Hits.build(["0"], [[(i, float(s)) for i, s in zip(x, rng.standard_normal(n), strict=True)]])


SPREADS = ["logdet", "clusters", "dispersion"]
COVERS = [("facility", "linear"), ("facility", "softmax"), ("facility", "uniform"), ("saturated", "linear")]
OBJECTIVES = [Objective(spread=s, cover=c, weigh=w) for s in SPREADS for c, w in COVERS]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: f"{o.cover}-{o.weigh}-{o.spread}")
def test_selects_k_in_falling_order_and_lazy_is_naive(objective):
    for seed in range(5):
        x, hits = pool(seed)
        found = Compress(objective, k=7, vectors=x)(QUERIES, hits)
        assert len(set(found.ids)) == 7
        assert (np.diff(found.scores) <= 0).all()
        naive = Compress(objective, k=7, vectors=x, solver="naive")(QUERIES, hits)
        assert naive.ids.tolist() == found.ids.tolist()
        assert naive.scores == pytest.approx(found.scores, abs=1e-6)


def test_relevance_alone_returns_exactly_the_top_k():
    x, hits = pool(1)
    found = Compress(Objective(1, 0, 0), k=9, vectors=x)(QUERIES, hits)
    assert found.row(0) == hits.row(0)[:9]
    for method in ("mmr", "coverage", "dpp"):
        assert Diversify(lam=1, k=9, vectors=x, method=method)(QUERIES, hits).row(0) == hits.row(0)[:9]


def test_gains_add_up_to_the_value_of_the_set():
    x, hits = pool(2, n=10)
    objective = Objective()
    found = Compress(objective, k=3, vectors=x)(QUERIES, hits)
    ids, scores = zip(*sorted(hits.row(0)), strict=True)
    r = (np.array(scores) - min(scores)) / (max(scores) - min(scores))
    f = objective.function(r, affinity(np.stack([x[i] for i in ids])), 3)
    assert found.scores.sum() == pytest.approx(f.value([ids.index(i) for i in found.ids]), abs=1e-5)
    assert found.scores.sum() >= (1 - 1 / np.e) * best_subset(f, 3)[1]
    lacking = Compress(Objective(0, 0, 1, spread="dispersion"), k=3, vectors=x)(QUERIES, hits)
    assert lacking.scores[0] == pytest.approx(1, abs=1e-6)  # of its own optimum, greedily


@pytest.mark.parametrize("method", ["mmr", "coverage", "dpp"])
def test_every_method_covers_three_groups_before_repeating_one(method):
    x = {f"{g}{i}": np.eye(3)[j] + 0.01 * np.random.default_rng(i).standard_normal(3)
         for j, g in enumerate("abc") for i in range(5)}  # fmt: skip
    x["off"] = -np.ones(3)
    hits = Hits.build(["0"], [[(i, {"a": 1.0, "b": 0.9, "c": 0.8, "o": 0.0}[i[0]]) for i in x]])
    found = Diversify(method=method, lam=0.5, k=3, vectors=x)(QUERIES, hits)
    assert sorted(i[0] for i in found.ids) == ["a", "b", "c"]


def test_diversify_is_compress_with_one_knob():
    x, hits = pool(3)
    for method, objective in {"coverage": Objective(0.4, 0.6, 0.0), "dpp": Objective(0.4, 0.0, 0.6)}.items():
        one = Diversify(method=method, lam=0.4, k=6, vectors=x)(QUERIES, hits)
        assert one.row(0) == Compress(objective, k=6, vectors=x)(QUERIES, hits).row(0)


def test_a_copy_adds_nothing_to_coverage():
    x = {"a": [1.0, 0], "a2": [1.0, 0], "b": [0, 1.0]}
    hits = Hits.build(["0"], [[(i, 1.0) for i in x]])
    found = Compress(Objective(0, 1, 0), k=3, vectors=x)(QUERIES, hits)
    assert found.ids.tolist() == ["a", "b", "a2"]
    assert found.scores[2] == 0


def test_the_pool_is_capped_with_a_message_and_few_hits_are_all_returned():
    x, hits = pool(4)
    with pytest.warns(DataWarning, match=r"best 12 of 30 candidates"):
        found = Compress(k=5, vectors=x, pool=12)(QUERIES, hits)
    assert set(found.ids) <= {i for i, _ in hits.row(0)[:12]}
    with pytest.warns(DataWarning, match="raise pool"):
        Diversify(k=5, vectors=x, pool=12)(QUERIES, hits)
    assert set(Compress(k=99, vectors=x)(QUERIES, hits).ids) == set(x)
    assert Compress(k=3, vectors=x)(QUERIES, Hits.build(["0"], [[]])).row(0) == []


def test_the_stochastic_solver_repeats_by_seed():
    x, hits = pool(5, n=60)
    rows = [Compress(k=6, vectors=x, solver="stochastic", seed=s)(QUERIES, hits).row(0) for s in (0, 0, 1, 2, 3)]
    assert rows[0] == rows[1]
    assert len({tuple(i for i, _ in row) for row in rows}) > 1


def test_bad_arguments():
    x, hits = pool()
    with pytest.raises(InputError, match="weights"):
        Objective(0, 0, 0)
    with pytest.raises(InputError, match="weights"):
        Objective(-1)
    for bad in ({"cover": "all"}, {"spread": "far"}, {"weigh": "log"}):
        with pytest.raises(UnknownName):
            Objective(**bad)
    with pytest.raises(UnknownName, match="solver"):
        Compress(vectors=x, solver="ilp")
    with pytest.raises(UnknownName, match="diversify"):
        Diversify(vectors=x, method="best")
    with pytest.raises(InputError, match="pool must be"):
        Compress(vectors=x, pool=0)
    with pytest.raises(InputError, match="needs the hits"):
        Compress(vectors=x)(QUERIES)
    with pytest.raises(UnknownName, match="similarity"):
        Compress(vectors=x, similarity="jaccard")(QUERIES, hits)
    assert Compress(vectors=x).fingerprint != Compress(Objective(2.0), vectors=x).fingerprint
