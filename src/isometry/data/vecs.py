"""Vector files of the ANN benchmarks (``fvecs``, ``ivecs``) and the folders of filtered-search benchmarks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isometry.errors import DataFormatError
from isometry.files import write_whole
from isometry.types import FloatArray, Json

_TYPES = {".fvecs": np.dtype("<f4"), ".ivecs": np.dtype("<i4")}


def read_vecs(path: str | Path) -> list[NDArray[Any]]:
    """Read a file of records, each a 32-bit length d and d values: float32 (``.fvecs``) or int32 (``.ivecs``).

    Rows may differ in length, as ground truth does where fewer than k items match.

    Raises
    ------
    DataFormatError
        If the suffix is another, a length is negative, or the file ends within a record.
    """
    target = Path(path)
    kind = _kind(target)
    raw = target.read_bytes()
    if len(raw) % 4:
        raise DataFormatError(target, None, f"{len(raw)} bytes are no whole number of 32-bit values; copy it again.")
    lengths, values = np.frombuffer(raw, "<i4"), np.frombuffer(raw, kind)
    rows: list[NDArray[Any]] = []
    at = 0
    while at < len(lengths):
        d = int(lengths[at])
        if d < 0 or at + 1 + d > len(lengths):
            raise DataFormatError(target, None, f"record {len(rows)} claims {d} values, which the file does not hold.")
        rows.append(values[at + 1 : at + 1 + d].astype(kind.newbyteorder("=")))
        at += 1 + d
    return rows


def write_vecs(path: str | Path, rows: Iterable[NDArray[Any]]) -> None:
    """Write what `read_vecs` reads, whole or not at all."""
    kind = _kind(Path(path))
    write_whole(
        path, b"".join(np.array([len(r)], "<i4").tobytes() + np.asarray(r).astype(kind).tobytes() for r in rows)
    )


def read_objects(path: str | Path) -> list[dict[str, Json]]:
    """Read one JSON object a line.

    Raises
    ------
    DataFormatError
        With the line that is none.
    """
    records = []
    with Path(path).open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                record = json.loads(line)
            except ValueError as error:
                raise DataFormatError(path, number, f"this line is not JSON ({error}).") from error
            if not isinstance(record, dict):
                raise DataFormatError(path, number, "this line is no JSON object; write one object per item.")
            records.append(record)
    return records


@dataclass(frozen=True, eq=False)
class FilteredSet:
    """A benchmark of filtered search: n items with attributes, queries, and filters by type.

    Parameters
    ----------
    vectors, queries
        float32 ``[n, d]`` and ``[q, d]``.
    attributes
        One JSON object per item, of any schema.
    filters
        By type (``"em"``, ``"r"``, ``"emis"``), one object per query: ``{"label": ...}`` or
        ``{"range_start": ..., "range_end": ...}``.
    truth
        By type (``""``: no filter), the nearest rows of each query; sentinels (negative rows) are taken out.
    """

    vectors: FloatArray
    queries: FloatArray
    attributes: list[dict[str, Json]]
    filters: Mapping[str, list[dict[str, Json]]]
    truth: Mapping[str, list[NDArray[np.int32]]]


def read_filtered_set(folder: str | Path) -> FilteredSet:
    """Read the folder of a filtered-search benchmark.

    It holds ``database_vectors.fvecs``, ``query_vectors.fvecs``, ``database_attributes.jsonl`` and, by type,
    ``<type>_query_attributes.jsonl`` and ``ground_truth[_<type>].ivecs``.

    Raises
    ------
    DataFormatError
        If a file is missing, rows differ in width, or counts disagree.
    """
    root = Path(folder)
    for name in ("database_vectors.fvecs", "query_vectors.fvecs", "database_attributes.jsonl"):
        if not (root / name).is_file():
            raise DataFormatError(root, None, f"{name} is missing; a filtered-search benchmark has one.")
    vectors, queries = _matrix(root / "database_vectors.fvecs"), _matrix(root / "query_vectors.fvecs")
    attributes = read_objects(root / "database_attributes.jsonl")
    _same(root / "database_attributes.jsonl", len(attributes), len(vectors), "items")
    filters, truth = {}, {}
    for path in sorted(root.glob("*_query_attributes.jsonl")):
        filters[path.name.removesuffix("_query_attributes.jsonl")] = read_objects(path)
        _same(path, len(filters[path.name.removesuffix("_query_attributes.jsonl")]), len(queries), "queries")
    for path in sorted(root.glob("ground_truth*.ivecs")):
        rows = read_vecs(path)
        _same(path, len(rows), len(queries), "queries")
        truth[path.stem.removeprefix("ground_truth").removeprefix("_")] = [row[row >= 0] for row in rows]
    return FilteredSet(vectors, queries, attributes, filters, truth)


def _kind(path: Path) -> np.dtype[Any]:
    if path.suffix not in _TYPES:
        raise DataFormatError(path, None, "only .fvecs and .ivecs are known; rename or convert the file.")
    return _TYPES[path.suffix]


def _matrix(path: Path) -> FloatArray:
    rows = read_vecs(path)
    if len({len(row) for row in rows}) > 1:
        raise DataFormatError(path, None, "its vectors differ in width; all must have the same.")
    return np.array(rows, np.float32).reshape(len(rows), -1)


def _same(path: Path, found: int, wanted: int, what: str) -> None:
    if found != wanted:
        raise DataFormatError(path, None, f"it has {found} rows for {wanted} {what}; there must be one each.")
