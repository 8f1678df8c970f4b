"""Average precision as a mean over positives, best thresholds, reranking: against scikit-learn and brute force."""

from __future__ import annotations

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, average_precision_score, f1_score

from isometry.errors import InputError
from isometry.tasks import PairClassificationTask, RerankingTask, best_thresholds, precision_at_positives
from isometry.types import Space
from tasks.tasks_support import Lookup

labelled = st.lists(st.tuples(st.integers(0, 1), st.integers(-3, 3)), min_size=1, max_size=25).filter(
    lambda rows: any(label for label, _ in rows)
)


@given(labelled)
def test_mean_over_positives_is_average_precision_also_with_ties(rows):
    labels, scores = np.array(rows).T
    ours = precision_at_positives(labels, scores)
    assert len(ours) == labels.sum()
    assert ours.mean() == pytest.approx(average_precision_score(labels, scores), abs=1e-9)


@given(labelled)
def test_best_thresholds_are_the_best_of_all(rows):
    labels, scores = np.array(rows, float).T
    best = best_thresholds(labels, scores)
    tried = [*np.unique(scores), np.inf]
    for name, measure in (("accuracy", accuracy_score), ("f1", lambda y, p: f1_score(y, p, zero_division=0))):
        assert best[name] == pytest.approx(max(measure(labels, scores >= t) for t in tried))
        assert best[name] == pytest.approx(measure(labels, scores >= best[f"{name}_threshold"]))
        assert np.isfinite(best[f"{name}_threshold"])


def test_bad_pairs_are_refused():
    with pytest.raises(InputError, match="0 or 1"):
        precision_at_positives([0, 2], [0.1, 0.2])
    with pytest.raises(InputError, match="at least one must be 1"):
        best_thresholds([0, 0], [0.1, 0.2])
    with pytest.raises(InputError, match="shapes"):
        precision_at_positives([0, 1], [0.1])
    with pytest.raises(InputError, match="finite"):
        precision_at_positives([0, 1], [0.1, np.nan])
    with pytest.raises(InputError, match="1 left and 2 right"):
        PairClassificationTask(["a"], ["b", "c"], [1])
    with pytest.raises(InputError, match="one label and one score"):
        PairClassificationTask(["a"], ["b"], [1, 0])


@pytest.mark.parametrize("how", ["cosine", "dot", "euclidean"])
def test_task_uses_the_similarity_of_the_space_and_encodes_each_text_once(how):
    rng = np.random.default_rng(0)
    encoder = Lookup({f"t{i}": rng.normal(size=4) for i in range(9)}, space=Space("m", 4, similarity=how))
    left, right = [f"t{i}" for i in rng.integers(0, 9, 30)], [f"t{i}" for i in rng.integers(0, 9, 30)]
    labels = rng.integers(0, 2, 30)
    scores = PairClassificationTask(left, right, labels, name="demo").score(encoder)
    a, b = np.array([encoder.vectors[t] for t in left]), np.array([encoder.vectors[t] for t in right])
    dots = (a * b).sum(1)
    expected = {
        "cosine": dots / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1),
        "dot": dots,
        "euclidean": -np.linalg.norm(a - b, axis=1),
    }[how]
    assert scores.mean("ap") == pytest.approx(average_precision_score(labels, expected.round(6)), abs=1e-6)
    assert [int(u) for u in scores.units] == np.flatnonzero(labels).tolist()
    assert scores.facts["f1"] == pytest.approx(best_thresholds(labels, expected.round(6))["f1"])
    assert len(encoder.seen["query"]) == len(set(encoder.seen["query"]))


def test_pairs_of_a_space_without_row_similarity_are_refused():
    encoder = Lookup({"a": [1.0, 0], "b": [0, 1.0]}, space=Space("m", 2, similarity="hamming"))
    with pytest.raises(InputError, match="not by 'hamming'"):
        PairClassificationTask(["a"], ["b"], [1]).score(encoder)


def test_reranking_equals_trec_eval_on_the_same_similarities():
    rng = np.random.default_rng(2)
    texts = [f"t{i}" for i in range(40)]
    encoder = Lookup({t: rng.normal(size=6) for t in texts}, {t: rng.normal(size=6) for t in texts})
    left = [f"t{i}" for i in rng.integers(0, 6, 80)]
    right = [f"t{i}" for i in rng.integers(6, 40, 80)]
    labels = rng.integers(0, 2, 80).tolist()
    task = RerankingTask.of_pairs(left, right, labels, "demo")
    scores = task.score(encoder)
    run = {
        q: {d: float(_cosine(encoder.vectors[task.queries[q]], encoder.documents[task.documents[d]])) for d in grades}
        for q, grades in task.qrels.items()
    }
    peer = pytrec_eval.RelevanceEvaluator(task.qrels, {"map", "recip_rank"}).evaluate(run)
    assert scores.by_unit("map") == pytest.approx({q: row["map"] for q, row in peer.items()}, abs=1e-9)
    assert scores.by_unit("mrr") == pytest.approx({q: row["recip_rank"] for q, row in peer.items()}, abs=1e-9)


def _cosine(a, b):
    a, b = np.float32(a).astype(float), np.float32(b).astype(float)
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def test_queries_without_a_right_answer_do_not_count_and_repeated_pairs_keep_the_higher_label():
    task = RerankingTask.of_pairs(["p", "p", "p", "r"], ["x", "x", "y", "x"], [0, 1, 0, 0])
    assert task.qrels == {"q0": {"d0": 1, "d1": 0}, "q1": {"d0": 0}}
    encoder = Lookup({"p": [1.0, 0], "x": [1.0, 0.1], "y": [0, 1.0]})
    scores = task.score(encoder)
    assert scores.by_unit("map") == {"q0": 1.0}
    assert scores.facts["without_relevant"] == 1
    assert encoder.seen["query"] == ["p"]


def test_reranking_without_texts_is_refused():
    with pytest.raises(InputError, match=r"1 judged queries.*'q'"):
        RerankingTask({}, {"d": "text"}, {"q": {"d": 1}})
    with pytest.raises(InputError, match=r"1 candidates.*'d'"):
        RerankingTask({"q": "text"}, {}, {"q": {"d": 1}})
    with pytest.raises(InputError, match="as many"):
        RerankingTask.of_pairs(["a"], ["b"], [])
