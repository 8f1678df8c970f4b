"""Probes and clustering equal scikit-learn's figures."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score, f1_score, v_measure_score

from isometry.errors import EmptyInput, InputError
from isometry.stats import compare
from isometry.tasks import ClassificationTask, ClusteringTask, kmeans_scores, knn_probe, linear_probe
from tasks.tasks_support import Lookup


@pytest.fixture(scope="module")
def blobs():
    """Three overlapping groups: 150 texts with vectors [150, 6] and labels."""
    rng = np.random.default_rng(0)
    labels = [str(label) for label in rng.integers(0, 3, 150)]
    centres = rng.normal(size=(3, 6))
    vectors = np.array([centres[int(label)] for label in labels]) + rng.normal(size=(150, 6)) * 0.8
    return [f"t{i}" for i in range(150)], vectors.astype(np.float32), labels


def test_linear_probe_is_logistic_regression(blobs):
    _, x, y = blobs
    peer = LogisticRegression(max_iter=1000).fit(x[:100], y[:100]).predict(x[100:])
    assert linear_probe(x[:100], y[:100], x[100:]).tolist() == peer.tolist()


def test_knn_probe_is_a_majority_of_the_nearest_by_cosine(blobs):
    _, x, y = blobs
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    for k in (1, 4, 7):
        near = np.argsort(-(unit[100:] @ unit[:100].T), axis=1)[:, :k]
        votes = [[y[i] for i in row] for row in near]
        expected = [max(sorted(set(v)), key=v.count) for v in votes]
        assert knn_probe(x[:100], y[:100], x[100:], k=k).tolist() == expected
    assert len(knn_probe(x[:3], ["a", "b", "a"], x[100:], k=50)) == 50


@pytest.mark.parametrize("probe", ["linear", "knn"])
def test_classification_scores_every_test_item(blobs, probe):
    texts, x, y = blobs
    encoder = Lookup(dict(zip(texts, x, strict=True)))
    task = ClassificationTask(texts[:100], y[:100], texts[100:], y[100:], name="demo", probe=probe)
    scores = task.score(encoder)
    predicted = (linear_probe if probe == "linear" else knn_probe)(x[:100], y[:100], x[100:])
    assert scores.values.tolist() == (predicted == np.array(y[100:])).astype(float).tolist()
    assert scores.facts["macro_f1"] == pytest.approx(f1_score(y[100:], predicted, average="macro"))
    assert 0.5 < scores.mean("accuracy") < 1
    assert task.score(encoder).values.tolist() == scores.values.tolist()


def test_few_training_items_per_label_are_drawn_by_the_seed(blobs):
    texts, x, y = blobs
    encoder = Lookup(dict(zip(texts, x, strict=True)))
    task = ClassificationTask(texts[:100], y[:100], texts[100:], y[100:], per_label=4)
    drawn = {}
    for seed in (0, 0, 1):
        encoder.seen["query"].clear()
        assert task.score(encoder, seed).facts["train_items"] == 12
        rows = [texts.index(t) for t in encoder.seen["query"][:12]]
        assert sorted(y[i] for i in rows) == sorted("012" * 4)
        drawn.setdefault(seed, rows)
        assert rows == drawn[seed]
    assert drawn[0] != drawn[1]


def test_kmeans_scores_equal_scikit_learn(blobs):
    _, x, y = blobs
    found = KMeans(3, n_init=1, random_state=4).fit_predict(x)
    assert kmeans_scores(x, y, seed=4) == {
        "v_measure": pytest.approx(v_measure_score(y, found), abs=1e-12),
        "ari": pytest.approx(adjusted_rand_score(y, found), abs=1e-12),
    }


def test_clear_groups_are_found_and_noise_is_not(blobs):
    texts, _, y = blobs
    rng = np.random.default_rng(3)
    clear = Lookup({t: np.eye(6)[int(label)] * 9 + rng.normal(size=6) for t, label in zip(texts, y, strict=True)})
    noise = Lookup({t: rng.normal(size=6) for t in texts})
    task = ClusteringTask(texts, y, replicates=8, size=90)
    good, bad = task.score(clear), task.score(noise)
    assert good.mean("v_measure") > 0.9
    assert abs(bad.mean("ari")) < 0.05
    assert good.facts["subset_size"] == 90
    assert compare(good, bad, "v_measure").verdict == "better"
    assert task.score(noise).values == pytest.approx(bad.values)
    assert task.score(noise, seed=1).values != pytest.approx(bad.values)


def test_bad_label_tasks_are_refused(blobs):
    texts, x, y = blobs
    encoder = Lookup(dict(zip(texts, x, strict=True)))
    with pytest.raises(InputError, match="at least two labels"):
        linear_probe(x, ["a"] * 150, x)
    with pytest.raises(InputError, match="150 labels, got 2"):
        knn_probe(x, ["a", "b"], x)
    with pytest.raises(InputError, match="k must be"):
        knn_probe(x, y, x, k=0)
    with pytest.raises(InputError, match="one label per text"):
        ClassificationTask(texts, y[:-1], texts, y)
    with pytest.raises(InputError, match="'linear' or 'knn'"):
        ClassificationTask(texts, y, texts, y, probe="svm")
    with pytest.raises(EmptyInput, match="no texts"):
        ClassificationTask(texts, y, [], []).score(encoder)
    with pytest.raises(InputError, match="two distinct labels"):
        ClusteringTask(texts, ["a"] * 150)
    with pytest.raises(InputError, match="at least one replicate"):
        ClusteringTask(texts, y, replicates=0)
    with pytest.raises(InputError, match="1 distinct vectors cannot form 3 clusters"):
        kmeans_scores(np.ones((150, 4), np.float32), y)
    with pytest.raises(InputError, match="150 labels, got 1"):
        kmeans_scores(x, ["a"])
