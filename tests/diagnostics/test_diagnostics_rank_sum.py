"""The depth rank-sum test: statistics against SciPy, calibration, roles, direction; energy distance."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest, mannwhitneyu, ranksums

from isometry.diagnostics import compare_corpora, cosine_depth, depth_test, energy_test
from isometry.diagnostics.rank_sum import _bootstrap, _Depths, _permutation_p, _statistics
from isometry.diagnostics.sphere import distances, unit_rows
from isometry.errors import DataWarning, DimensionMismatch, InputError, UnknownName

FAST = {"resamples": 49, "dedup_threshold": None}


def corpus(n, shift=0.6, spread=1.0, seed=0, d=16):
    """Directions around a common mean."""
    return np.random.default_rng(seed).normal(0, spread, (n, d)) + shift


def pooled_q(x, y):
    pooled = np.concatenate([x, y])
    return np.mean([(pooled < value).mean() for value in y])


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 25), m=st.integers(2, 25), ties=st.booleans(), seed=st.integers(0, 999))
def test_statistics_equal_their_definitions(n, m, ties, seed):
    rng = np.random.default_rng(seed)
    x, y = (rng.integers(0, 4, k).astype(float) if ties else rng.normal(size=k) for k in (n, m))
    q, q_pooled, z = _statistics(x, y)
    direct = (x[:, None] < y).mean() + 0.5 * (x[:, None] == y).mean()
    assert q == pytest.approx(direct)
    assert q == pytest.approx(1 - mannwhitneyu(x, y).statistic / (n * m))
    assert q + _statistics(y, x)[0] == pytest.approx(1)
    assert q_pooled == pytest.approx(pooled_q(x, y))
    if not ties:
        assert z == pytest.approx(ranksums(x, y).statistic)
    elif len(set(x) | set(y)) > 1:
        from scipy.stats import norm

        expected = mannwhitneyu(x, y, alternative="greater", method="asymptotic", use_continuity=False).pvalue
        assert norm.sf(z) == pytest.approx(expected, abs=1e-12)
    else:
        assert z == 0


@pytest.mark.parametrize("m", [80, 55])
def test_the_test_uses_each_corpus_role_also_when_sizes_are_equal(m):
    f, g = corpus(80), corpus(m, 0.4, seed=1)
    found = depth_test(f, g, calibrate="none", **FAST)
    x, y = cosine_depth(f, f, in_sample=True), cosine_depth(g, f, in_sample=False)
    peer = ranksums(x, y)
    assert found.w == pytest.approx(peer.statistic)
    assert found.p_two_sided == pytest.approx(peer.pvalue)
    assert found.p_greater == pytest.approx(ranksums(x, y, alternative="greater").pvalue)
    assert found.p_less == pytest.approx(ranksums(x, y, alternative="less").pvalue)
    assert found.q_pooled == pytest.approx(pooled_q(x, y))
    assert (found.n, found.m) == (80, m)
    assert found.effect == pytest.approx(2 * found.q - 1)


@pytest.mark.parametrize("distance", ["chord", "arc"])
def test_other_distances_use_their_own_depths(distance):
    from isometry.diagnostics import angular_depth

    f, g = corpus(40), corpus(30, 0.4, seed=1)
    x = angular_depth(f, f, in_sample=True, distance=distance)
    y = angular_depth(g, f, in_sample=False, distance=distance)
    assert depth_test(f, g, distance=distance, **FAST).w == pytest.approx(ranksums(x, y).statistic)


def test_a_split_of_one_corpus_gives_half_and_a_shifted_one_a_small_q():
    whole = corpus(600)
    qs = []
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(600)
        qs.append(depth_test(whole[order[:300]], whole[order[300:]], **FAST).q)
    assert np.mean(qs) == pytest.approx(0.5, abs=0.03)
    found = depth_test(whole, -whole, **FAST)
    assert found.q < 0.05
    assert found.p < 1e-50
    assert found.direction == "outlying"


def test_a_mode_collapsed_corpus_is_central_and_only_the_two_sided_p_sees_it():
    found = depth_test(corpus(150), corpus(150, spread=0.2, seed=1), alternative="greater", **FAST)
    assert found.direction == "central"
    assert found.q > 0.9
    assert found.p == found.p_greater > 0.99
    assert found.p_two_sided < 1e-20
    assert found.effect_ci95[0] > 0


def test_the_test_is_not_symmetric():
    wide, narrow = corpus(100, spread=1.5), corpus(100, spread=0.3, seed=1)
    assert depth_test(wide, narrow, **FAST).q > 0.9
    assert depth_test(narrow, wide, **FAST).q < 0.1


def rejections(shift, calibrate, runs=150, n=40):
    ps = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        for seed in range(runs):
            f, g = corpus(n, shift, seed=2 * seed), corpus(n, shift, seed=2 * seed + 1)
            ps.append(depth_test(f, g, calibrate=calibrate, resamples=99, dedup_threshold=None).p)
    return np.asarray(ps)


def test_level_with_a_mean_direction():
    assert (rejections(0.6, "auto") <= 0.05).mean() <= 0.09


def test_an_isotropic_cloud_needs_permutation_and_then_p_is_uniform():
    assert (rejections(0.0, "none") <= 0.05).mean() >= 0.08
    exact = rejections(0.0, "auto")
    assert (exact <= 0.05).mean() <= 0.09
    assert kstest(exact, "uniform").pvalue > 1e-3


def test_automatic_calibration_and_its_warning():
    centred = corpus(100) - corpus(100).mean(0)
    assert depth_test(centred, corpus(100, 0, seed=1), **FAST).calibration == "permutation"
    with pytest.warns(DataWarning, match="permutation"):
        assert depth_test(centred, centred[::-1], calibrate="none", **FAST).calibration == "normal"
    assert depth_test(corpus(100), corpus(100, seed=1), **FAST).calibration == "normal"
    forced = depth_test(corpus(100), -corpus(100, seed=1), calibrate="permutation", **FAST)
    assert forced.calibration == "permutation"
    assert forced.p == pytest.approx(2 / 50)


@pytest.mark.parametrize("distance", ["cosine", "chord"])
def test_weighted_depths_equal_depths_of_the_drawn_reference(distance):
    pool = unit_rows(corpus(12, d=4))
    weights = np.random.default_rng(0).multinomial(9, np.full(12, 1 / 12), size=3).T.astype(float)
    found = _Depths(pool, distance)(weights)
    matrix = distances(pool, pool, distance)
    for c in range(3):
        reference = np.repeat(np.arange(12), weights[:, c].astype(int))
        for i in range(12):
            others = reference[reference != i]
            assert found[i, c] == pytest.approx(2 - matrix[i, others].mean(), abs=1e-7)


def test_permutation_p_equals_recomputing_every_depth():
    f, g = corpus(9, d=3), corpus(7, 0.2, seed=1, d=3)
    pool = np.concatenate([f, g])
    q = depth_test(f, g, **FAST).q
    mine = np.random.default_rng(5).permuted(np.tile(np.repeat([1.0, 0.0], [9, 7]), (30, 1)), axis=1).astype(bool)
    null = []
    for mask in mine:
        a, b = pool[mask], pool[~mask]
        x, y = cosine_depth(a, a, in_sample=True), cosine_depth(b, a, in_sample=False)
        null.append((x[:, None] < y).mean())
    found = _permutation_p(_Depths(unit_rows(pool), "cosine"), q, 9, 7, 30, np.random.default_rng(5))
    assert found[0] == pytest.approx((1 + (np.asarray(null) <= q + 1e-12).sum()) / 31)
    assert found[1] == pytest.approx((1 + (np.asarray(null) >= q - 1e-12).sum()) / 31)


def test_bootstrap_interval_covers_the_true_effect():
    # the true effect, from corpora so large that the estimate hardly varies
    truth = depth_test(corpus(4000, seed=100), corpus(4000, 0.5, seed=101), resamples=1, dedup_threshold=None).effect
    covered = 0
    for seed in range(40):
        f, g = corpus(80, seed=2 * seed), corpus(80, 0.5, seed=2 * seed + 1)
        low, high = depth_test(f, g, resamples=150, dedup_threshold=None, seed=seed).effect_ci95
        covered += low <= truth <= high
    assert covered >= 34


def test_bootstrap_is_centred_on_the_estimate():
    f, g = unit_rows(corpus(60)), unit_rows(corpus(60, 0.4, seed=1))
    depths = _Depths(np.concatenate([f, g]), "cosine")
    low, high = _bootstrap(depths, 60, 60, 400, np.random.default_rng(0))
    q = depth_test(f, g, **FAST).q
    assert low < q < high
    assert abs((low + high) / 2 - q) < 0.25 * (high - low)


def test_duplicates_shrink_the_effective_size():
    g = corpus(20, seed=1)
    found = depth_test(corpus(60), np.tile(g, (5, 1)), resamples=9)
    assert (found.m, found.effective_m) == (100, 20)
    assert found.effective_n == 60
    assert depth_test(corpus(60), g, **FAST).effective_n is None


def test_same_seed_same_result_and_json_form():
    import json

    f, g = corpus(30), corpus(30, 0, seed=1)
    first, second = (depth_test(f, g, calibrate="permutation", resamples=99, seed=3) for _ in range(2))
    assert first == second
    assert json.loads(json.dumps(first.to_dict()))["effect_ci95"] == list(first.effect_ci95)


def test_all_ordered_pairs_with_holm():
    sets = {"a": corpus(60), "b": corpus(60, seed=1), "c": -corpus(60, seed=2)}
    found = compare_corpora(sets, **FAST)
    assert [(c.reference, c.other) for c in found] == [
        ("a", "b"), ("a", "c"), ("b", "a"), ("b", "c"), ("c", "a"), ("c", "b"),
    ]  # fmt: skip
    ps = sorted(c.test.p for c in found)
    assert min(c.p_adjusted for c in found) == pytest.approx(6 * ps[0])
    assert all(c.p_adjusted >= c.test.p for c in found)
    assert found[1].p_adjusted < 1e-10 < 0.01 < found[0].p_adjusted


def test_bad_input_is_refused():
    f = corpus(10)
    with pytest.raises(InputError, match="at least two"):
        depth_test(f, f[:1])
    with pytest.raises(DimensionMismatch, match="16 wide"):
        depth_test(f, f[:, :3])
    with pytest.raises(InputError, match=r"other hold 1 zero.*rows 4"):
        depth_test(f, np.where(np.arange(10)[:, None] == 4, 0, f))
    for option in ({"calibrate": "yes"}, {"alternative": "bigger"}, {"distance": "dot"}):
        with pytest.raises(UnknownName):
            depth_test(f, f, **option)
    with pytest.raises(InputError, match="resamples"):
        depth_test(f, f, resamples=0)
    with pytest.raises(InputError, match="sample the corpora"):
        depth_test(np.ones((12_000, 2)), np.ones((2, 2)), distance="arc")
    with pytest.raises(InputError, match="at least two"):
        compare_corpora({"a": f})


def antipodal(n, seed):
    """Two modes with the same mean as one at the middle."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 0.05, (n, 3)) + np.array([1, 0, 0])
    x[:, 1] += rng.choice([-1.0, 1.0], n)
    return x


