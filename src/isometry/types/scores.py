"""Measured values, one per unit: never only a mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from isometry.types.arrays import Json, id_array

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, eq=False)
class Scores:
    """Measured values, one row per unit (a query, a pair, a cluster run ...): columns of equal length.

    The mean over units of one metric is the figure that is reported; error bars come from `isometry.stats`.

    Parameters
    ----------
    task, system
        What was measured on what.
    units
        object array of ``str`` ``[n]``: the query id, pair number ...
    metrics
        object array of ``str`` ``[n]``, e.g. ``"ndcg@10"``.
    values
        float64 ``[n]``, higher is better unless the metric's name says otherwise.
    seed
        The seed of the run.
    """

    task: str
    system: str
    units: NDArray[np.object_]
    metrics: NDArray[np.object_]
    values: NDArray[np.float64]
    seed: int = 0
    facts: Mapping[str, Json] = field(default_factory=dict)

    @classmethod
    def of(
        cls, task: str, system: str, values: Mapping[str, Mapping[str, float]], *, seed: int = 0, **facts: Json
    ) -> Scores:
        """Build from ``{metric: {unit: value}}``."""
        rows = [(u, m, v) for m, by_unit in values.items() for u, v in by_unit.items()]
        return cls(
            task,
            system,
            id_array(r[0] for r in rows),
            id_array(r[1] for r in rows),
            np.asarray([r[2] for r in rows], np.float64),
            seed=seed,
            facts=facts,
        )

    def __len__(self) -> int:
        return len(self.values)

    @property
    def metric_names(self) -> list[str]:
        """Metrics in order of first appearance."""
        return list(dict.fromkeys(self.metrics.tolist()))

    def by_unit(self, metric: str) -> dict[str, float]:
        """Return ``{unit: value}`` of one metric."""
        mask = self.metrics == metric
        return dict(zip(self.units[mask].tolist(), self.values[mask].tolist(), strict=True))

    def mean(self, metric: str) -> float:
        """Mean of one metric over its units; NaN when there is none."""
        values = self.values[self.metrics == metric]
        return float(values.mean()) if len(values) else float("nan")

    def to_arrow(self) -> pa.Table:
        """Return a table ``task, system, seed, unit, metric, value``."""
        import pyarrow as pa

        n = len(self)
        return pa.table(
            {
                "task": pa.array([self.task] * n, pa.string()),
                "system": pa.array([self.system] * n, pa.string()),
                "seed": pa.array([self.seed] * n, pa.int64()),
                "unit": pa.array(self.units.tolist(), pa.string()),
                "metric": pa.array(self.metrics.tolist(), pa.string()),
                "value": pa.array(self.values),
            }
        )
