"""Paired comparisons: planted effects, symmetry, verdicts, what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from isometry.errors import InputError, UnknownName
from isometry.stats import bootstrap_mean_ci, compare, compare_all, holm, sign_flip_p
from isometry.types import Scores


def scores(values, system="a", metric="acc", task="demo"):
    return Scores.of(task, system, {metric: {f"u{i}": float(v) for i, v in enumerate(values)}})


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    base = rng.random(60)
    return scores(base + rng.normal(0.1, 0.1, 60), "new"), scores(base, "old")


def test_figures_are_those_of_the_paired_differences(pair):
    new, old = pair
    result = compare(new, old)
    d = np.array([new.by_unit("acc")[u] - old.by_unit("acc")[u] for u in sorted(new.units)])
    assert result.n == 60
    assert result.delta == pytest.approx(d.mean(), abs=1e-15)
    assert result.delta == pytest.approx(result.mean_method - result.mean_baseline, abs=1e-12)
    assert (result.p, result.ci95) == (sign_flip_p(d), bootstrap_mean_ci(d))
    assert (result.wins, result.losses, result.ties) == ((d > 0).sum(), (d < 0).sum(), 0)
    assert (result.system, result.baseline, result.task, result.metric) == ("new", "old", "demo", "acc")
    assert result.verdict == "better"
    assert result.p_adj is None


def test_swapping_negates(pair):
    there, back = compare(*pair), compare(*pair[::-1])
    assert back.delta == -there.delta
    assert back.ci95 == pytest.approx((-there.ci95[1], -there.ci95[0]), abs=1e-12)
    assert back.p == there.p
    assert (back.wins, back.losses) == (there.losses, there.wins)
    assert (there.verdict, back.verdict) == ("better", "worse")


def test_lower_is_better_turns_the_verdict(pair):
    result = compare(*pair, sign="<")
    assert result.verdict == "worse"
    assert result.delta == compare(*pair).delta
    assert result.losses == compare(*pair).wins


def test_order_of_rows_does_not_matter_and_seeds_do_what_they_say(pair):
    new, old = pair
    order = np.random.default_rng(1).permutation(60)
    shuffled = dataclasses.replace(new, units=new.units[order], values=new.values[order])
    assert compare(shuffled, old) == compare(new, old)
    assert compare(new, old, seed=1).ci95 != compare(new, old, seed=2).ci95


def test_baseline_may_be_a_constant(pair):
    result = compare(pair[0], 0.2)
    assert (result.mean_baseline, result.baseline, result.verdict) == (pytest.approx(0.2), "0.2", "better")
    assert compare(pair[0], 0.2, sign="<").verdict == "worse"


def test_margins():
    d = np.random.default_rng(2).normal(0.05, 0.02, 40)
    method, zero = scores(d), scores(np.zeros(40))
    assert compare(method, zero, margin=0.03).verdict == "better"
    assert compare(method, zero, margin=0.2).verdict == "no evidence"  # above 0, so not worse either
    assert compare(zero, method, margin=-0.1).verdict == "better"  # loses less than 0.1
    assert compare(zero, method, margin=-0.01).verdict == "worse"  # loses more than 0.01
    assert compare(zero, method, sign="<", margin=0.03).verdict == "better"
    assert compare(method, zero, margin=0.05).p > 0.05


def test_a_null_is_seldom_called_a_difference():
    rng = np.random.default_rng(3)
    verdicts = [
        compare(scores(rng.normal(size=25)), 0.0, n_permutations=500, n_bootstrap=500, seed=i).verdict
        for i in range(300)
    ]
    assert 300 - verdicts.count("no evidence") <= 27  # 99.9 % point of Binomial(300, 0.05)


def test_few_units_prove_nothing_and_say_so():
    five = compare(scores([0.9] * 5), 0.1)
    assert (five.p, five.verdict, five.ci95) == (0.0625, "no evidence", (pytest.approx(0.8), pytest.approx(0.8)))
    assert compare(scores([0.9] * 6), 0.1).verdict == "better"
    one = compare(scores([0.9]), 0.1)
    assert (one.p, one.ci95, one.verdict) == (1.0, (-np.inf, np.inf), "no evidence")
    same = compare(scores([0.9] * 30), scores([0.9] * 30))
    assert (same.p, same.ci95, same.ties, same.verdict) == (1.0, (0.0, 0.0), 30, "no evidence")


def test_many_comparisons_are_corrected():
    rng = np.random.default_rng(4)
    base = rng.random(40)
    noise = np.random.default_rng(0).normal(0.036, 0.1, 40)  # p is about 0.02
    others = [base + rng.normal(shift, 0.1, 40) for shift in (0.2, 0.0, 0.0)]
    systems = [scores(values, f"s{i}") for i, values in enumerate([base + noise, *others])]
    results = compare_all(systems, scores(base, "base"), "acc")
    assert [r.p_adj for r in results] == holm(r.p for r in results).tolist()
    assert [r.p for r in results] == [compare(s, scores(base), "acc").p for s in systems]
    assert results[1].verdict == "better"
    # significant alone, not among four
    assert compare(systems[0], scores(base)).verdict == "better"
    assert results[0].verdict == "no evidence"
    assert results[0].p <= 0.05 < results[0].p_adj
    assert compare_all([], 0.5, "acc") == []


def test_missing_units_are_named():
    with pytest.raises(InputError, match=r"1 unit.*'old'.*'u2'"):
        compare(scores([1, 2, 3], "new"), scores([1, 2], "old"))
    with pytest.raises(InputError, match=r"2 unit.*'new'.*'u1', 'u2'"):
        compare(scores([1], "new"), scores([1, 2, 3], "old"))


def test_unclear_questions_are_refused():
    two = Scores.of("demo", "a", {"acc": {"u": 1.0}, "f1": {"u": 1.0}})
    with pytest.raises(InputError, match="Name the metric"):
        compare(two, 0.0)
    with pytest.raises(UnknownName, match=r"'accc'.*'acc'"):
        compare(two, 0.0, "accc")
    with pytest.raises(InputError, match=r"occur twice.*'u'"):
        compare(Scores("t", "s", np.array(["u", "u"], object), np.array(["m", "m"], object), np.zeros(2)), 0.0)
    with pytest.raises(InputError, match=r"NaN or infinite for unit.*'u1'"):
        compare(scores([0.0, np.nan]), 0.0)
    for wrong in ({"sign": "="}, {"margin": np.nan}, {"alpha": 5}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            compare(scores([0.0]), 0.0, **wrong)
    with pytest.raises(InputError):
        compare(scores([0.0]), float("nan"))
