"""Ranked answers, columnar."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from isometry.errors import InputError
from isometry.types.arrays import FloatArray, IntArray, id_array

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, eq=False)
class Hits:
    """Ranked answers, columnar: query i owns rows ``offsets[i]:offsets[i + 1]``, best first.

    Higher scores are better always. Ties break by id, rising. A query with fewer than k answers has fewer rows,
    never padding.

    Parameters
    ----------
    query_ids
        object array of ``str`` ``[q]``; queries without an answer stay listed.
    offsets
        int64 ``[q + 1]``.
    ids
        object array of ``str`` ``[h]``.
    scores
        float32 ``[h]``.
    contributions
        For explanations: by stage name, what that stage gave each row (float32 ``[h]``, NaN where it gave nothing).
    """

    query_ids: NDArray[np.object_]
    offsets: IntArray
    ids: NDArray[np.object_]
    scores: FloatArray
    contributions: Mapping[str, FloatArray] = field(default_factory=dict)

    @classmethod
    def build(
        cls,
        query_ids: Iterable[str],
        rows: Iterable[Iterable[tuple[str, float]]],
        *,
        k: int | None = None,
    ) -> Hits:
        """Sort each query's ``(id, score)`` rows by falling float32 score, then rising id, and keep the first k."""
        offsets: list[int] = [0]
        ids: list[str] = []
        scores: list[float] = []
        for row in rows:
            ranked = sorted(row, key=lambda pair: (-np.float32(pair[1]), pair[0]))[:k]
            ids.extend(pair[0] for pair in ranked)
            scores.extend(pair[1] for pair in ranked)
            offsets.append(len(ids))
        return cls(id_array(query_ids), np.asarray(offsets, np.int64), id_array(ids), np.asarray(scores, np.float32))

    def __post_init__(self) -> None:
        if len(self.offsets) != len(self.query_ids) + 1 or len(self.ids) != len(self.scores):
            raise InputError(
                f"Hits of {len(self.query_ids)} queries need {len(self.query_ids) + 1} offsets and as many ids as "
                f"scores, got {len(self.offsets)} offsets, {len(self.ids)} ids, {len(self.scores)} scores."
            )

    def __len__(self) -> int:
        return len(self.query_ids)

    def __iter__(self) -> Iterator[tuple[str, list[tuple[str, float]]]]:
        for i, query in enumerate(self.query_ids):
            yield query, self.row(i)

    def span(self, i: int) -> slice:
        """Rows of the i-th query."""
        return slice(int(self.offsets[i]), int(self.offsets[i + 1]))

    def row(self, i: int) -> list[tuple[str, float]]:
        """``(id, score)`` of the i-th query, best first."""
        span = self.span(i)
        return list(zip(self.ids[span].tolist(), self.scores[span].tolist(), strict=True))

    def to_run(self) -> dict[str, dict[str, float]]:
        """Return ``{query: {id: score}}``, the form trec tools read."""
        return {query: dict(row) for query, row in self}

    def to_arrow(self) -> pa.Table:
        """Return a table ``query_id, rank, id, score`` (rank counts from 1)."""
        import pyarrow as pa

        counts = np.diff(self.offsets)
        ranks = np.arange(len(self.ids)) - np.repeat(self.offsets[:-1], counts) + 1
        return pa.table(
            {
                "query_id": pa.array(np.repeat(self.query_ids, counts).tolist(), pa.string()),
                "rank": pa.array(ranks, pa.int64()),
                "id": pa.array(self.ids.tolist(), pa.string()),
                "score": pa.array(self.scores),
            }
        )
