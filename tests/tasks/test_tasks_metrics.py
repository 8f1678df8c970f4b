"""Ranking metrics equal pytrec_eval's on every query, whatever the run looks like."""

from __future__ import annotations

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.errors import EmptyInput, InputError, UnknownName
from isometry.tasks import evaluate_run, metric_values
from isometry.types import Hits

PEER = {
    "ndcg": "ndcg", "ndcg@1": "ndcg_cut_1", "ndcg@3": "ndcg_cut_3", "ndcg@10": "ndcg_cut_10",
    "map": "map", "map@1": "map_cut_1", "map@3": "map_cut_3", "map@10": "map_cut_10",
    "precision": "set_P", "precision@1": "P_1", "precision@3": "P_3", "precision@10": "P_10",
    "recall": "set_recall", "recall@1": "recall_1", "recall@3": "recall_3", "recall@10": "recall_10",
    "success@1": "success_1", "success@3": "success_3", "success@10": "success_10", "mrr": "recip_rank",
}  # fmt: skip
_CUT = "1,3,10"
_MEASURES = {
    "ndcg", "map", "recip_rank", "set_P", "set_recall", f"ndcg_cut.{_CUT}", f"map_cut.{_CUT}", f"P.{_CUT}",
    f"recall.{_CUT}", f"success.{_CUT}",
}  # fmt: skip

names = st.sampled_from(["a", "b", "c", "d", "B", "ab", "10", "9", "é", "z", "日本", "~", "aa", "D"])
grades = st.dictionaries(names, st.integers(-2, 4), max_size=10)
# few distinct values give ties; 1 + 1e-9 ties with 1 in single precision only
values = st.one_of(st.sampled_from([0.0, 1.0, 1.0 + 1e-9, 0.5, -1.0, 1e300, -1e300]), st.floats(-1e6, 1e6))


def peer(qrels, run):
    return pytrec_eval.RelevanceEvaluator(qrels, _MEASURES).evaluate(run)


@settings(max_examples=400, deadline=None)
@given(grades.filter(lambda g: max(g.values(), default=-1) >= 0), st.dictionaries(names, values, max_size=14))
def test_every_metric_equals_trec_eval(judgments, found):
    # pytrec_eval reads unowned memory, and may never return, where every grade is negative: see the next test
    expected = peer({"q": judgments}, {"q": found})["q"]
    ours = metric_values(judgments, found, list(PEER))
    assert ours == pytest.approx({name: expected[theirs] for name, theirs in PEER.items()}, abs=1e-9)


def test_nothing_relevant_scores_zero():
    for judgments in ({}, {"a": 0}, {"a": -1, "b": -2}):
        assert set(metric_values(judgments, {"a": 1.0, "c": 2.0}, list(PEER)).values()) == {0.0}


def test_large_random_runs_equal_trec_eval_query_by_query():
    rng = np.random.default_rng(0)
    pool = [f"doc{i}" for i in range(300)]
    qrels, run = {}, {}
    for q in range(60):
        judged = rng.choice(pool, rng.integers(1, 80), replace=False)
        qrels[f"q{q}"] = {d: int(g) for d, g in zip(judged, rng.integers(-1, 4, len(judged)), strict=True)}
        qrels[f"q{q}"][str(judged[0])] = int(rng.integers(0, 2))
        found = rng.choice(pool, rng.integers(0, 150), replace=False)
        scores = rng.normal(size=len(found)).round(int(rng.integers(0, 8)))
        run[f"q{q}"] = dict(zip(found.tolist(), scores.tolist(), strict=True))
    expected = peer(qrels, run)
    scores = evaluate_run(qrels, run, list(PEER))
    for ours, theirs in PEER.items():
        row = scores.by_unit(ours)
        assert row == pytest.approx({q: expected[q][theirs] for q in row}, abs=1e-9)
        assert len(row) == sum(expected[q]["map"] > 0 or any(g > 0 for g in qrels[q].values()) for q in qrels)


def test_which_queries_count():
    qrels = {"found": {"a": 1}, "missed": {"b": 2}, "absent": {"c": 1}, "none": {"d": 0, "e": -1}, "empty": {}}
    run = {"found": {"a": 1.0}, "missed": {"z": 1.0}, "none": {"d": 1.0}, "unjudged": {"a": 1.0}}
    scores = evaluate_run(qrels, run, ["mrr"], task="demo", system="s", seed=3, note="kept")
    assert scores.by_unit("mrr") == {"found": 1.0, "missed": 0.0, "absent": 0.0}
    assert scores.mean("mrr") == pytest.approx(1 / 3)
    assert (scores.task, scores.system, scores.seed) == ("demo", "s", 3)
    assert scores.facts == {"unanswered": 1, "without_relevant": 2, "without_judgments": 1, "note": "kept"}


def test_hits_and_dictionaries_give_the_same_and_order_of_entry_does_not_matter():
    rows = {"q": [("a", 0.5), ("b", 0.5), ("c", 0.9)], "r": []}
    qrels = {"q": {"a": 1, "c": 2}, "r": {"a": 1}}
    hits = evaluate_run(qrels, Hits.build(rows, rows.values()))
    plain = evaluate_run(qrels, {q: dict(reversed(row)) for q, row in rows.items()})
    assert hits.values.tolist() == plain.values.tolist()
    assert hits.facts["unanswered"] == 1


def test_an_empty_run_scores_zero():
    assert evaluate_run({"q": {"a": 1}}, {}).values.tolist() == [0.0] * 6


def test_perfect_and_worst():
    judgments = {f"d{i}": 3 - i for i in range(3)}
    perfect = {d: float(g) for d, g in judgments.items()}
    assert metric_values(judgments, perfect, ["ndcg", "ndcg@2", "map", "mrr", "recall@3"]) == pytest.approx(
        dict.fromkeys(["ndcg", "ndcg@2", "map", "mrr", "recall@3"], 1.0)
    )
    assert set(metric_values(judgments, {"x": 1.0, "y": 2.0}).values()) == {0.0}


def test_wrong_questions_are_refused():
    with pytest.raises(UnknownName, match=r"'ndgc@10'.*'ndcg'"):
        metric_values({"a": 1}, {"a": 1.0}, ["ndgc@10"])
    for cut in ("ndcg@0", "ndcg@", "ndcg@ten", "ndcg@-1"):
        with pytest.raises(InputError, match="whole number"):
            metric_values({"a": 1}, {"a": 1.0}, [cut])
    with pytest.raises(InputError, match="'b' is NaN"):
        metric_values({"a": 1}, {"a": 1.0, "b": float("nan")})
    with pytest.raises(EmptyInput, match="No query of 'demo'"):
        evaluate_run({"q": {"a": 0}}, {"q": {"a": 1.0}}, task="demo")
    with pytest.raises(InputError, match=r"none of the 1 judged queries \(it has '1', the judgments have 'q1'\)"):
        evaluate_run({"q1": {"a": 1}}, {"1": {"a": 1.0}})
