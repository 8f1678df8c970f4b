"""Multi-vector search on one thread: exact MaxSim beside its peers, and the two-stage index.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python benchmarks/multi_vector.py [--out FILE]

Times are CPU time of the process, medians over interleaved repeats, so that other load on the machine counts for all
alike. Synthetic sets: documents of 80 tokens, 96-d, unit rows. Every 25 documents share a topic of 30 words out of
5,000 random unit vectors; a token is a word (with probability 0.6 of the topic, else any) plus noise of norm 0.5, made
unit again. A query is 32 tokens of one document with the same noise added once more. Real sets: last hidden states of
all-MiniLM-L6-v2 for WordNet glosses without special tokens, unit rows, 384-d. Both by fixed seeds.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from glosses import texts
from isometry.indexes import HNSW, MultiVectorIndex, maxsim_scores
from isometry.indexes.multi_vector import coarse
from isometry.spaces import FDE
from isometry.types import Embeddings, FloatArray, Space, id_array

DIM, TOKENS, ASKED, K = 96, 80, 32, 10
REPEATS = 9


def unit(x: np.ndarray) -> FloatArray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def synthetic(n: int, queries: int = 100, *, noise: float = 0.5, seed: int = 0) -> tuple[Embeddings, Embeddings]:
    rng = np.random.default_rng(seed)
    words = unit(rng.standard_normal((5000, DIM)))
    topics = rng.integers(0, 5000, (max(1, n // 25), 30))
    topic = rng.integers(0, len(topics), n)[:, None]
    of_topic = rng.random((n, TOKENS)) < 0.6
    word = np.where(of_topic, topics[topic, rng.integers(0, 30, (n, TOKENS))], rng.integers(0, 5000, (n, TOKENS)))
    x = np.empty((n * TOKENS, DIM), np.float32)
    for start in range(0, len(x), 1 << 18):
        part = words[word.reshape(-1)[start : start + (1 << 18)]]
        x[start : start + len(part)] = unit(part + noise * rng.standard_normal(part.shape) / np.sqrt(DIM))
    space = Space("synthetic", DIM, similarity="maxsim")
    documents = Embeddings(x, id_array(map(str, range(n))), space, offsets=np.arange(n + 1) * TOKENS)
    q = np.concatenate([documents.item(i)[rng.permutation(TOKENS)[:ASKED]] for i in rng.integers(0, n, queries)])
    q = unit(q + noise * rng.standard_normal(q.shape) / np.sqrt(DIM))
    return documents, Embeddings(q, id_array(map(str, range(queries))), space, offsets=np.arange(queries + 1) * ASKED)


def real(n: int, queries: int = 100) -> tuple[Embeddings, Embeddings]:
    from isometry.encoders.late_interaction import LateInteraction

    glosses = texts()
    chosen = [glosses[i] for i in np.random.default_rng(0).permutation(len(glosses))[: n + queries]]
    model = LateInteraction.of("minilm")
    return model.embed(chosen[queries:], on_truncate="ignore"), model.embed(chosen[:queries], role="query")


def interleaved(ways: dict[str, Callable[[], object]], repeats: int = REPEATS) -> dict[str, float]:
    """Median CPU milliseconds of each way, one repeat of each after the other."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.process_time()
            way()
            spent[name].append(1000 * (time.process_time() - start))
    return {name: round(median(values), 2) for name, values in spent.items()}


def by_blocks(x: FloatArray, q: FloatArray, documents: int = 64) -> FloatArray:
    """MaxSim by products small enough for their scores to stay in the cache."""
    parts = []
    for start in range(0, len(x), documents * TOKENS):
        scores = (x[start : start + documents * TOKENS] @ q.T).reshape(-1, TOKENS, len(q)).max(axis=1)
        parts.append(scores.reshape(len(scores), -1, ASKED).sum(axis=2))
    return np.concatenate(parts)


def exact_ways(documents: Embeddings, queries: Embeddings) -> dict[str, float]:
    """CPU milliseconds a query over all documents (all of one length here, which the peers need)."""
    import torch

    torch.set_num_threads(1)
    one, eight, shape = queries.take([0]), queries.take(range(8)), (len(documents), TOKENS)
    x, q, q8 = documents.vectors, one.vectors, eight.vectors
    tx, tq = torch.from_numpy(x), torch.from_numpy(q)
    hx, hq = tx.bfloat16(), tq.bfloat16()
    int8 = MultiVectorIndex(documents.space, dtype="int8")
    int8.add(documents)
    rows = np.arange(len(documents))
    ways: dict[str, Callable[[], object]] = {
        "numpy GEMM": lambda: (x @ q.T).reshape(*shape, -1).max(axis=1).sum(axis=1),
        "numpy GEMM by blocks": lambda: by_blocks(x, q),
        "numpy GEMM by blocks, 8 queries": lambda: by_blocks(x, q8),
        "torch float32": lambda: (tx @ tq.T).view(*shape, -1).amax(1).sum(1),
        "torch bfloat16": lambda: (hx @ hq.T).view(*shape, -1).amax(1).float().sum(1),
        "padded": lambda: maxsim_scores(one, documents, how="padded"),
        "fused": lambda: maxsim_scores(one, documents),
        "fused, 8 queries": lambda: maxsim_scores(eight, documents),
        "fused, int8 tokens": lambda: int8.scores(one, rows),
        "fused, int8 tokens, 8 queries": lambda: int8.scores(eight, rows),
    }
    assert np.allclose(ways["fused"](), ways["numpy GEMM"](), atol=1e-4)
    return {name: round(v / (8 if "8 queries" in name else 1), 2) for name, v in interleaved(ways).items()}


