import itertools

import numpy as np
import pytest

from isometry.errors import InputError
from isometry.ranking.affinity import affinity
from isometry.tasks import (
    alpha_ndcg,
    coverage,
    evaluate_diversity,
    intra_list_distance,
    metric_values,
    planted_queries,
    redundancy,
    subtopic_recall,
)
from isometry.types import Embeddings, Hits, Space, id_array

TOPICS = {"a": {"x"}, "b": {"x", "y"}, "c": {"z"}, "d": {"y"}}


def test_subtopic_recall_counts_topics_once():
    assert subtopic_recall(["a", "b", "no"], TOPICS, 1) == pytest.approx(1 / 3)
    assert subtopic_recall(["a", "b", "no"], TOPICS, 3) == pytest.approx(2 / 3)
    assert subtopic_recall(["b", "c"], TOPICS, 2) == 1
    assert subtopic_recall([], TOPICS, 5) == subtopic_recall(["a"], {}, 5) == 0


def test_alpha_ndcg_by_hand():
    # b gains 2, then a its topic x for the second time 0.5, then c 1; the ideal is b, c, then a or d with 0.5.
    log = 1 / np.log2([2, 3, 4])
    assert alpha_ndcg(["b", "a", "c"], TOPICS, 3) == pytest.approx(log @ [2, 0.5, 1] / (log @ [2, 1, 0.5]))
    assert alpha_ndcg(["b", "c", "a"], TOPICS, 3) == pytest.approx(1)
    assert alpha_ndcg(["no"], TOPICS, 3) == alpha_ndcg(["a"], {}, 3) == 0


def test_alpha_zero_with_one_topic_is_binary_ndcg():
    rng = np.random.default_rng(0)
    for _ in range(20):
        documents = [str(i) for i in range(12)]
        relevant = {d: {"t"} for d in rng.choice(documents, 4, replace=False)}
        ranking = rng.permutation(documents).tolist()
        run = {d: -float(i) for i, d in enumerate(ranking)}
        expected = metric_values(dict.fromkeys(relevant, 1), run, ["ndcg@5"])["ndcg@5"]
        assert alpha_ndcg(ranking, relevant, 5, alpha=0) == pytest.approx(expected)


def test_alpha_rewards_novelty():
    again, new = alpha_ndcg(["a", "b"], TOPICS, 2, alpha=0.9), alpha_ndcg(["a", "c"], TOPICS, 2, alpha=0.9)
    assert new < again  # b still brings y beside x
    assert alpha_ndcg(["a", "d"], TOPICS, 2) > alpha_ndcg(["a", "a2"], TOPICS | {"a2": {"x"}}, 2)


def test_redundancy_and_ild_are_means_over_pairs():
    x = np.random.default_rng(1).standard_normal((6, 4))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    pairs = [float(a @ b) for a, b in itertools.combinations(unit, 2)]
    assert redundancy(x) == pytest.approx(np.mean(pairs))
    assert intra_list_distance(x) == pytest.approx(1 - np.mean(pairs))
    assert redundancy(x[:1]) == intra_list_distance(x[:1]) == 0
    assert redundancy(np.ones((3, 2))) == pytest.approx(1)


def test_coverage_is_facility_location_over_that_of_the_whole_pool():
    x = np.random.default_rng(2).standard_normal((15, 5))
    s = affinity(x)
    chosen = [0, 4, 9]
    assert coverage(x[chosen], x) == pytest.approx(s[:, chosen].max(axis=1).sum() / s.max(axis=1).sum(), abs=1e-6)
    assert coverage(x, x) == pytest.approx(1)
    assert coverage(np.empty((0, 5)), x) == 0


def test_every_query_is_scored():
    hits = Hits.build(["q", "r"], [[("b", 2.0), ("c", 1.0)], [("a", 1.0)]])
    x = {"a": [1.0, 0], "b": [1.0, 0], "c": [0, 1.0]}
    scores = evaluate_diversity(hits, {"q": TOPICS}, k=2, vectors=x, task="t", system="s")
    assert {m: scores.by_unit(m) for m in scores.metric_names} == {
        "s-recall@2": {"q": 1.0}, "all-subtopics@2": {"q": 1.0}, "alpha-ndcg@2": {"q": 1.0},
        "redundancy@2": {"q": 0.0}, "ild@2": {"q": 1.0},
    }  # fmt: skip


def test_planted_queries_lie_between_their_topics():
    x = np.repeat(np.eye(6, dtype=np.float32), 3, axis=0)
    labels = [f"t{i}" for i in range(6) for _ in range(3)]
    emb = Embeddings(x, id_array(map(str, range(18))), Space("topics", 6))
    queries, subtopics = planted_queries(emb, labels, 5, wanted=2, seed=3)
    for n, query in enumerate(queries.ids):
        topics = {t for ts in subtopics[query].values() for t in ts}
        assert len(topics) == 2
        assert len(subtopics[query]) == 6
        expected = np.array([f"t{i}" in topics for i in range(6)]) / np.sqrt(2)
        assert queries.embeddings.vectors[n] == pytest.approx(expected)
    assert (planted_queries(emb, labels, 5, wanted=2, seed=3)[0].embeddings.vectors == queries.embeddings.vectors).all()
    hits = Hits.build(queries.ids, [[("0", 1.0)]] * 5)
    scores = evaluate_diversity(hits, subtopics, vectors={"0": x[0]}, queries=queries.embeddings)
    assert scores.by_unit("relevance@10") == pytest.approx(
        dict(zip(queries.ids, queries.embeddings.vectors[:, 0], strict=True))
    )
    with pytest.raises(InputError, match="7 topics"):
        planted_queries(emb, labels, 1, wanted=7)


def test_bad_input():
    with pytest.raises(InputError, match="depth"):
        subtopic_recall(["a"], TOPICS, 0)
    with pytest.raises(InputError, match="alpha"):
        alpha_ndcg(["a"], TOPICS, 2, alpha=1)
    with pytest.raises(InputError, match="same query ids"):
        evaluate_diversity(Hits.build(["q"], [[]]), {})
