"""Approximate search side by side with the libraries of the field, on real vectors: time, bytes and build at recall.

    python benchmarks/vectors.py [--n 0] [--repeats 5] [--threads 1] [--only NAME ...] [--growth]

Vectors: WordNet glosses by all-MiniLM-L6-v2 (``benchmarks/glosses.py``), 1,000 of them held out as queries, k = 10,
recall against exact search. Every index is built once; for each target the cheapest setting of a grid that reaches it
is found; then all indexes take turns, query by query and in one batch, in CPU time of this process (other load on the
machine hits all alike). Ours answer with string ids and scores, through the same `search` a user calls. Bytes are
those of the index in memory with all it needs to answer (floats for ranking again included), string ids excluded.
Peers that are not installed are left out: pip install "isometry[peers]" brings them (hnswlib needs a compiler).

``--growth`` shows ours at 10,000, 100,000 and 1,000,000 vectors and fits the exponents; above the real set's size the
vectors are gloss vectors moved by noise within the set's own covariance.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

FIGURES = Path(__file__).parent / "figures"
TARGETS = (0.95, 0.99)
K = 10


class Contender:
    """An index under test: ``search(queries [q, d], setting) -> rows [q, 10]``."""

    def __init__(self, name: str, build: Callable[[Any], Any], search: Callable[[Any, Any, Any], Any], grid: Iterable,
                 size: Callable[[Any], float]) -> None:  # fmt: skip
        self.name, self._build, self._search, self.grid, self._size = name, build, search, list(grid), size

    def build(self, x) -> None:
        self._build(x[:2000])  # compiles, loads libraries
        started = time.process_time()
        self.index = self._build(x)
        self.build_s = time.process_time() - started
        self.megabytes = self._size(self.index) / 1e6

    def search(self, queries, setting):
        return self._search(self.index, queries, setting)


def ours(threads: int) -> list[Contender]:
    import numpy as np

    from isometry.indexes import CodeGraph, CodeScan, Exact
    from isometry.types import Embeddings, Space, id_array

    space = Space("minilm", 384)

    def emb(x):
        return Embeddings(x, id_array(map(str, range(len(x)))), space)

    def build(cls, **options):
        def make(x):
            index = cls(space, **options)
            index.add(emb(x))
            index.search(emb(x[:2]), K)
            return index

        return make

    def rows(hits):
        found = np.full((len(hits), K), -1)
        counts = np.diff(hits.offsets)
        found[np.arange(K) < counts[:, None]] = hits.ids.astype(np.int64)
        return found

    def ask(index, q, setting):
        for name, value in setting.items():
            setattr(index, name, value)
        return rows(index.search(emb(q), K))

    widths = [{"expansion_search": w} for w in (12, 14, 16, 18, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96)]
    over = [{"oversample": o} for o in ((8, 2), (12, 3), (16, 3), (24, 3), (32, 3), (48, 4))]
    return [
        Contender("isometry CodeGraph", build(CodeGraph, threads=threads), ask, widths, lambda i: i.nbytes),
        Contender("isometry CodeGraph, degree 24", build(CodeGraph, degree=24, expansion_add=100, threads=threads), ask,
                  widths, lambda i: i.nbytes),
        Contender("isometry CodeScan", build(CodeScan), ask, over, lambda i: i.nbytes),
        Contender("isometry Exact", build(Exact), ask, [{}], lambda i: len(i) * 4 * 384),
    ]  # fmt: skip


def saved(write: Callable[[Any, str], None]) -> Callable[[Any], float]:
    """Bytes of what an index writes."""

    def size(index) -> float:
        with tempfile.TemporaryDirectory() as folder:
            write(index, str(Path(folder) / "index"))
            return sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file())

    return size


def faiss_peers(threads: int) -> list[Contender]:
    import faiss

    faiss.omp_set_num_threads(threads)
    faiss.cvar.distance_compute_blas_threshold = 20  # as installed, batches below 333 queries take a slow path
    size = saved(faiss.write_index)

    def factory(text: str):
        def make(x):
            index = faiss.index_factory(384, text, faiss.METRIC_INNER_PRODUCT)
            if "HNSW" in text:
                index.hnsw.efConstruction = 200
            index.train(x)
            index.add(x)
            return index

        return make

    def hnsw(index, q, ef):
        index.hnsw.efSearch = ef
        return index.search(q, K)[1]

    def ivf(index, q, setting):
        index.k_factor = setting[1]
        faiss.downcast_index(index.base_index).nprobe = setting[0]
        return index.search(q, K)[1]

    widths = (16, 20, 24, 28, 32, 40, 48, 64, 80, 96, 128, 192, 256)
    return [
        Contender("faiss Flat", factory("Flat"), lambda i, q, s: i.search(q, K)[1], [0], size),
        Contender("faiss HNSW16", factory("HNSW16,Flat"), hnsw, widths, size),
        Contender("faiss HNSW16,SQ8", factory("HNSW16,SQ8"), hnsw, widths, size),
        Contender("faiss IVF1024,PQ96x4fs,RFlat", factory("IVF1024,PQ96x4fs,RFlat"), ivf,
                  [(p, f) for p in (40, 64, 80, 128, 160, 256) for f in (4, 10, 20)], size),
    ]  # fmt: skip


def hnswlib_peer(threads: int) -> list[Contender]:
    import hnswlib

    def make(x):
        index = hnswlib.Index("ip", 384)
        index.init_index(len(x), M=16, ef_construction=200)
        index.set_num_threads(threads)
        index.add_items(x, num_threads=1)
        return index

    def ask(index, q, ef):
        index.set_ef(ef)
        return index.knn_query(q, K, num_threads=threads)[0]

    size = saved(lambda i, path: i.save_index(path))
    return [Contender("hnswlib M16", make, ask, (16, 20, 24, 28, 32, 48, 64, 80, 96, 128), size)]


def usearch_peer(threads: int) -> list[Contender]:
    import numpy as np
    from usearch.index import Index

    def make(x):
        index = Index(ndim=384, metric="ip", dtype="bf16", connectivity=16, expansion_add=200)
        index.add(np.arange(len(x), dtype=np.uint64), x, threads=1)
        return index

    def ask(index, q, ef):
        index.expansion_search = ef
        return np.asarray(index.search(q, K, threads=threads).keys).reshape(len(q), K)

    size = saved(lambda i, path: i.save(path))
    return [Contender("usearch bf16 M16", make, ask, (16, 20, 24, 28, 32, 48, 64, 80, 96, 128, 160), size)]


def scann_peer(threads: int) -> list[Contender]:
    import scann

    def make(x):
        builder = scann.scann_ops_pybind.builder(x, K, "dot_product")
        builder = builder.tree(num_leaves=500, num_leaves_to_search=32, training_sample_size=len(x))
        builder = builder.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(30)
        return builder.set_n_training_threads(1).build()

    def ask(index, q, setting):
        options = {"leaves_to_search": setting[0], "pre_reorder_num_neighbors": setting[1]}
        if len(q) == 1:
            return index.search(q[0], K, **options)[0][None]
        return index.search_batched(q, K, **options)[0]

    def write(index, path):
        Path(path).mkdir()
        index.serialize(path)

    grid = [(leaves, pre) for leaves in (16, 24, 32, 48, 64, 96, 128) for pre in (30, 60)]
    return [Contender("ScaNN", make, ask, grid, saved(write))]


def rabitq_peer(threads: int) -> list[Contender]:
    import numpy as np
    import rabitqlib

    def make(x):
        index = rabitqlib.SymqgIndex(384, 32, "l2")
        index.build(np.ascontiguousarray(x), 200, num_threads=1)
        return index

    def ask(index, q, ef):
        first, second = index.search_batch(q, K, ef, num_threads=threads)
        ids = first if np.issubdtype(np.asarray(first).dtype, np.integer) else second
        return np.asarray(ids).reshape(len(q), K)

    size = saved(lambda i, path: i.save(path))
    return [Contender("SymphonyQG (rabitqlib)", make, ask, (20, 24, 28, 32, 40, 48, 64, 80, 96, 128), size)]


def turbo_peer(threads: int) -> list[Contender]:
    import numpy as np
    import turbovec

    def make(x):
        index = turbovec.TurboQuantIndex(384, 4)
        index.add(x)
        index.prepare()
        return index, x

    def ask(index, q, over):
        coded, x = index
        found = np.asarray(coded.search(q, over * K)[1]).reshape(len(q), -1).astype(np.int64)
        scores = np.einsum("qkd,qd->qk", x[found], q)
        return np.take_along_axis(found, np.argsort(-scores, axis=1)[:, :K], axis=1)

    return [Contender("turbovec 4-bit flat + floats", make, ask, (1, 2, 3), lambda i: len(i[1]) * (196 + 4 * 384))]


PEERS = (faiss_peers, hnswlib_peer, usearch_peer, scann_peer, rabitq_peer, turbo_peer)


def recall(found, truth) -> float:
    return float(sum(len(set(a) & set(b)) for a, b in zip(found.tolist(), truth.tolist(), strict=True)) / truth.size)


def exact(x, q):
    import numpy as np

    rows = []
    for part in np.array_split(q, max(1, len(q) // 250)):
        scores = part @ x.T
        near = np.argpartition(-scores, K, axis=1)[:, :K]
        rows.append(near)
    return np.concatenate(rows)


def clock(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def choose(contender: Contender, q, truth) -> list[dict]:
    """Per target, the cheapest setting that reaches it: its recall, and which setting."""
    tried = []
    for setting in contender.grid:
        contender.search(q[:50], setting)
        result: dict[str, Any] = {}
        seconds = clock(lambda s=setting, r=result: r.update(found=contender.search(q, s)))
        tried.append((seconds, recall(result["found"], truth), setting))
    chosen = []
    for target in TARGETS:
        good = [t for t in tried if t[1] >= target]
        if good:
            seconds, reached, setting = min(good, key=lambda t: t[0])
            chosen.append({"target": target, "recall": reached, "setting": setting})
    return chosen


def interleaved(contenders: list[Contender], plans: dict[str, list[dict]], q, repeats: int) -> list[dict]:
    """All contenders in turns: CPU microseconds a query in one batch and one by one; medians of the repeats."""
    jobs = [(c, plan, [], []) for c in contenders for plan in plans[c.name]]
    few = [q[i : i + 1] for i in range(200)]
    for turn in range(repeats + 1):
        for contender, plan, batch, single in jobs:
            batched = clock(lambda c=contender, p=plan: c.search(q, p["setting"])) / len(q)
            one = clock(lambda c=contender, p=plan: [c.search(v, p["setting"]) for v in few]) / len(few)
            if turn:
                batch.append(1e6 * batched)
                single.append(1e6 * one)
    return [
        {
            "index": c.name, "target": p["target"], "recall": round(p["recall"], 4), "setting": str(p["setting"]),
            "batch_us": round(statistics.median(batch), 1), "single_us": round(statistics.median(single), 1),
            "megabytes": round(c.megabytes, 1), "build_cpu_s": round(c.build_s, 1),
        }
        for c, p, batch, single in jobs
    ]  # fmt: skip


def compare(arguments: argparse.Namespace) -> None:
    import glosses

    x, q = glosses.split()
    x = x[: arguments.n or len(x)].copy()
    truth = exact(x, q)
    contenders = []
    for maker in (ours, *PEERS):
        try:
            contenders += [c for c in maker(arguments.threads) if not arguments.only or c.name in arguments.only]
        except ImportError as error:
            print(f"left out: {error}", flush=True)
    plans = {}
    for contender in contenders:
        contender.build(x)
        plans[contender.name] = choose(contender, q, truth)
        print(f"built {contender.name}: {contender.build_s:.1f} CPU s, {contender.megabytes:.0f} MB", flush=True)
    rows = interleaved(contenders, plans, q, arguments.repeats)
    record = {"n": len(x), "dim": 384, "k": K, "threads": arguments.threads, "repeats": arguments.repeats, "rows": rows}
    name = "vectors.json" if arguments.threads == 1 else f"vectors-{arguments.threads}-threads.json"
    if not arguments.only:
        (FIGURES / name).write_text(json.dumps(record, indent=1) + "\n")
    show(rows)


def show(rows: list[dict]) -> None:
    for target in TARGETS:
        print(f"\nrecall@10 >= {target}: CPU us a query in a batch, one by one; MB; build CPU s")
        for row in sorted((r for r in rows if r["target"] == target), key=lambda r: r["batch_us"]):
            print(
                f"  {row['index']:<32}{row['batch_us']:>9.1f}{row['single_us']:>9.1f}{row['megabytes']:>8.1f}"
                f"{row['build_cpu_s']:>8.1f}   recall {row['recall']:.4f} at {row['setting']}"
            )


def enlarged(x, n: int, seed: int = 0):
    """``n`` unit vectors: those there are, then copies moved by a third of the set's own spread."""
    import numpy as np

    if n <= len(x):
        return x[:n].copy()
    rng = np.random.default_rng(seed)
    root = np.linalg.cholesky(np.cov(x.T) + 1e-6 * np.eye(x.shape[1])).astype(np.float32)
    out = np.empty((n, x.shape[1]), np.float32)
    out[: len(x)] = x
    for start in range(len(x), n, 50_000):
        stop = min(n, start + 50_000)
        noise = rng.standard_normal((stop - start, x.shape[1]), dtype=np.float32) @ root.T
        moved = x[rng.integers(len(x), size=stop - start)] + 0.6 * noise
        out[start:stop] = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    return out


