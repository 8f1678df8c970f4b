"""Permutation tests and bootstrap intervals against scipy, closed forms and planted effects."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as sp

from isometry.errors import EmptyInput, InputError
from isometry.stats import bootstrap_mean_ci, sign_flip_p

values = st.lists(st.floats(-5, 5).map(lambda x: round(x, 3)), min_size=1, max_size=9)


def brute_force(d):
    sums = [abs(sum(s * x for s, x in zip(signs, d, strict=True))) for signs in product((-1, 1), repeat=len(d))]
    return np.mean([s >= abs(sum(d)) - 1e-9 for s in sums])


@given(values)
def test_exact_p_equals_enumeration(d):
    assert sign_flip_p(d) == pytest.approx(brute_force(d), abs=1e-12)


@pytest.mark.parametrize("n", [4, 9, 12])
def test_exact_p_equals_scipy(n):
    d = np.random.default_rng(n).normal(0.3, 1, n)
    peer = sp.permutation_test((d,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_p(d) == pytest.approx(peer.pvalue, abs=1e-12)


def test_drawn_p_is_near_scipy_and_counts_the_observed_pattern():
    d = np.random.default_rng(3).normal(0.25, 1, 60)
    peer = sp.permutation_test((d,), np.sum, permutation_type="samples", n_resamples=20_000, rng=1)
    assert sign_flip_p(d, n_permutations=20_000) == pytest.approx(peer.pvalue, abs=0.008)
    assert sign_flip_p(np.ones(40), n_permutations=999) == 1 / 1000


def test_zero_differences_carry_no_information():
    d = np.array([0.5, 0.2, 0.4, 0.1, 0.3])
    assert sign_flip_p(np.concatenate([d, np.zeros(500)])) == sign_flip_p(d) == 2 / 2**5
    assert sign_flip_p(np.zeros(7)) == 1.0


def test_p_is_invariant_to_sign_and_block_size(monkeypatch):
    d = np.random.default_rng(5).normal(0.2, 1, 37)
    whole = sign_flip_p(d, n_permutations=3001, seed=2)
    assert sign_flip_p(-d, n_permutations=3001, seed=2) == whole
    interval = bootstrap_mean_ci(d, n_bootstrap=3001, seed=2)
    monkeypatch.setattr("isometry.stats.resampling._BLOCK", 1000)
    assert sign_flip_p(d, n_permutations=3001, seed=2) == pytest.approx(whole, abs=0.04)
    assert bootstrap_mean_ci(d, n_bootstrap=3001, seed=2) == pytest.approx(interval, abs=1e-12)


def test_under_the_null_at_most_five_percent_are_rejected():
    rng = np.random.default_rng(0)
    runs = 600
    for sample in (lambda: rng.normal(size=10), lambda: rng.standard_t(3, 40), lambda: rng.choice([-1.0, 0, 0, 1], 30)):
        rejected = sum(sign_flip_p(sample(), n_permutations=999, seed=i) <= 0.05 for i in range(runs))
        assert rejected <= sp.binom.ppf(0.9995, runs, 0.05)


def test_the_test_is_about_as_strong_as_t_on_normal_differences():
    rng = np.random.default_rng(1)
    samples = rng.normal(0.5, 1, (300, 40))
    ours = np.mean([sign_flip_p(s, n_permutations=999) <= 0.05 for s in samples])
    peer = np.mean(sp.ttest_1samp(samples, 0, axis=1).pvalue <= 0.05)
    assert peer > 0.8
    assert ours == pytest.approx(peer, abs=0.04)


@pytest.mark.parametrize("draw", [lambda r, n: r.normal(size=n), lambda r, n: r.exponential(size=n) ** 1.5])
@pytest.mark.parametrize("n", [12, 60])
def test_interval_equals_scipy_bca(draw, n):
    sample = draw(np.random.default_rng(n), n)
    peer = sp.bootstrap((sample,), np.mean, n_resamples=40_000, method="BCa", rng=3).confidence_interval
    ours = bootstrap_mean_ci(sample, n_bootstrap=40_000, expand=False)
    assert ours == pytest.approx((peer.low, peer.high), abs=0.03 * (peer.high - peer.low))


def test_expansion_gives_students_interval_on_few_normal_units_and_vanishes_on_many():
    sample = np.random.default_rng(7).normal(size=8)
    student = sp.t.interval(0.95, 7, sample.mean(), sp.sem(sample))
    ours, textbook = bootstrap_mean_ci(sample), bootstrap_mean_ci(sample, expand=False)
    assert textbook[1] - textbook[0] < ours[1] - ours[0]
    assert ours[1] - ours[0] == pytest.approx(student[1] - student[0], rel=0.15)
    many = np.random.default_rng(8).normal(size=2000)
    assert bootstrap_mean_ci(many) == pytest.approx(bootstrap_mean_ci(many, expand=False), abs=1e-3)


@pytest.mark.parametrize(
    ("draw", "mean", "n", "least"),
    [
        (lambda r, n: r.normal(size=n), 0.0, 10, 0.915),
        (lambda r, n: r.normal(size=n), 0.0, 40, 0.925),
        (lambda r, n: r.exponential(size=n), 1.0, 50, 0.915),
        (lambda r, n: (r.random(n) < 0.3).astype(float), 0.3, 60, 0.915),
    ],
)
def test_interval_covers_the_mean_about_95_times_in_100(draw, mean, n, least):
    rng = np.random.default_rng(11)
    runs = 1500
    intervals = [bootstrap_mean_ci(draw(rng, n), n_bootstrap=1000, seed=i) for i in range(runs)]
    covered = np.mean([low <= mean <= high for low, high in intervals])
    assert least <= covered <= 0.985


def test_intervals_of_degenerate_samples():
    assert bootstrap_mean_ci([0.4]) == (-np.inf, np.inf)
    assert bootstrap_mean_ci([0.3] * 9) == (0.3, 0.3)
    low, high = bootstrap_mean_ci([0.0, 1.0])
    assert low == 0.0
    assert high == 1.0
    assert bootstrap_mean_ci([0.0, 1e-200, 3e-200])[1] <= 3e-200
    low, high = bootstrap_mean_ci([0.0] * 50 + [1.0])
    assert 0 <= low < 1 / 51 < high < 0.2


@given(values, st.floats(-3, 3), st.sampled_from([1e-3, 0.3, 1.0, 4.0]))
def test_interval_moves_and_stretches_with_the_values(d, shift, scale):
    low, high = bootstrap_mean_ci(d, n_bootstrap=200)
    if np.isfinite(low) and np.ptp(d) > 0:
        moved = bootstrap_mean_ci(np.array(d) * scale + shift, n_bootstrap=200)
        assert moved == pytest.approx((low * scale + shift, high * scale + shift), abs=1e-6)
        assert min(d) - 1e-9 <= low <= high <= max(d) + 1e-9


@pytest.mark.parametrize("function", [sign_flip_p, bootstrap_mean_ci])
def test_bad_values_are_refused(function):
    with pytest.raises(EmptyInput):
        function([])
    with pytest.raises(InputError, match="Value 1 is NaN"):
        function([0.0, np.nan])
    with pytest.raises(InputError, match="shape"):
        function(np.ones((2, 2)))


def test_bad_settings_are_refused():
    with pytest.raises(InputError, match="n_permutations"):
        sign_flip_p([1.0], n_permutations=0)
    with pytest.raises(InputError, match="level"):
        bootstrap_mean_ci([1.0, 2.0], level=95)
    with pytest.raises(InputError, match="n_bootstrap"):
        bootstrap_mean_ci([1.0, 2.0], n_bootstrap=0)
