"""Exact search side by side with faiss IndexFlatIP: one query, and batches.

    python benchmarks/flat.py [--n 100000] [--threads 1] [--repeats 7] [--k 10]

Vectors are a clustered Gaussian mixture with a falling spectrum, 384 wide, unit norm (what text encoders give, but
made from a seed). Libraries take turns within every round, so that other load on the machine hits both; reported are
medians and the median of the per-round ratios. "GEMM alone" computes all scores and keeps none. faiss appears twice: as
installed, and with ``distance_compute_blas_threshold`` lowered so that it uses matrix products for small batches too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

FIGURES = Path(__file__).parent / "figures" / "flat.json"
DIM = 384
BATCHES = (1, 8, 64, 256, 1000)


def vectors(n: int, seed: int):
    import numpy as np

    rng = np.random.default_rng(seed)
    spectrum = (1 + np.arange(DIM, dtype=np.float32)) ** -0.4
    centres = rng.standard_normal((500, DIM), dtype=np.float32) * spectrum
    x = centres[rng.integers(500, size=n)] + rng.standard_normal((n, DIM), dtype=np.float32) * spectrum
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def rounds(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):  # the first round warms up and is not counted
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if turn:
                times[name].append(time.perf_counter() - started)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(arguments.threads)
    rows = [row for batch in BATCHES for row in compare(batch, arguments)]
    record = {"n": arguments.n, "dim": DIM, "k": arguments.k, "threads": arguments.threads, "rows": rows}
    FIGURES.parent.mkdir(exist_ok=True)
    FIGURES.write_text(json.dumps(record, indent=1) + "\n")


def product(x, q) -> None:
    """All scores, by blocks that fit the cache, and nothing done with them: no exact search can be faster."""
    import numpy as np

    right = np.ascontiguousarray(q.T)
    rows = max(256, (1 << 20) // len(q))
    out = np.empty((rows, len(q)), np.float32)
    for start in range(0, len(x), rows):
        block = x[start : start + rows]
        np.matmul(block, right, out=out[: len(block)])


def compare(batch: int, arguments: argparse.Namespace) -> list[dict[str, object]]:
    import faiss
    import numpy as np

    from isometry.indexes import Exact
    from isometry.types import Embeddings, Space, id_array

    faiss.omp_set_num_threads(arguments.threads)
    space = Space("mixture", DIM)
    x, q = np.split(vectors(arguments.n + batch, seed=0), [arguments.n])
    ids = id_array(map(str, range(arguments.n)))
    queries = Embeddings(q, id_array(map(str, range(batch))), space)
    ours = {d: Exact(space, dtype=d) for d in ("float16", "int8")} | {"float32": Exact.of(Embeddings(x, ids, space))}
    ours["float16"].add(Embeddings(x, ids, space))
    ours["int8"].add(Embeddings(x, ids, space))
    flat = faiss.IndexFlatIP(DIM)
    flat.add(x)
    installed = faiss.cvar.distance_compute_blas_threshold

    def peer(threshold: int) -> Callable[[], object]:
        def search() -> object:
            faiss.cvar.distance_compute_blas_threshold = threshold
            return flat.search(q, arguments.k)

        return search

    ways = {f"exact {d}": (lambda d=d: ours[d].search(queries, arguments.k)) for d in ("float32", "float16", "int8")}
    ways |= {"faiss": peer(installed), "faiss tuned": peer(20), "GEMM alone": lambda: product(x, q)}
    found = ours["float32"].search(queries, arguments.k).ids.astype(np.int64).reshape(batch, -1)
    same = float((found == flat.search(q, arguments.k)[1]).mean())
    times = rounds(ways, arguments.repeats)
    result = []
    for name, seconds in times.items():
        median = statistics.median(seconds)
        ratio = {peer: statistics.median(b / a for a, b in zip(seconds, times[peer], strict=True)) for peer in
                 ("faiss", "faiss tuned", "GEMM alone")}  # fmt: skip
        result.append({"batch": batch, "index": name, "ms": median * 1000, "qps": batch / median,
                       "speed_over": ratio, "same_ids": same if name == "exact float32" else None})  # fmt: skip
        print(f"{batch:>5} {name:<15} {median * 1000:>9.2f} ms {batch / median:>8.0f} q/s  "
              f"{ratio['faiss']:.2f}x faiss, {ratio['faiss tuned']:.2f}x tuned, "
              f"{ratio['GEMM alone']:.2f} of the product alone")  # fmt: skip
    return result


if __name__ == "__main__":
    main()
