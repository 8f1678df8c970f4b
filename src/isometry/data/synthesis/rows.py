"""Synthetic rows, with where they came from, in memory and on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from isometry.errors import DataFormatError
from isometry.files import write_whole


@dataclass(frozen=True)
class Provenance:
    """Where a synthetic row came from.

    Parameters
    ----------
    generator
        Who wrote it, with its version or model.
    modes
        What was asked for, in order.
    source
        The id of the document or row that it was made from.
    seed
        Of the texts.
    configuration
        Who asked, and how; empty where nothing was configured.
    """

    generator: str
    modes: tuple[str, ...]
    source: str
    seed: int
    configuration: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SyntheticRow:
    """A query, what answers it, perhaps what nearly does; and the similarity that a filter measured."""

    query: str
    positive: str
    provenance: Provenance
    negative: str = ""
    similarity: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SyntheticRow:
        """Read the JSON form."""
        origin = values["provenance"]
        return cls(**{**values, "provenance": Provenance(**{**origin, "modes": tuple(origin["modes"])})})


def write_rows(rows: Sequence[SyntheticRow], path: str | Path) -> None:
    """Write rows as JSON lines, whole or not at all."""
    write_whole(path, "".join(json.dumps(row.to_dict(), ensure_ascii=False) + "\n" for row in rows).encode())


def read_rows(path: str | Path) -> list[SyntheticRow]:
    """Read what `write_rows` wrote.

    Raises
    ------
    DataFormatError
        If a line is not such a row; names the line.
    """
    rows = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        try:
            rows.append(SyntheticRow.from_dict(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            raise DataFormatError(path, number, f"this is no synthetic row ({error}).") from error
    return rows
