"""What compressing vectors after the fact keeps of their neighbours, at which real size, and how fast it decodes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isometry.codes import LowRankCode, MagnitudeCode, PrunedCode, TensorTrainCode
from isometry.errors import UnknownName
from isometry.modules.embedding_tables import compressed_table
from isometry.numerics.budget import infeasible
from isometry.types import FloatArray, Scores, check_vectors


@dataclass(frozen=True, eq=False)
class Compressed:
    """A compressed table: its reconstruction, its real ratio (every byte), what it took, and how to decode rows.

    Parameters
    ----------
    vectors
        The reconstruction, float32 ``[n, d]``.
    ratio
        Bytes of everything stored over ``4 n d``.
    seconds
        Processor time to compress and reconstruct.
    decode
        Rows ``[b]`` to vectors ``[b, d]``.
    """

    vectors: FloatArray
    ratio: float
    seconds: float
    decode: Callable[[Any], FloatArray]


Compressor = Callable[..., tuple[Callable[[Any], FloatArray], float]]


def _table(method: str, x: FloatArray, budget: float, **options: Any) -> tuple[Callable[[Any], FloatArray], float]:
    table = compressed_table(method, x.shape[0], x.shape[1], budget, **options).compress(x)
    return table.decode, table.ratio()


def _code(make: Callable[..., Any], x: FloatArray, budget: float, **options: Any) -> tuple[Any, float]:
    code = make(budget, **options).fit(x)
    return code.inverse_transform, code.ratio


def _svd(x: FloatArray, budget: float) -> tuple[Callable[[Any], FloatArray], float]:
    n, d = x.shape
    rank = min(n, d, int((budget * n * d - d) / (n + d)))  # n rows and d axes of that many numbers, and the mean
    if rank < 1:
        raise infeasible("SVD", budget, (n + 2 * d) / (n * d))
    code = LowRankCode(rank)
    packed = code.fit_transform(x)
    return lambda rows: code.inverse_transform(packed[rows]), (packed.nbytes + code.overhead_bytes) / (4 * n * d)


COMPRESSORS: Mapping[str, Compressor] = {
    "INT": partial(_table, "int"),
    "PQ": partial(_table, "dpq"),
    "MagPQ": partial(_code, MagnitudeCode),
    "SVD": _svd,
    "MagSVD": partial(_code, partial(MagnitudeCode, kind="svd")),
    "TT-SVD": partial(_code, TensorTrainCode),
    "pruning": partial(_code, PrunedCode),
    "DHE": partial(_table, "dhe"),
}


def compress_vectors(name: str, vectors: Any, budget: float, **options: Any) -> Compressed:
    """Compress vectors ``[n, d]`` by a method of `COMPRESSORS`, the largest configuration within the budget.

    >>> made = compress_vectors("SVD", np.eye(64), 0.5)
    >>> made.ratio <= 0.5, made.decode([3, 4]).shape
    (True, (2, 64))

    Raises
    ------
    UnknownName
        If there is no such method.
    BudgetInfeasible
        If the method cannot be that small.
    """
    if name not in COMPRESSORS:
        raise UnknownName("compressor", name, COMPRESSORS)
    x = check_vectors(vectors)
    started = time.process_time()
    decode, ratio = COMPRESSORS[name](x, budget, **options)
    return Compressed(decode(np.arange(len(x))), ratio, time.process_time() - started, decode)


def nearest_by_product(vectors: FloatArray, queries: FloatArray, k: int) -> NDArray[np.int64]:
    """Rows ``[q, k]`` of the k largest dot products, ties to the earlier row."""
    return np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :k].astype(np.int64)


def neighbour_recall(name: str, vectors: FloatArray, queries: FloatArray, truth: NDArray[np.int64]) -> Scores:
    """Share of the true neighbours ``[q, k]`` among the k nearest in the reconstruction, per query."""
    k = truth.shape[1]
    found = nearest_by_product(vectors, queries, k)
    recall = {str(i): float(np.isin(row, truth[i]).mean()) for i, row in enumerate(found)}
    return Scores.of("neighbours", name, {f"recall@{k}": recall})


def decode_times(
    decode: Callable[[Any], FloatArray], n: int, *, batch: int = 1024, repeats: int = 7, seed: int = 0
) -> list[float]:
    """Milliseconds of processor time to decode a batch of random rows, repeated; a first, warming, call is not counted.

    Processor time, so that what else the machine does is not measured.
    """
    rng, taken = np.random.default_rng(seed), list[float]()
    for _ in range(repeats + 1):
        rows = rng.integers(0, n, batch)
        started = time.process_time()
        decode(rows)
        taken.append(1e3 * (time.process_time() - started))
    return taken[1:]
