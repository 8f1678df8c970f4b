"""Hybrid and vector search against BM25 alone, on the judged queries of real sets, with intervals.

    python benchmarks/hybrid.py

Ways to fuse are compared on development sets (the training judgments of SciFact, CISI, ADI); the default was chosen
there. SciFact's and Cranfield's test judgments then show what it gives.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

FIGURES = Path(__file__).parent / "figures" / "hybrid.json"
SETS = {
    "development": (("ir/scifact", "train"), ("ir/cisi", "test"), ("ir/adi", "test")),
    "test": (("ir/scifact", "test"), ("ir/cranfield", "test")),
}


def ways(name: str, split: str, cache: str) -> list[dict[str, Any]]:
    from isometry.data import load_set
    from isometry.encoders import EmbeddingCache, embed, load
    from isometry.indexes import Exact
    from isometry.ranking import BM25, Retrieve, fuse
    from isometry.stats import bootstrap_mean_ci, compare
    from isometry.tasks import evaluate_run
    from isometry.types import Queries
    from isometry.workbench.searching import hybrid

    judged, encoder = load_set(name, kind="retrieval", split=split), load("minilm")
    documents = list(judged.corpus)
    with EmbeddingCache(cache) as known:
        emb = embed(
            encoder, [d.content for d in documents], ids=[d.id for d in documents], role="document",
            on_truncate="ignore", allow_empty=True, cache=known,
        )  # fmt: skip
    vector, keyword = Retrieve(encoder, Exact.of(emb), k=100), BM25(documents, k=100)
    queries = Queries.of({query: judged.queries[query] for query in judged.qrels})
    systems = {
        "hybrid, scores (default)": hybrid(vector, keyword),
        "hybrid, rrf": hybrid(vector, keyword, "rrf"),
        "hybrid, z-scores": fuse(vector, keyword, how="weighted", weights=(0.5, 0.5), normalise="zscore"),
        "vector": vector,
    }
    baseline = evaluate_run(judged.qrels, keyword(queries), metrics=("ndcg@10",))
    rows = []
    for label, system in systems.items():
        scores = evaluate_run(judged.qrels, system(queries), metrics=("ndcg@10",))
        own, gain = bootstrap_mean_ci(list(scores.by_unit("ndcg@10").values())), compare(scores, baseline, "ndcg@10")
        rows.append(
            {"set": f"{name} ({split})", "way": label, "n": gain.n, "ndcg@10": gain.mean_method, "ci95": list(own),
             "keyword": gain.mean_baseline, "delta": gain.delta, "delta_ci95": list(gain.ci95), "p": gain.p}
        )  # fmt: skip
        print(
            f"{name} {split}, {label}: {gain.mean_method:.4f}, {gain.delta:+.4f} over BM25 {gain.ci95}, p {gain.p:.4f}"
        )
    return rows


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cache = str(Path(folder) / "vectors.sqlite")
        figures = {
            part: [row for name, split in sets for row in ways(name, split, cache)] for part, sets in SETS.items()
        }
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