def loop_encode(fde: FDE, documents: Embeddings) -> FloatArray:
    """Encode document by document and token by token, as a direct transcription of the definition does."""
    draws, out = fde.draws, np.zeros((len(documents), fde.dim), np.float32)
    for i in range(len(documents)):
        tokens, blocks = documents.item(i), []
        for r in range(fde.repetitions):
            bits = tokens @ draws.hyperplanes[r] > 0
            inner = tokens @ draws.projections[r]
            sums, counts = np.zeros((fde.buckets, fde.block), np.float32), np.zeros(fde.buckets, np.int64)
            for t in range(len(tokens)):
                p = 0
                for bit in bits[t]:
                    p = (p << 1) + (int(bit) ^ (p & 1))
                sums[p] += inner[t]
                counts[p] += 1
            sums[counts > 0] /= counts[counts > 0, None]
            for p in np.flatnonzero(counts == 0):
                own = np.array([(p ^ (p >> 1)) >> (fde.k_sim - 1 - j) & 1 for j in range(fde.k_sim)], bool)
                sums[p] = inner[np.argmin((bits != own).sum(axis=1))]
            blocks.append(sums.reshape(-1))
        out[i] = np.concatenate(blocks)
    return out


def encoding(documents: Embeddings) -> dict[str, float]:
    """CPU seconds to encode all documents; the loop is timed on a fiftieth of them."""
    fde = FDE(k_sim=4, d_proj=16).fit(documents)
    few = documents.take(np.arange(len(documents) // 50))
    start = time.process_time()
    slow = loop_encode(fde, few)
    loop = 50 * (time.process_time() - start)
    assert np.allclose(slow, fde.transform(few).vectors, atol=1e-4)
    batch = interleaved({"batch": lambda: fde.transform(documents)}, 3)["batch"] / 1000
    return {"width": fde.dim, "loop s": round(loop, 1), "batch s": round(batch, 2), "times": round(loop / batch, 1)}


def two_stage(documents: Embeddings, queries: Embeddings, fde: FDE, name: str, depths: list[int]) -> dict[str, object]:
    """Recall against exact float32 MaxSim, CPU milliseconds a query (one at a time), bytes beside the raw tokens."""
    size, exact = max(1, (1 << 26) // len(documents)), []
    for start in range(0, len(queries), size):
        exact.append(maxsim_scores(queries.take(range(start, min(start + size, len(queries)))), documents))
    best = np.argsort(-np.concatenate(exact), axis=1, kind="stable")[:, :K]
    first = coarse if name == "exact" else lambda space: HNSW(space, rescore="int8", threads=1)
    index = MultiVectorIndex(documents.space, fde=fde, first=first, dtype="int8")
    start = time.process_time()
    index.add(documents)
    built = time.process_time() - start
    ones = [queries.take([i]) for i in range(len(queries))]
    rows = {}
    for candidates in depths:
        found = [index.search(one, K, candidates=candidates) for one in ones]
        recall = np.mean([np.isin(documents.ids[b], h.ids).mean() for b, h in zip(best, found, strict=True)])
        times = interleaved({"all": lambda n=candidates: [index.search(one, K, candidates=n) for one in ones]}, 5)
        rows[candidates] = {"recall@10": round(float(recall), 4), "ms": round(times["all"] / len(ones), 2)}
    with tempfile.TemporaryDirectory() as folder:
        index.save(folder)
        stored = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    return {"first stage": name, "fde": f"R={fde.repetitions} k={fde.k_sim} d_proj={fde.d_proj}",
            "width": index.fde.dim, "build s": round(built, 1), "by candidates": rows,
            "bytes / raw float32": round(stored / documents.vectors.nbytes, 4)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "figures" / "multi_vector.json")
    parser.add_argument("--large", type=int, default=50_000)
    options = parser.parse_args()
    documents, queries = synthetic(5000)
    figures: dict[str, object] = {"machine": platform.processor() or platform.machine(), "threads": 1,
                                  "documents": 5000, "tokens": TOKENS, "dim": DIM, "query tokens": ASKED}  # fmt: skip
    figures["exact, CPU ms a query"] = exact_ways(documents, queries)
    figures["encoding 5,000 documents"] = encoding(documents)
    narrow = FDE(k_sim=2, d_proj=16)
    figures["two stages, synthetic 5,000"] = two_stage(documents, queries, narrow, "exact", [50, 100, 200])
    figures["two stages, synthetic 5,000, graph"] = two_stage(documents, queries, narrow, "hnsw", [50, 100, 200])
    print(json.dumps(figures, indent=1), flush=True)
    glosses, asked = real(5000)
    figures["two stages, glosses 5,000"] = two_stage(glosses, asked, narrow, "exact", [100, 200, 400])
    wide = FDE(k_sim=1, repetitions=12, d_proj=48)
    figures["two stages, glosses 5,000, few buckets"] = two_stage(glosses, asked, wide, "exact", [100, 200, 400])
    print(json.dumps(figures, indent=1), flush=True)
    large, asked = synthetic(options.large)
    figures[f"two stages, synthetic {options.large:,}"] = two_stage(large, asked, narrow, "exact", [100, 200, 400])
    figures[f"exact over {options.large:,}, CPU ms a query"] = interleaved(
        {"fused": lambda: maxsim_scores(asked.take([0]), large)}, 3
    )["fused"]
    options.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
