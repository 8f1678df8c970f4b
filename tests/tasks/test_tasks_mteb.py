"""MTEB runs our encoders, offline on tasks held in memory, and agrees with our figures to four decimals."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from isometry.errors import MissingExtra
from isometry.tasks import RetrievalTask, STSTask, as_mteb
from isometry.types import Document, Space
from tasks.tasks_support import Lookup

ABOUT = {
    "description": "In memory.", "reference": None, "dataset": {"path": "memory", "revision": "1"},
    "category": "t2t", "modalities": ["text"], "eval_splits": ["test"], "eval_langs": ["eng-Latn"],
    "date": ("2000-01-01", "2000-01-02"), "domains": [], "task_subtypes": [], "license": "cc0-1.0",
    "annotations_creators": "derived", "dialect": [], "sample_creation": "found", "bibtex_citation": "",
}  # fmt: skip


def metadata(mteb, name, kind, main_score):
    return mteb.TaskMetadata(name=name, type=kind, main_score=main_score, **ABOUT)


def retrieval_task(mteb, corpus, queries, qrels):
    from datasets import Dataset
    from mteb.abstasks import AbsTaskRetrieval

    class InMemory(AbsTaskRetrieval):
        metadata = globals()["metadata"](mteb, "InMemoryRetrieval", "Retrieval", "ndcg_at_10")

        def load_data(self, *args, **kwargs):
            documents = [{"id": d.id, "title": d.title, "text": d.text} for d in corpus]
            asked = [{"id": q, "text": queries[q]} for q in qrels]
            split = {"corpus": Dataset.from_list(documents), "queries": Dataset.from_list(asked)}
            self.dataset = {"default": {"test": {**split, "relevant_docs": dict(qrels), "top_ranked": None}}}
            self.data_loaded = True

    return InMemory()


def sts_task(mteb, left, right, gold):
    from datasets import Dataset
    from mteb.abstasks import AbsTaskSTS

    class InMemory(AbsTaskSTS):
        metadata = globals()["metadata"](mteb, "InMemorySTS", "STS", "cosine_spearman")

        def load_data(self, *args, **kwargs):
            self.dataset = {"test": Dataset.from_dict({"sentence1": left, "sentence2": right, "score": gold})}
            self.data_loaded = True

    return InMemory()


def run(mteb, encoder, task):
    result = mteb.evaluate(as_mteb(encoder), task, cache=None, co2_tracker=False, show_progress_bar=False)
    return result.task_results[0].scores["test"][0]


@pytest.fixture(scope="module")
def mteb():
    return pytest.importorskip("mteb")


@pytest.fixture(scope="module")
def judged():
    """120 documents, 25 queries with graded judgments, and an encoder with random vectors for all of them."""
    rng = np.random.default_rng(0)
    corpus = [Document(f"d{i}", f"text {i}", title=f"Title {i}" if i % 3 else "") for i in range(120)]
    queries = {f"q{i}": f"query {i}" for i in range(25)}
    qrels = {q: {f"d{i}": int(rng.integers(1, 3)) for i in rng.integers(0, 120, 4)} for q in queries}
    vectors = {t: rng.normal(size=8) for t in [*queries.values(), *(d.content for d in corpus)]}
    return corpus, queries, qrels, vectors


@pytest.mark.parametrize("how", ["cosine", "dot"])
def test_retrieval_agrees(mteb, judged, how):
    corpus, queries, qrels, vectors = judged
    encoder = Lookup(vectors, space=Space("toy", 8, similarity=how, normalized=False))
    ours = RetrievalTask(corpus, queries, qrels, metrics=["ndcg@10", "map@10", "recall@20", "precision@5"]).score(
        encoder
    )
    theirs = run(mteb, encoder, retrieval_task(mteb, corpus, queries, qrels))
    for metric in ours.metric_names:
        assert ours.mean(metric) == pytest.approx(theirs[metric.replace("@", "_at_")], abs=5e-5)


def test_roles_reach_the_encoder(mteb, judged):
    corpus, queries, qrels, vectors = judged
    encoder = Lookup(vectors)
    run(mteb, encoder, retrieval_task(mteb, corpus, queries, qrels))
    assert set(encoder.seen["query"]) == set(queries.values())
    assert set(encoder.seen["document"]) == {d.content for d in corpus}


def test_sts_agrees(mteb):
    rng = np.random.default_rng(1)
    texts = [f"t{i}" for i in range(60)]
    encoder = Lookup({t: rng.normal(size=8) for t in texts})
    left, right, gold = texts[:30], texts[30:], rng.integers(0, 6, 30).tolist()
    ours, theirs = STSTask(left, right, gold).score(encoder), run(mteb, encoder, sts_task(mteb, left, right, gold))
    assert ours.mean("spearman") == pytest.approx(theirs["cosine_spearman"], abs=5e-5)
    assert ours.mean("pearson") == pytest.approx(theirs["cosine_pearson"], abs=5e-5)


def test_model_card_names_the_space(mteb):
    card = as_mteb(Lookup({}, space=Space("minilm", 384))).mteb_model_meta
    assert (card.name, card.embed_dim) == ("isometry/minilm", 384)
    assert as_mteb(Lookup({}, space=Space("org/model", 8))).mteb_model_meta.name == "org/model"


def test_without_mteb_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mteb.models.model_meta", None)
    with pytest.raises(MissingExtra, match=r"isometry\[eval\]"):
        as_mteb(Lookup({}))


@pytest.mark.slow
@pytest.mark.data
def test_real_sets_agree(mteb, data_root, reference_model):
    import csv
    import gzip

    from tasks.test_tasks_retrieval import read_beir

    corpus, queries, qrels = read_beir(data_root / "ir" / "adi")
    documents = [Document(i, text, title=title) for i, (title, text) in corpus.items()]
    ours = RetrievalTask(documents, queries, qrels, metrics=["ndcg@10", "map@100"]).score(reference_model)
    theirs = run(mteb, reference_model, retrieval_task(mteb, documents, queries, qrels))
    assert ours.mean("ndcg@10") == pytest.approx(theirs["ndcg_at_10"], abs=5e-5)
    assert ours.mean("map@100") == pytest.approx(theirs["map_at_100"], abs=5e-5)

    with gzip.open(data_root / "sts" / "stsb" / "en-test.tsv.gz", "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[:100]
    left, right = [r["sentence1"] for r in rows], [r["sentence2"] for r in rows]
    gold = [float(r["score"]) for r in rows]
    ours, theirs = (
        STSTask(left, right, gold).score(reference_model),
        run(mteb, reference_model, sts_task(mteb, left, right, gold)),
    )
    assert ours.mean("spearman") == pytest.approx(theirs["cosine_spearman"], abs=5e-5)
    assert ours.mean("spearman") > 0.75
