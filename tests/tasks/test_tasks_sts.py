"""Correlations as means of per-pair rows, against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr

from isometry.errors import EmptyInput, InputError
from isometry.tasks import STSTask, pearson_units, spearman_units
from tasks.tasks_support import Lookup

pairs = st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=3, max_size=30)


@given(pairs)
def test_means_are_the_coefficients_also_with_ties(rows):
    x, y = np.array(rows, float).T
    assume(np.ptp(x) > 0 and np.ptp(y) > 0)
    assert pearson_units(x, y).mean() == pytest.approx(pearsonr(x, y).statistic, abs=1e-9)
    assert spearman_units(x, y).mean() == pytest.approx(spearmanr(x, y).statistic, abs=1e-9)


def test_coefficients_of_continuous_values_and_invariances():
    x, y = np.random.default_rng(0).normal(size=(2, 500))
    y = y + x
    assert spearman_units(x, y).mean() == pytest.approx(spearmanr(x, y).statistic, abs=1e-9)
    assert spearman_units(np.exp(x), y) == pytest.approx(spearman_units(x, y), abs=1e-12)
    assert pearson_units(3 * x - 7, y) == pytest.approx(pearson_units(x, y), abs=1e-9)
    assert pearson_units(x, x).mean() == pytest.approx(1)


def test_undefined_correlations_are_refused():
    for units in (pearson_units, spearman_units):
        with pytest.raises(InputError, match="second list is constant"):
            units([1, 2, 3], [5, 5, 5])
        with pytest.raises(InputError, match="finite"):
            units([1, np.nan, 3], [1, 2, 3])
        with pytest.raises(InputError, match="one length"):
            units([1, 2, 3], [1, 2])
        with pytest.raises(EmptyInput):
            units([], [])


def test_task_scores_each_pair_by_cosine():
    rng = np.random.default_rng(1)
    encoder = Lookup({f"t{i}": rng.normal(size=5) for i in range(40)})
    left, right = [f"t{i}" for i in range(20)], [f"t{i + 20}" for i in range(20)]
    gold = rng.integers(0, 6, 20)
    a, b = encoder.encode_query(left), encoder.encode_query(right)
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    scores = STSTask(left, right, gold, name="demo").score(encoder, seed=2)
    assert scores.mean("spearman") == pytest.approx(spearmanr(cosine, gold).statistic, abs=1e-6)
    assert scores.mean("pearson") == pytest.approx(pearsonr(cosine, gold).statistic, abs=1e-6)
    assert list(scores.by_unit("spearman")) == [str(i) for i in range(20)]
    assert (scores.task, scores.system, scores.seed) == ("demo", "Lookup", 2)


def test_uneven_lists_are_refused():
    with pytest.raises(InputError, match=r"'demo'.*\(1, 2, 2\)"):
        STSTask(["a"], ["b", "c"], [1, 2], name="demo")
