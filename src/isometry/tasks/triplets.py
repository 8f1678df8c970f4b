"""Triplet accuracy: is the anchor nearer to its positive than to its negative?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from isometry.errors import EmptyInput
from isometry.tasks.encoding import encode, row_similarity, system_name
from isometry.types import Scores


@dataclass(frozen=True, eq=False)
class TripletTask:
    """Share of triplets whose anchor is strictly nearer to the positive; chance is .5 for triplets not chosen by model.

    Parameters
    ----------
    rows
        (anchor, positive, negative), at least one.
    name
        Name of the task in the scores.

    Raises
    ------
    EmptyInput
        If there is no row.
    """

    rows: Sequence[tuple[str, str, str]]
    name: str = "triplets"

    def __post_init__(self) -> None:
        if not self.rows:
            raise EmptyInput(f"{self.name!r} needs at least one triplet.")

    def score(self, system: Any, seed: int = 0) -> Scores:
        """Score an encoder: ``accuracy`` 0 or 1, and ``margin`` in cosine, of every triplet."""
        anchors, positives, negatives = zip(*self.rows, strict=True)
        a = encode(system, anchors, "query")
        near, far = (row_similarity(a, encode(system, side, "document"), "cosine") for side in (positives, negatives))
        values = {"accuracy": (near > far).astype(float), "margin": near - far}
        rows = {metric: {str(i): v for i, v in enumerate(found.tolist())} for metric, found in values.items()}
        return Scores.of(self.name, system_name(system), rows, seed=seed)
