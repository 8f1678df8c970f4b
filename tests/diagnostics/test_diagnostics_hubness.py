"""k-occurrence, hubs, outliers, length effects."""

import numpy as np
import pytest
from scipy.stats import skew, spearmanr
from sklearn.metrics import roc_auc_score

from isometry.diagnostics import find_outliers, k_occurrence, length_effect, mean_knn_distance, outlier_scores
from isometry.diagnostics.length import word_counts
from isometry.errors import InputError, UnknownName


def test_k_occurrence_equals_counting():
    x = np.random.default_rng(0).normal(size=(150, 30))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -2)
    counts = np.bincount(np.argsort(-cosines, axis=1)[:, :5].ravel(), minlength=150)
    found = k_occurrence(x, 5)
    np.testing.assert_array_equal(found.counts, counts)
    assert found.counts.sum() == 150 * 5
    assert found.skewness == pytest.approx(skew(counts))
    assert set(found.anti_hubs) == set(np.flatnonzero(counts == 0))
    assert (np.diff(counts[found.hubs]) <= 0).all()
    assert (counts[found.hubs] > 5 + 2 * counts.std()).all()


def test_hubness_grows_with_dimension():
    rng = np.random.default_rng(1)
    low, high = (k_occurrence(rng.normal(size=(600, d)) + 0.5).skewness for d in (4, 200))
    assert low < 1 < high


def test_a_ring_has_no_hubs():
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    found = k_occurrence(np.column_stack([np.cos(angles), np.sin(angles)]), 2)
    assert found.skewness == 0
    assert not len(found.hubs)
    assert not len(found.anti_hubs)


@pytest.mark.parametrize("method", ["depth", "knn"])
def test_planted_outliers_come_first(method):
    rng = np.random.default_rng(2)
    x = np.concatenate([rng.normal(1, 0.5, (190, 16)), rng.normal(-1, 2, (10, 16))])
    planted = np.arange(200) >= 190
    assert roc_auc_score(planted, outlier_scores(x, method)) > 0.99
    assert set(find_outliers(x, 5, method)) <= set(range(190, 200))


def test_mean_knn_distance_is_on_unit_rows():
    x = np.random.default_rng(3).normal(size=(40, 4))
    np.testing.assert_allclose(mean_knn_distance(x, 3), mean_knn_distance(x * np.arange(1, 41)[:, None], 3))


def test_unknown_outlier_method():
    with pytest.raises(UnknownName, match="dept"):
        find_outliers(np.eye(3), method="dept")


def collapsing(n, strength, seed=0):
    """Vectors whose share of a common direction grows with length."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 200, n)
    x = rng.normal(size=(n, 24))
    x[:, 0] += strength * np.log(lengths)
    return x, lengths


def test_length_effect_is_found_where_it_is():
    x, lengths = collapsing(400, 1.5)
    found = length_effect(x, lengths)
    assert found.rho > 0.5
    assert found.ci95[0] > 0
    assert found.pair_rho > 0.3
    assert found.present


def test_length_effect_interval_covers_zero_where_there_is_none():
    covered = [length_effect(*collapsing(120, 0.0, seed), resamples=200, seed=seed) for seed in range(20)]
    assert sum(e.ci95[0] <= 0 <= e.ci95[1] for e in covered) >= 17
    assert sum(e.pair_ci95[0] <= 0 <= e.pair_ci95[1] for e in covered) >= 17


def test_length_rho_equals_spearman_of_mean_cosine():
    x, lengths = collapsing(90, 0.7)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, 0)
    expected = spearmanr(cosines.sum(1), lengths).statistic
    assert length_effect(x, lengths, resamples=2).rho == pytest.approx(expected)


def test_equal_lengths_tell_nothing():
    found = length_effect(np.random.default_rng(0).normal(size=(20, 4)), np.ones(20))
    assert np.isnan(found.rho)
    assert not found.present


def test_length_input_is_checked():
    with pytest.raises(InputError, match="20 finite"):
        length_effect(np.ones((20, 2)), np.ones(19))
    with pytest.raises(InputError, match="at least 8"):
        length_effect(np.eye(4), np.ones(4))
    assert word_counts(["a b  c", ""]).tolist() == [3, 0]
