"""The signed-rank test against scipy's, and against all choices of signs where ranks are tied."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata, wilcoxon

from isometry.errors import InputError
from isometry.stats import pairwise_signed_rank, signed_rank


@pytest.mark.parametrize("n", [3, 6, 11, 25, 40])
def test_equals_scipy_without_ties(n):
    values = np.random.default_rng(n).normal(0.3, 1, n)
    ours, theirs = signed_rank(values), wilcoxon(values, method="exact")
    assert ours.statistic == theirs.statistic
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert ours.n == n


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9))
def test_is_exact_with_ties_and_zeros(values):
    kept = np.array([v for v in values if v], dtype=float)
    if not len(kept):
        assert signed_rank(values).p == 1.0
        return
    ranks = rankdata(np.abs(kept))
    seen = min(ranks[kept > 0].sum(), ranks[kept < 0].sum())
    sums = [np.dot(ranks, signs) for signs in product((0, 1), repeat=len(kept))]
    smaller = [min(s, ranks.sum() - s) for s in sums]
    assert signed_rank(values).p == pytest.approx(np.mean([s <= seen for s in smaller]))


def test_least_p_is_reached_and_never_undercut():
    for n in range(1, 12):
        best = signed_rank(np.arange(1.0, n + 1))
        assert best.p == pytest.approx(best.least_p) == pytest.approx(min(1.0, 2 / 2**n))
    assert signed_rank([1, 2, 3, 4, 5]).p > 0.05  # five data sets never reach it


def test_effect_is_one_sided_sign_and_antisymmetric():
    values = np.random.default_rng(1).normal(size=12)
    assert signed_rank(values).effect == pytest.approx(-signed_rank(-values).effect)
    assert signed_rank(np.abs(values)).effect == 1.0


def test_large_samples_agree_with_the_exact_test():
    values = np.random.default_rng(2).normal(0.05, 1, 501)
    assert signed_rank(values).p == pytest.approx(signed_rank(values[:500]).p, abs=0.05)


def test_pairs_are_corrected_together():
    rng = np.random.default_rng(0)
    sets = [f"set {i}" for i in range(8)]
    base = dict(zip(sets, rng.normal(size=8), strict=True))
    scores = {
        "a": base,
        "b": {s: v + 1 + i / 9 for i, (s, v) in enumerate(base.items())},
        "c": {s: v + 0.0 for s, v in base.items()},
    }
    by_pair = {(t.first, t.second): t for t in pairwise_signed_rank(scores)}
    assert by_pair["a", "b"].test.p == pytest.approx(2 / 2**8)
    assert by_pair["a", "b"].p_holm == pytest.approx(3 * 2 / 2**8)
    assert by_pair["a", "b"].delta < 0
    assert by_pair["a", "c"].test.n == 0


@pytest.mark.parametrize("bad", [[], [float("nan")], [[1.0]]])
def test_bad_differences(bad):
    with pytest.raises(InputError, match="finite differences"):
        signed_rank(bad)


def test_systems_must_share_data_sets():
    with pytest.raises(InputError, match="same data sets"):
        pairwise_signed_rank({"a": {"x": 1.0}, "b": {"y": 1.0}})
