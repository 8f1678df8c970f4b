"""Filtered search at every selectivity and grain, side by side with what else one would do.

    python benchmarks/filtered.py [--repeats 3] [--queries 300]

Vectors: WordNet glosses by all-MiniLM-L6-v2, k = 10. A filter passes 0.1, 1, 10, 50 or 100 % of the rows: at random
("none"), those nearest to the queries' own neighbourhood ("positive": queries are rows near one direction), or those
farthest from it ("negative"). Baselines: exact search among the rows that pass (one matrix product for the whole
batch), post-filtering (faiss HNSW asked for k / selectivity rows, doubled until enough pass), and faiss HNSW with an
IDSelector, each at the smallest of its grid of widths that reaches recall .95, or the widest. CPU microseconds a query
in one batch, evaluation of the filter not counted for anyone; medians over interleaved repeats.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

FIGURES = Path(__file__).parent / "figures" / "filtered.json"
K = 10
SHARES = (0.001, 0.01, 0.1, 0.5, 1.0)
WIDTHS = (32, 64, 128, 256, 512, 1024, 2048)
ENOUGH = 0.95


def cases(x, q_all, queries: int):
    """(share, grain, queries, mask) for every cell."""
    import numpy as np

    rng = np.random.default_rng(0)
    direction = x[rng.integers(len(x))]
    nearness = x @ direction
    about = q_all[np.argsort(-(q_all @ direction))[:queries]]
    for share in SHARES:
        count = round(share * len(x))
        for grain, key, q in (
            ("none", rng.random(len(x)), q_all[:queries]),
            ("positive", -nearness, about),
            ("negative", nearness, about),
        ):
            mask = np.zeros(len(x), bool)
            mask[np.argsort(key)[:count]] = True
            yield share, grain, q, mask


def contenders(x):
    """By name: ``(q, mask, width) -> rows [q, 10]``, and which widths to try."""
    import faiss
    import numpy as np

    from isometry.indexes import CodeGraph, CodeScan
    from isometry.types import Embeddings, Space, id_array

    faiss.omp_set_num_threads(1)
    space = Space("minilm", 384)
    base = Embeddings(x, id_array(map(str, range(len(x)))), space)
    mine = {"isometry CodeGraph": CodeGraph(space), "isometry CodeScan": CodeScan(space)}
    for index in mine.values():
        index.add(base)
    graph = faiss.IndexHNSWFlat(384, 16, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = 200
    graph.add(x)

    def ours(index):
        def ask(q, mask, width):
            hits = index.search(Embeddings(q, id_array(map(str, range(len(q)))), space), K, mask)
            return hits.ids.astype(np.int64).reshape(len(q), -1)

        return ask

    def subset(q, mask, width):
        rows = np.flatnonzero(mask)
        scores = q @ x[rows].T
        near = np.argpartition(-scores, K - 1, axis=1)[:, :K]
        return rows[near]

    def post(q, mask, width):
        graph.hnsw.efSearch = width
        want, found = min(len(x), int(K / mask.mean()) + K), np.full((len(q), K), -1)
        pending = np.arange(len(q))
        while len(pending):
            graph.hnsw.efSearch = max(width, want)
            got = graph.search(q[pending], want)[1]
            passes = mask[got] & (got >= 0)
            done = (passes.sum(axis=1) >= K) | (want >= len(x))
            for i in np.flatnonzero(done):
                good = got[i][passes[i]][:K]
                found[pending[i], : len(good)] = good
            pending, want = pending[~done], min(len(x), want * 2)
        return found

    def selector(q, mask, width):
        bits = np.packbits(mask, bitorder="little")
        chosen = faiss.IDSelectorBitmap(len(x), faiss.swig_ptr(bits))
        return graph.search(q, K, params=faiss.SearchParametersHNSW(sel=chosen, efSearch=width))[1]

    return {
        "isometry CodeGraph": (ours(mine["isometry CodeGraph"]), (64,)),
        "isometry CodeScan": (ours(mine["isometry CodeScan"]), (0,)),
        "exact on the subset": (subset, (0,)),
        "post-filter, faiss HNSW": (post, (32, 128)),
        "faiss HNSW IDSelector": (selector, WIDTHS),
    }


def recall(found, truth) -> float:
    return float(sum(len(set(a) & set(b)) for a, b in zip(found.tolist(), truth.tolist(), strict=True)) / truth.size)


def clock(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--queries", type=int, default=300)
    arguments = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = "1"
    import glosses

    x, q_all = glosses.split()
    ways, rows = contenders(x), []
    for share, grain, q, mask in cases(x, q_all, arguments.queries):
        truth = ways["exact on the subset"][0](q, mask, 0)
        chosen = {}
        for name, (ask, widths) in ways.items():
            if name.startswith("post") and share < 0.01:
                continue  # asks for every row
            for width in widths:
                reached = recall(ask(q, mask, width), truth)
                chosen[name] = (ask, width, reached)
                if reached >= ENOUGH:
                    break
        times: dict[str, list[float]] = {name: [] for name in chosen}
        for _ in range(arguments.repeats):
            for name, (ask, width, _) in chosen.items():
                times[name].append(1e6 * clock(partial(ask, q, mask, width)) / len(q))
        medians = {name: statistics.median(values) for name, values in times.items()}
        best = min(v for n, v in medians.items() if not n.startswith("isometry") and chosen[n][2] >= ENOUGH)
        for name, (_, width, reached) in chosen.items():
            rows.append({
                "share": share, "grain": grain, "index": name, "width": width, "recall": round(reached, 4),
                "batch_us": round(medians[name], 1), "over_best_baseline": round(medians[name] / best, 2),
            })  # fmt: skip
            print(f"{share:>6} {grain:<9}{name:<26}{medians[name]:>10.1f} us  recall {reached:.4f}  "
                  f"{medians[name] / best:.2f}x", flush=True)  # fmt: skip
    FIGURES.write_text(json.dumps({"n": len(x), "k": K, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
