"""What moves the recall of an HNSW index: dimension, insertion order, parameters, implementation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from isometry.diagnostics.insertion_order import OrderName, insertion_order
from isometry.errors import EmptyInput, MissingExtra, UnknownName
from isometry.types import FloatArray, Scores
from isometry.types.progress import Progress

TIE = 1e-6  # a found neighbour counts if it is as near as the k-th exact one up to this: real sets hold duplicates
FAISS_CHUNK = 20  # faiss reorders the rows of one add(): an order is imposed by adding few rows at a time


class Built(Protocol):
    """An index that was filled in a given order."""

    def search(self, queries: FloatArray, k: int, *, ef: int) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
        """Return rows of the nearest, int ``[q, k]``, and distance computations per query where they are counted."""
        ...


@dataclass(frozen=True)
class Parameters:
    """HNSW parameters; the defaults are the median of those that vector databases ship (arXiv:2405.17813)."""

    m: int = 16
    ef_construction: int = 128
    ef: int = 10


@dataclass(frozen=True)
class StudyRow:
    """Recall of one backend, order, parameter set and seed, per query, with what it cost."""

    backend: str
    order: str
    parameters: Parameters
    seed: int
    recall: Scores
    distances_per_query: float | None
    build_seconds: float


class _Usearch:
    def __init__(self, vectors: FloatArray, parameters: Parameters, seed: int) -> None:
        from usearch.index import Index

        self.index = Index(
            ndim=vectors.shape[1],
            metric="cos",
            dtype="f32",
            connectivity=parameters.m,
            expansion_add=parameters.ef_construction,
        )
        self.index.add(np.arange(len(vectors)), vectors, threads=1)

    def search(self, queries: FloatArray, k: int, *, ef: int) -> tuple[NDArray[Any], None]:
        self.index.expansion_search = ef
        return np.asarray(self.index.search(queries, k, threads=1).keys).astype(np.int64), None


class _Hnswlib:
    def __init__(self, vectors: FloatArray, parameters: Parameters, seed: int) -> None:
        import hnswlib

        self.index = hnswlib.Index("cosine", vectors.shape[1])
        self.index.init_index(
            len(vectors), M=parameters.m, ef_construction=parameters.ef_construction, random_seed=seed + 1
        )
        self.index.add_items(vectors, num_threads=1)

    def search(self, queries: FloatArray, k: int, *, ef: int) -> tuple[NDArray[Any], None]:
        self.index.set_ef(max(ef, k))
        return self.index.knn_query(queries, k, num_threads=1)[0].astype(np.int64), None


class _Faiss:
    def __init__(self, vectors: FloatArray, parameters: Parameters, seed: int) -> None:
        faiss: Any = import_module("faiss")
        self.index = faiss.IndexHNSWFlat(vectors.shape[1], parameters.m)
        self.index.hnsw.efConstruction = parameters.ef_construction
        self.index.hnsw.rng = faiss.RandomGenerator(seed + 1)
        for start in range(0, len(vectors), FAISS_CHUNK):
            self.index.add(np.ascontiguousarray(vectors[start : start + FAISS_CHUNK]))

    def search(self, queries: FloatArray, k: int, *, ef: int) -> tuple[NDArray[Any], None]:
        self.index.hnsw.efSearch = ef
        return self.index.search(queries, k)[1], None


def _graph(vectors: FloatArray, parameters: Parameters, seed: int) -> Built:
    from isometry.indexes.hnsw_graph import HNSWGraph

    return HNSWGraph.build(vectors, m=parameters.m, ef_construction=parameters.ef_construction, seed=seed)


BACKENDS: dict[str, Callable[[FloatArray, Parameters, int], Built]] = {
    "graph": _graph,
    "usearch": _Usearch,
    "faiss": _Faiss,
    "hnswlib": _Hnswlib,
}


def installed_backends() -> list[str]:
    """Names of the HNSW implementations that can be studied here."""
    return ["graph", *(name for name in ("usearch", "faiss", "hnswlib") if find_spec(name))]


def exact_neighbours(vectors: FloatArray, queries: FloatArray, k: int) -> tuple[NDArray[np.int64], FloatArray]:
    """Rows ``[q, k]`` and cosine similarities of the k nearest of each query, by brute force; rows must be unit."""
    from isometry.indexes import Exact
    from isometry.types import Embeddings, Space, id_array

    space = Space("study", vectors.shape[1])
    corpus = Embeddings(vectors, id_array(str(i) for i in range(len(vectors))), space)
    asked = Embeddings(queries, id_array(str(i) for i in range(len(queries))), space)
    hits = Exact.of(corpus).search(asked, k)
    shape = (len(queries), min(k, len(vectors)))
    return hits.ids.astype(np.int64).reshape(shape), hits.scores.reshape(shape)


def recall_per_query(
    found: NDArray[Any], vectors: FloatArray, queries: FloatArray, kth_similarity: FloatArray
) -> NDArray[np.float64]:
    """Share of the rows found ``[q, k]`` that are as near as the k-th exact neighbour (``TIE``), float64 ``[q]``.

    A row of -1 means nothing was found there.
    """
    similarity = np.einsum("qkd,qd->qk", vectors[found], queries)
    return np.asarray(((similarity >= kth_similarity[:, None] - TIE) & (found >= 0)).mean(axis=1), np.float64)


def index_study(
    vectors: FloatArray,
    queries: FloatArray,
    *,
    orders: Sequence[OrderName] = ("random",),
    backends: Sequence[str] = ("graph",),
    parameters: Iterable[Parameters] = (Parameters(),),
    seeds: Sequence[int] = (0,),
    k: int = 10,
    labels: NDArray[np.object_] | None = None,
    local_dimension: NDArray[np.float64] | None = None,
    progress: Progress | None = None,
) -> list[StudyRow]:
    """Build every backend in every order and measure recall@k against exact search (Elliott & Clark, 2405.17813).

    Parameters
    ----------
    vectors, queries
        Unit rows, float32 ``[n, d]`` and ``[q, d]``.
    orders, backends, parameters, seeds
        The grid. A seed draws the levels and the random parts of an order. Parameter sets that differ in ``ef``
        alone share one build. Insertion is single-threaded: several threads would be another random order.
    labels
        For the order ``"labels"``.
    local_dimension
        Pointwise dimension of ``vectors``, if known; else computed once when an order needs it.

    Raises
    ------
    UnknownName, MissingExtra
        If a backend does not exist, or is not installed.
    EmptyInput
        If there are not k vectors to find.
    """
    if len(vectors) < k:
        raise EmptyInput(f"Measuring recall@{k} needs at least {k} vectors, got {len(vectors)}.")
    for name in backends:
        if name not in BACKENDS:
            raise UnknownName("HNSW backend", name, BACKENDS)
        if name not in installed_backends():
            raise MissingExtra(name, "peers", "study it")
    if local_dimension is None and any(order.startswith("lid") for order in orders):
        from isometry.diagnostics.intrinsic_dimension import lid

        local_dimension = lid(vectors, min(100, len(vectors) - 1))
    kth = exact_neighbours(vectors, queries, k)[1][:, -1]
    builds: dict[tuple[int, int], list[Parameters]] = {}
    for p in parameters:
        builds.setdefault((p.m, p.ef_construction), []).append(p)
    grid = [(s, o, b, g) for s in seeds for o in orders for b in backends for g in builds.values()]
    rows = []
    for done, (seed, order, backend, group) in enumerate(grid):
        rank = insertion_order(vectors, order, seed=seed, local_dimension=local_dimension, labels=labels)
        placed = np.ascontiguousarray(vectors[rank])
        started = time.perf_counter()
        built = BACKENDS[backend](placed, group[0], seed)
        seconds = time.perf_counter() - started
        for p in group:
            found, computed = built.search(queries, k, ef=p.ef)
            values = recall_per_query(found, placed, queries, kth)
            recall = Scores.of(
                f"recall@{k}", f"{backend}, {order}", {"recall": {str(i): v for i, v in enumerate(values)}}, seed=seed
            )
            cost = None if computed is None else float(computed.mean())
            rows.append(StudyRow(backend, order, p, seed, recall, cost, seconds))
        if progress is not None:
            progress(done + 1, len(grid))
    return rows


def mean_over_seeds(rows: Iterable[StudyRow]) -> Scores:
    """Average the per-query recall of runs that differ in their seed."""
    runs = [row.recall for row in rows]
    units = runs[0].by_unit("recall")
    values = {unit: float(np.mean([run.by_unit("recall")[unit] for run in runs])) for unit in units}
    return Scores.of(runs[0].task, runs[0].system, {"recall": values})
