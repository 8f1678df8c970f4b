import itertools

import numpy as np
import pytest

from isometry.errors import InputError
from isometry.ranking import Edge, NeighbourGraph, best_paths, exact_pagerank, personalised_pagerank, push_pagerank


def graph(seed, n=30, edges=80):
    rng = np.random.default_rng(seed)
    pairs = rng.integers(0, n, (edges, 2))
    weights = rng.random(edges)
    links = [Edge(str(a), str(b), weight=float(w)) for (a, b), w in zip(pairs, weights, strict=True)]
    return NeighbourGraph.of(map(str, range(n)), links, reverse=0)


def seeds(seed, n=30):
    rng = np.random.default_rng(seed + 1)
    p0 = np.zeros(n)
    p0[rng.choice(n, 3, replace=False)] = rng.random(3)
    return p0 / p0.sum()


@pytest.mark.parametrize("alpha", [0.15, 0.3, 0.5])
def test_all_three_are_the_linear_solution(alpha):
    for seed in range(10):
        transition, p0 = graph(seed).transition(), seeds(seed)
        dangling = np.asarray(transition.sum(axis=1)).ravel() == 0
        assert dangling.any()
        full = transition.toarray() + np.outer(dangling, p0)  # items without edges go back to the seeds
        expected = alpha * np.linalg.solve(np.eye(30) - (1 - alpha) * full.T, p0)
        power = personalised_pagerank(transition, p0, alpha=alpha, tolerance=1e-13, iterations=1000)
        assert power == pytest.approx(expected, abs=1e-8)
        assert exact_pagerank(transition, p0, alpha=alpha) == pytest.approx(expected, abs=1e-10)
        pushed = push_pagerank(transition, p0, alpha=alpha, epsilon=1e-10)
        assert pushed == pytest.approx(expected, abs=1e-8)
        assert power.sum() == pytest.approx(1)
        assert power.min() >= 0


def test_always_a_distribution_and_alpha_one_is_the_seeds():
    transition, p0 = graph(3).transition("symmetric"), seeds(3)
    assert personalised_pagerank(transition, p0, iterations=3).sum() == pytest.approx(1)
    for walk in (personalised_pagerank, exact_pagerank, push_pagerank):
        assert walk(transition, p0, alpha=1.0) == pytest.approx(p0, abs=1e-4)
    assert (personalised_pagerank(transition, p0, alpha=1.0) == p0).all()


def test_push_misses_no_more_than_it_says_and_stays_local():
    transition, p0 = graph(5, n=200, edges=900).transition(), seeds(5, 200)
    expected = exact_pagerank(transition, p0)
    degree = np.maximum(np.diff(transition.indptr), 1)
    for epsilon in (1e-3, 1e-4, 1e-5):
        found = push_pagerank(transition, p0, epsilon=epsilon)
        assert (found <= expected + 1e-12).all()
        assert expected.sum() - found.sum() <= epsilon * degree.sum()
    assert (push_pagerank(transition, p0, epsilon=1e-2) > 0).sum() < 60


def test_disconnected_parts_get_nothing():
    two = NeighbourGraph.of("abcd", [Edge("a", "b"), Edge("c", "d")])
    p = personalised_pagerank(two.transition(), [1.0, 0, 0, 0])
    assert p[2:].tolist() == [0, 0]
    lonely = NeighbourGraph.of("ab").transition()
    assert personalised_pagerank(lonely, [0.25, 0.75]) == pytest.approx([0.25, 0.75])


def brute(weights, value, hops, gamma):
    n = len(value)
    best = value.copy()
    for length in range(1, hops + 1):
        for path in itertools.product(range(n), repeat=length + 1):
            product = value[path[0]]
            for a, b in itertools.pairwise(path):
                product *= gamma * weights[a, b]
            best[path[-1]] = max(best[path[-1]], product)
    return best


@pytest.mark.parametrize("hops", [0, 1, 2, 3])
def test_hop_decay_is_the_best_of_all_paths(hops):
    for seed in range(8):
        g = graph(seed, n=7, edges=16)
        value = np.zeros(7)
        value[[0, 3]] = 1.0, 0.6
        paths = best_paths(g.weights, value, hops=hops, gamma=0.8)
        assert paths.value == pytest.approx(brute(g.weights.toarray(), value, hops, 0.8))
        for i in np.flatnonzero(paths.value):
            route = paths.to(int(i))
            product = value[route[0]]
            for a, b in itertools.pairwise(route):
                product *= 0.8 * g.weights[a, b]
            assert product == pytest.approx(paths.value[i])
            assert len(route) - 1 <= hops
            assert route[-1] == i
        assert all(paths.to(int(i)) == [] for i in np.flatnonzero(paths.value == 0))


def test_bad_input():
    t = graph(0).transition()
    for alpha in (0, 1.1, float("nan")):
        with pytest.raises(InputError, match="alpha"):
            personalised_pagerank(t, seeds(0), alpha=alpha)
    for bad in (np.zeros(30), np.ones(29) / 29, np.full(30, np.nan)):
        with pytest.raises(InputError, match="sum to 1"):
            exact_pagerank(t, bad)
    with pytest.raises(InputError, match="epsilon"):
        push_pagerank(t, seeds(0), epsilon=0)
    with pytest.raises(InputError, match="gamma"):
        best_paths(t, seeds(0), gamma=0)
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        best_paths(t * 3, seeds(0))
    with pytest.raises(InputError, match="Sources"):
        best_paths(t, -seeds(0))