def ring(n, seed):
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, n)
    return rng.normal(0, 0.05, (n, 3)) + np.column_stack([np.ones(n), np.cos(angle), np.sin(angle)])


def test_energy_sees_what_the_depth_test_cannot():
    f, g = antipodal(200, 0), ring(200, 1)
    assert depth_test(f, g, **FAST).p > 0.01
    assert energy_test(f, g, resamples=99).p == pytest.approx(0.01)


def test_energy_equals_its_definition_and_vanishes_for_copies():
    f, g = unit_rows(corpus(20, d=4)), unit_rows(corpus(15, 0.1, seed=1, d=4))
    expected = 2 * distances(f, g, "chord").mean() - distances(f, f, "chord").mean() - distances(g, g, "chord").mean()
    found = energy_test(f, g, resamples=9)
    assert found.statistic == pytest.approx(expected, abs=1e-7)
    assert energy_test(g, f, resamples=9).statistic == pytest.approx(expected, abs=1e-7)
    assert energy_test(f, f, resamples=9).statistic == pytest.approx(0, abs=1e-9)


def test_energy_level_sampling_and_input():
    ps = [energy_test(corpus(30, seed=2 * s), corpus(30, seed=2 * s + 1), resamples=99).p for s in range(100)]
    assert np.mean(np.asarray(ps) <= 0.05) <= 0.12
    assert energy_test(corpus(300), corpus(20), sample=50, resamples=5).n == 50
    with pytest.raises(InputError, match="two texts"):
        energy_test(corpus(1), corpus(5))
    with pytest.raises(DimensionMismatch):
        energy_test(corpus(5, d=3), corpus(5))
    with pytest.raises(InputError, match="resamples"):
        energy_test(corpus(5), corpus(5), resamples=0)
