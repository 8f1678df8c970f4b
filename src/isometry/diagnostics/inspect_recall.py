"""What recall an HNSW graph will have on these vectors: foretold from their local dimension, or measured on a sample.

The forecast rests on measurements with usearch, M = 16, efConstruction = 128, recall@10 of 500 held-out queries: random
subspaces of 128 dimensions (no clusters: the worst case of their dimension), and sentence vectors of 45,000 WordNet
glosses, whole and projected (clusters: the graph finds its way more easily than the dimension says). Where in between
other vectors lie is unknown, so a forecast is an interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from isometry.errors import InputError

EFS = (10, 32, 64, 128, 256)
_SIZES = (5_000, 40_000)
# Local dimension (20 neighbours, harmonic mean), then recall@10 by ef; for each size.
_ISOTROPIC = (
    (
        (1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
        (2.98, 0.9974, 1.0, 1.0, 1.0, 1.0),
        (6.73, 0.9728, 0.9996, 1.0, 1.0, 1.0),
        (9.94, 0.9296, 0.998, 1.0, 1.0, 1.0),
        (12.91, 0.8618, 0.9874, 0.9998, 1.0, 1.0),
        (15.46, 0.8058, 0.9744, 0.9972, 0.9998, 1.0),
        (17.88, 0.745, 0.9578, 0.9948, 0.9996, 1.0),
        (22.23, 0.6376, 0.8974, 0.9796, 0.9978, 1.0),
        (29.81, 0.52, 0.8196, 0.945, 0.9928, 0.9996),
        (36.48, 0.443, 0.745, 0.898, 0.9802, 0.9986),
        (47.31, 0.3498, 0.6328, 0.8262, 0.9514, 0.9946),
        (56.68, 0.2856, 0.5706, 0.765, 0.9204, 0.9868),
    ),
    (
        (0.99, 1.0, 1.0, 1.0, 1.0, 1.0),
        (2.97, 0.9976, 1.0, 1.0, 1.0, 1.0),
        (6.65, 0.9598, 0.9994, 1.0, 1.0, 1.0),
        (9.96, 0.897, 0.9938, 0.9998, 1.0, 1.0),
        (12.94, 0.7842, 0.9646, 0.9946, 0.9998, 1.0),
        (15.49, 0.6824, 0.9174, 0.9794, 0.9988, 1.0),
        (17.97, 0.5868, 0.862, 0.9602, 0.9956, 0.9994),
        (22.17, 0.4552, 0.7482, 0.8948, 0.9724, 0.9958),
        (29.94, 0.2736, 0.5452, 0.7384, 0.8914, 0.9718),
        (36.47, 0.194, 0.4232, 0.605, 0.796, 0.93),
        (47.6, 0.1252, 0.2892, 0.4452, 0.6312, 0.8294),
        (56.8, 0.0874, 0.2206, 0.3526, 0.5368, 0.7326),
    ),
)
_TEXT = (
    (
        (1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
        (9.15, 0.9492, 0.9978, 1.0, 1.0, 1.0),
        (11.48, 0.934, 0.9966, 0.999, 1.0, 1.0),
        (13.77, 0.917, 0.9896, 0.9984, 1.0, 1.0),
        (19.22, 0.8954, 0.9844, 0.9974, 0.9994, 1.0),
        (29.26, 0.7658, 0.9292, 0.9742, 0.993, 0.998),
    ),
    (
        (1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
        (9.08, 0.9158, 0.9934, 0.9998, 1.0, 1.0),
        (11.47, 0.903, 0.9884, 0.9968, 0.9994, 0.9998),
        (13.86, 0.8972, 0.9786, 0.995, 0.9986, 1.0),
        (19.24, 0.8864, 0.9782, 0.9906, 0.9972, 0.9984),
        (29.29, 0.7968, 0.9408, 0.9776, 0.9906, 0.9956),
    ),
)


@dataclass(frozen=True)
class RecallForecast:
    """Recall@10 of an HNSW graph searched at width ``ef``: from vectors without clusters to sentence vectors."""

    ef: int
    low: float
    high: float


def forecast_recall(local_dimension: float, size: int) -> tuple[RecallForecast, ...]:
    """Foretell HNSW recall@10 by ``ef`` for vectors of this local dimension (the module says from what).

    Recall is interpolated between the measured dimensions and, on the scale of log(size), between 5,000 and 40,000
    rows; beyond these it is that of the nearest.

    Parameters
    ----------
    local_dimension
        Harmonic mean of pointwise maximum-likelihood dimensions with 20 neighbours, of a sample of 5,000 rows.
    size
        Rows of the index.

    Examples
    --------
    >>> [(f.ef, round(f.low, 2), round(f.high, 2)) for f in forecast_recall(19.2, 5_000)][:2]
    [(10, 0.71, 0.9), (32, 0.94, 0.98)]
    """
    if not local_dimension > 0 or size < 1:
        raise InputError(f"local_dimension and size must be positive, got {local_dimension} and {size}.")
    forecasts = []
    for i, ef in enumerate(EFS):
        ends = [_interpolated(tables, local_dimension, size, i + 1) for tables in (_ISOTROPIC, _TEXT)]
        forecasts.append(RecallForecast(ef, min(ends), max(ends)))
    return tuple(forecasts)


def _interpolated(tables: tuple[Any, Any], dimension: float, size: int, column: int) -> float:
    ends = [float(np.interp(dimension, *np.asarray(table)[:, [0, column]].T)) for table in tables]
    return float(np.interp(np.log(size), np.log(_SIZES), ends))


def measure_recall(vectors: Any, *, most: int = 20_000, queries: int = 500, seed: int = 0) -> dict[int, float]:
    """Build an HNSW graph (usearch, M = 16, efConstruction = 128) on a sample and measure its recall@10 by ``ef``.

    Queries are rows held out of the sample; the truth is exact search in it.

    Parameters
    ----------
    vectors
        ``[n, d]``, finite and not zero; compared by cosine. The graph of more rows than ``most`` finds less than this.
    queries
        Rows held out, at most a fifth.

    Raises
    ------
    InputError
        If there are fewer than 100 usable rows.
    """
    from isometry.diagnostics.index_study import Parameters, index_study

    rows = np.asarray(vectors, np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    usable = np.flatnonzero(np.isfinite(norms[:, 0]) & (norms[:, 0] > 0))
    if len(usable) < 100:
        raise InputError(f"measuring recall needs at least 100 usable vectors, got {len(usable)}.")
    chosen = np.random.default_rng(seed).permutation(usable)[: most + queries]
    unit = rows[chosen] / norms[chosen]
    held_out = min(queries, len(unit) // 5)
    grid = [Parameters(ef=ef) for ef in EFS]
    found = index_study(unit[held_out:], unit[:held_out], backends=("usearch",), parameters=grid, seeds=(seed,))
    return {row.parameters.ef: row.recall.mean("recall") for row in found}
