"""Set functions against their definitions, and greedy against enumeration and its guarantee."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.errors import InputError, UnknownName
from isometry.ranking.affinity import affinity
from isometry.ranking.determinantal import LogDeterminant
from isometry.ranking.submodular import (
    ClusterReward,
    Dispersion,
    FacilityLocation,
    Mixture,
    Modular,
    SaturatedCoverage,
    best_subset,
    farthest_first,
    greedy,
)


def instance(seed, n=None):
    rng = np.random.default_rng(seed)
    n = n or int(rng.integers(2, 13))
    x = rng.standard_normal((n, int(rng.integers(2, 6))))
    return rng, affinity(x), rng.random(n)


def functions(seed, n=None):
    _, s, r = instance(seed, n)
    return {
        "modular": Modular(r),
        "facility": FacilityLocation(s, r),
        "saturated": SaturatedCoverage(s, 0.3),
        "logdet": LogDeterminant(s, 0.2),
        "clusters": ClusterReward(farthest_first(s, 3), r),
        "mixture": Mixture([(0.5, Modular(r)), (1.0, FacilityLocation(s)), (0.3, LogDeterminant(s))]),
    }


def test_values_are_those_of_the_definitions():
    _, s, r = instance(3, 9)
    f = functions(3, 9)
    labels = farthest_first(s, 3)
    for subset in ([], [4], [1, 5], [0, 3, 7, 8]):
        inside = s[:, subset]
        assert f["modular"].value(subset) == pytest.approx(r[subset].sum())
        assert f["facility"].value(subset) == pytest.approx((r * inside.max(axis=1, initial=0)).sum())
        assert f["saturated"].value(subset) == pytest.approx(np.minimum(inside.sum(axis=1), 0.3 * s.sum(axis=1)).sum())
        mass = [sum(r[i] for i in subset if labels[i] == c) for c in set(labels)]
        assert f["clusters"].value(subset) == pytest.approx(sum(map(math.sqrt, mass)))
        pairs = sum(1 - s[i, j] for i in subset for j in subset if i < j)
        assert Dispersion(s).value(subset) == pytest.approx(pairs)


@pytest.mark.parametrize("name", functions(0))
def test_zero_when_empty_never_falls_and_gains_shrink(name):
    for seed in range(40):
        f = functions(seed)[name]
        assert f.value([]) == 0
        rng = np.random.default_rng(seed)
        order = rng.permutation(f.n)
        last = rng.integers(f.n)
        f.reset()
        before = math.inf
        for i in [i for i in order if i != last]:
            now = float(f.gains(np.array([last]))[0])  # of one element to growing sets
            assert -1e-9 <= now <= before + 1e-9
            before = now
            assert f.add(int(i)) >= -1e-9


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 100_000), st.integers(1, 40), st.integers(1, 12), st.booleans())
def test_lazy_is_naive(seed, n, k, copies):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 4))
    if copies:  # equal elements: ties go to the first
        x = x[rng.integers(0, max(1, n // 2), n)]
    s, r = affinity(x), rng.integers(0, 3, n) / 2
    parts = [(1.0, Modular(r)), (1.0, FacilityLocation(s, r)), (0.5, LogDeterminant(s))]
    for f in (Mixture.normalised(parts, k), FacilityLocation(s), SaturatedCoverage(s), ClusterReward(r)):
        lazy, naive = greedy(f, k), greedy(f, k, solver="naive")
        assert lazy.rows == naive.rows
        assert lazy.gains == pytest.approx(naive.gains)
        assert len(set(lazy.rows)) == min(k, n)
        assert (np.diff(lazy.gains) <= 1e-6).all()


def test_guarantee_on_a_thousand_small_instances():
    ratios = []
    for seed in range(1000):
        rng, s, r = instance(seed, 12 if seed % 20 == 0 else 2 + seed % 7)
        k = int(rng.integers(1, 5))
        f = Mixture([(rng.random(), Modular(r)), (1.0, FacilityLocation(s, r)), (rng.random(), LogDeterminant(s))])
        best = best_subset(f, k)[1]
        ratios.append(sum(greedy(f, k).gains) / best)
    assert min(ratios) >= 1 - 1 / math.e
    assert max(ratios) <= 1 + 1e-9
    assert np.mean(np.array(ratios) > 0.95) > 0.95


def test_dispersion_reaches_half_of_the_optimum_on_a_metric():
    for seed in range(60):
        x = np.random.default_rng(seed).random((9, 3))
        gaps = np.linalg.norm(x[:, None] - x, axis=-1)
        f = Dispersion(1 - gaps / gaps.max())  # scaled distances are a metric too
        assert not f.submodular
        found = greedy(f, 4)
        assert sum(found.gains) >= 0.5 * best_subset(f, 4)[1] - 1e-9
        assert found.rows == greedy(f, 4, solver="naive").rows


def test_stochastic_greedy_is_near_greedy_and_repeats_by_seed():
    rng = np.random.default_rng(0)
    f = FacilityLocation(affinity(rng.standard_normal((200, 5))))
    full = sum(greedy(f, 10).gains)
    some = [greedy(f, 10, solver="stochastic", seed=s) for s in range(5)]
    assert all(len(set(one.rows)) == 10 for one in some)
    assert all(sum(one.gains) >= (1 - 1 / math.e - 0.1) * full for one in some)
    assert np.mean([sum(one.gains) for one in some]) > 0.9 * full
    assert some[0].rows == greedy(f, 10, solver="stochastic", seed=0).rows
    assert len({tuple(one.rows) for one in some}) > 1


def test_normalised_terms_are_one_at_their_own_optimum():
    _, s, r = instance(5, 10)
    for part in (Modular(r), FacilityLocation(s, r), LogDeterminant(s)):
        f = Mixture.normalised([(1.0, part)], 3)
        assert sum(greedy(f, 3).gains) == pytest.approx(1)
    nothing = Mixture.normalised([(1.0, Modular(np.zeros(4)))], 2)
    assert greedy(nothing, 2).rows == [0, 1]


def test_relevance_alone_is_top_k():
    r = np.random.default_rng(1).random(30)
    assert greedy(Modular(r), 7).rows == np.argsort(-r)[:7].tolist()


def test_farthest_first_separates_what_is_apart():
    s = np.kron(np.eye(3), np.ones((4, 4)))
    labels = farthest_first(s, 3)
    assert [len(set(labels[4 * i : 4 * i + 4])) for i in range(3)] == [1, 1, 1]
    assert len(set(labels)) == 3
    assert farthest_first(np.empty((0, 0)), 3).tolist() == []


def test_bad_input():
    with pytest.raises(InputError, match="negative"):
        FacilityLocation([[1.0, -0.1], [-0.1, 1.0]])
    with pytest.raises(InputError, match="values"):
        Modular([1.0, -1.0])
    with pytest.raises(InputError, match="weights"):
        FacilityLocation(np.eye(2), [1.0])
    with pytest.raises(InputError, match="gamma"):
        SaturatedCoverage(np.eye(2), 0)
    with pytest.raises(InputError, match="Weights"):
        Mixture([(-1.0, Modular([1.0]))])
    with pytest.raises(InputError, match="same elements"):
        Mixture([(1.0, Modular([1.0])), (1.0, Modular([1.0, 2.0]))])
    with pytest.raises(UnknownName, match="solver"):
        greedy(Modular([1.0]), 1, solver="fast")
    with pytest.raises(InputError, match="epsilon"):
        greedy(Modular([1.0]), 1, solver="stochastic", epsilon=1)
    with pytest.raises(InputError, match="enumeration"):
        best_subset(Modular(np.ones(60)), 20)
