"""Retrieval by an encoder or a pipeline; with real data, equality with other people's tools."""

from __future__ import annotations

import csv
import gzip
import json

import numpy as np
import pytest
import pytrec_eval

from isometry.errors import InputError
from isometry.tasks import RetrievalTask, evaluate_run, synthetic_retrieval
from isometry.types import Document, Hits, Space
from tasks.tasks_support import Lookup

PEER = {"ndcg@10": "ndcg_cut_10", "map": "map", "mrr": "recip_rank", "recall@10": "recall_10", "precision@10": "P_10"}


@pytest.fixture
def toy():
    """Six documents and four queries with random vectors; one query has no relevant document."""
    rng = np.random.default_rng(0)
    corpus = [Document(f"d{i}", f"text {i}", title="Title" if i % 2 else "") for i in range(6)]
    documents = {d.content: rng.normal(size=4) for d in corpus}
    queries = {f"q{i}": f"query {i}" for i in range(4)}
    qrels = {"q0": {"d0": 1, "d3": 2}, "q1": {"d5": 1, "d1": 0}, "q2": {"d2": 0}, "q3": {"d4": 1, "gone": 1}}
    encoder = Lookup({text: rng.normal(size=4) for text in queries.values()}, documents)
    return RetrievalTask(corpus, queries, qrels, "toy"), encoder


@pytest.mark.parametrize("how", ["cosine", "dot", "euclidean"])
def test_ranks_by_the_similarity_of_the_space(toy, how):
    task, encoder = toy
    encoder.space = Space("m", 4, similarity=how, normalized=False)
    scores = task.score(encoder, seed=5)
    q = np.array([encoder.vectors[t] for t in task.queries.values()], np.float32).astype(float)
    d = np.array([encoder.documents[x.content] for x in task.corpus], np.float32).astype(float)
    if how == "euclidean":
        similarity = -np.linalg.norm(q[:, None] - d[None], axis=2)
    else:
        similarity = q @ d.T
        if how == "cosine":
            similarity /= np.linalg.norm(q, axis=1)[:, None] * np.linalg.norm(d, axis=1)
    run = {f"q{i}": {f"d{j}": float(s) for j, s in enumerate(row)} for i, row in enumerate(similarity)}
    expected = evaluate_run(task.qrels, {q: run[q] for q in ("q0", "q1", "q3")})
    assert scores.values == pytest.approx(expected.values, abs=1e-12)
    assert scores.units.tolist() == expected.units.tolist()
    assert (scores.task, scores.system, scores.seed) == ("toy", "m (4-d)", 5)
    assert scores.facts | {"documents": 6, "depth": 100, "without_relevant": 1} == scores.facts


def test_embeds_title_and_text_and_only_queries_that_count(toy):
    task, encoder = toy
    task.score(encoder)
    assert encoder.seen["document"][:2] == ["text 0", "Title text 1"]
    assert encoder.seen["query"] == ["query 0", "query 1", "query 3"]


def test_depth_limits_the_ranking(toy):
    task, encoder = toy
    shallow = RetrievalTask(task.corpus, task.queries, task.qrels, k=1, metrics=["recall", "mrr", "precision@1"])
    scores = shallow.score(encoder)
    deep = RetrievalTask(task.corpus, task.queries, task.qrels, metrics=["recall@1"]).score(encoder)
    assert scores.mean("recall") == deep.mean("recall@1")
    assert set(scores.by_unit("mrr").values()) <= {0.0, 1.0}


def test_a_pipeline_can_be_scored(toy):
    task, _ = toy

    def pipeline(queries, hits=None):
        return Hits.build(queries.ids, [[(d.id, float(i)) for i, d in enumerate(task.corpus)]] * len(queries))

    assert task.score(pipeline).by_unit("mrr") == {"q0": 1 / 3, "q1": 1.0, "q3": 0.5}


def test_synthetic_tasks_say_so_in_their_scores():
    documents = [Document(c, f"The letter {c} opens this line. And another sentence about {c}.") for c in "ab"]
    task = synthetic_retrieval(documents, "letters")
    texts = [*task.queries.values(), *(d.content for d in task.corpus)]
    scores = task.score(Lookup({t: [1.0, i] for i, t in enumerate(texts)}))
    assert scores.task == "letters (synthetic)"
    assert scores.facts["synthetic"] is True


def test_impossible_tasks_are_refused(toy):
    task, encoder = toy
    with pytest.raises(InputError, match=r"'recall@100' needs a ranking of 100 documents; give k=100"):
        RetrievalTask(task.corpus, task.queries, task.qrels, k=10)
    with pytest.raises(InputError, match=r"1 judged queries of 'toy'.*'q9'"):
        RetrievalTask(task.corpus, task.queries, {"q9": {"d0": 1}}, "toy")
    with pytest.raises(InputError, match="must be distinct"):
        RetrievalTask([*task.corpus, task.corpus[0]], task.queries, task.qrels)
    encoder.documents = {t: v * np.nan for t, v in encoder.documents.items()}
    with pytest.raises(InputError, match="NaN"):
        task.score(encoder)
    encoder.vectors = {t: [v, v] for t, v in encoder.vectors.items()}
    with pytest.raises(InputError, match="several vectors per text"):
        RetrievalTask([Document("query 0", "query 0")], {"q": "query 0"}, {"q": {"d": 1}}).score(
            Lookup(encoder.vectors)
        )


def read_beir(folder):
    """Read a folder by hand, so that the check below owes nothing to the library."""

    def rows(name):
        with gzip.open(folder / name, "rt", encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    corpus = {r["_id"]: (r.get("title", ""), r["text"]) for r in rows("corpus.jsonl.gz")}
    queries = {r["_id"]: r["text"] for r in rows("queries.jsonl.gz")}
    qrels = {}
    with (folder / "qrels" / "test.tsv").open(encoding="utf-8") as file:
        for query, document, grade in list(csv.reader(file, delimiter="\t"))[1:]:
            qrels.setdefault(query, {})[document] = int(grade)
    return corpus, queries, qrels


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("name", ["adi", "cranfield"])
def test_equals_sentence_transformers_numpy_and_trec_eval(name, data_root, reference_model):
    corpus, queries, qrels = read_beir(data_root / "ir" / name)
    qrels = dict(list(qrels.items())[:24])  # a slice, for speed; benchmarks/eval_equality.py judges the whole sets
    judged = {d for grades in qrels.values() for d in grades}
    corpus = {i: document for i, document in corpus.items() if i in judged}
    task = RetrievalTask([Document(i, text, title=title) for i, (title, text) in corpus.items()], queries, qrels, name)
    scores = task.score(reference_model)

    asked = [q for q, grades in qrels.items() if max(grades.values()) > 0]
    documents = reference_model.encode([f"{t} {x}".strip() for t, x in corpus.values()], normalize_embeddings=True)
    similarity = reference_model.encode([queries[q] for q in asked], normalize_embeddings=True) @ documents.T
    ids = list(corpus)
    run = {}
    for query, row in zip(asked, similarity, strict=True):
        best = np.argsort(-row)[:100]
        run[query] = {ids[i]: float(row[i]) for i in best}
    peer = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "map", "recip_rank", "recall.10", "P.10"})
    expected = peer.evaluate(run)
    for ours, theirs in PEER.items():
        assert scores.mean(ours) == pytest.approx(np.mean([expected[q][theirs] for q in asked]), abs=5e-5)
    assert 0.2 < scores.mean("ndcg@10") < 0.9