def growth(arguments: argparse.Namespace) -> None:
    import numpy as np

    import glosses

    x, q = glosses.split(300)
    rows = []
    for n in (10_000, 100_000, 1_000_000):
        base = enlarged(x, n)
        truth = exact(base, q)
        contenders = [c for c in ours(arguments.threads) if "degree" not in c.name]
        plans = {}
        for contender in contenders:
            contender.build(base)
            plans[contender.name] = choose(contender, q, truth)
        for row in interleaved(contenders, plans, q, arguments.repeats):
            rows.append({"n": n, **row})
        show(rows[-6:])
    exponents = {}
    for name in {r["index"] for r in rows}:
        for key in ("batch_us", "single_us", "megabytes", "build_cpu_s"):
            points = [(r["n"], r[key]) for r in rows if r["index"] == name and r["target"] == 0.95 and r[key] > 0]
            if len(points) > 1:
                slope = np.polyfit(*np.log(np.asarray(points, float)).T, 1)[0]
                exponents.setdefault(name, {})[key] = round(float(slope), 3)
    record = {"dim": 384, "k": K, "threads": arguments.threads, "rows": rows, "exponents": exponents}
    (FIGURES / "growth.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(exponents, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=0, help="0: all")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--growth", action="store_true")
    arguments = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(arguments.threads)
    FIGURES.mkdir(exist_ok=True)
    growth(arguments) if arguments.growth else compare(arguments)


if __name__ == "__main__":
    main()
