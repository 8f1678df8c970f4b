"""Vectors with their ids and space: one per item, or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from isometry.errors import DataFormatError, InputError
from isometry.types.arrays import FloatArray, IntArray, check_vectors, id_array
from isometry.types.space import Space

if TYPE_CHECKING:
    import pyarrow as pa

Role = Literal["query", "document"]
_SPACE_KEY = b"isometry.space"
_ROLE_KEY = b"isometry.role"


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Vectors with their ids and space.

    Parameters
    ----------
    vectors
        float32 ``[n, d]``; for multi-vector embeddings ``[t, d]``, the rows of all items one after the other.
    ids
        object array of ``str`` ``[n]``.
    space
        What the vectors mean.
    role
        ``"query"``, ``"document"`` or None when the encoder makes no difference.
    offsets
        int64 ``[n + 1]`` for multi-vector embeddings: item i owns rows ``offsets[i]:offsets[i + 1]``.
    cut_tokens
        int64 ``[n]``: tokens of each item that did not fit the encoder's window.
    """

    vectors: FloatArray
    ids: NDArray[np.object_]
    space: Space
    role: Role | None = None
    offsets: IntArray | None = None
    cut_tokens: IntArray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "vectors", check_vectors(self.vectors, dim=self.space.dim))
        if not (isinstance(self.ids, np.ndarray) and self.ids.dtype == object):
            object.__setattr__(self, "ids", id_array(self.ids))
        n = len(self.vectors) if self.offsets is None else len(self.offsets) - 1
        if len(self.ids) != n:
            raise InputError(f"{n} embeddings need {n} ids, got {len(self.ids)}.")
        if self.offsets is not None and (
            self.offsets[0] != 0 or self.offsets[-1] != len(self.vectors) or (np.diff(self.offsets) < 0).any()
        ):
            raise InputError(f"offsets must rise from 0 to {len(self.vectors)}, the number of rows.")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def multi(self) -> bool:
        """Whether an item has several vectors."""
        return self.offsets is not None

    def item(self, i: int) -> FloatArray:
        """Vectors of item i: ``[d]``, or ``[t_i, d]`` for multi-vector embeddings."""
        if self.offsets is None:
            return cast(FloatArray, self.vectors[i])
        return self.vectors[self.offsets[i] : self.offsets[i + 1]]

    def take(self, rows: Sequence[int] | NDArray[Any]) -> Embeddings:
        """Return the items at ``rows`` (positions or a boolean mask), in that order."""
        index = np.asarray(rows)
        index = np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)
        cut = None if self.cut_tokens is None else self.cut_tokens[index]
        if self.offsets is None:
            return replace(self, vectors=self.vectors[index], ids=self.ids[index], cut_tokens=cut)
        parts = [self.item(int(i)) for i in index]
        offsets = np.concatenate([[0], np.cumsum([len(p) for p in parts])]).astype(np.int64)
        vectors = np.concatenate(parts) if parts else self.vectors[:0]
        return replace(self, vectors=vectors, ids=self.ids[index], cut_tokens=cut, offsets=offsets)

    def to_arrow(self) -> pa.Table:
        """Return a table ``id, vector[, cut_tokens]`` whose schema metadata carries the space and role."""
        import pyarrow as pa

        flat = pa.FixedSizeListArray.from_arrays(pa.array(self.vectors.reshape(-1)), self.space.dim)
        vector: pa.Array = flat
        if self.offsets is not None:
            vector = pa.LargeListArray.from_arrays(pa.array(self.offsets), flat)
        columns: dict[str, Any] = {"id": pa.array(self.ids.tolist(), pa.string()), "vector": vector}
        if self.cut_tokens is not None:
            columns["cut_tokens"] = pa.array(self.cut_tokens)
        metadata = {_SPACE_KEY: self.space.to_json().encode()}
        if self.role is not None:
            metadata[_ROLE_KEY] = self.role.encode()
        return pa.table(columns).replace_schema_metadata(metadata)

    @classmethod
    def from_arrow(cls, table: pa.Table, *, source: str = "the Arrow table") -> Embeddings:
        """Inverse of `to_arrow`.

        Raises
        ------
        DataFormatError
            If the columns ``id`` and ``vector`` or the space in the metadata are missing.
        """
        metadata = table.schema.metadata or {}
        if missing := {"id", "vector"} - set(table.column_names):
            problem = f"columns {sorted(missing)} are missing; an embeddings file has id and vector."
            raise DataFormatError(source, None, problem)
        if _SPACE_KEY not in metadata:
            problem = "the schema metadata name no space; write the file with Embeddings.to_parquet."
            raise DataFormatError(source, None, problem)
        space = Space.from_json(metadata[_SPACE_KEY].decode())
        import pyarrow.types as pat

        column = table["vector"].combine_chunks()
        offsets = None
        if pat.is_large_list(table.schema.field("vector").type):
            offsets = np.asarray(column.offsets, dtype=np.int64)
            offsets = offsets - offsets[0]
            column = column.flatten()
        values = np.asarray(column.flatten(), dtype=np.float32).reshape(-1, space.dim)
        cut = table["cut_tokens"].to_numpy().astype(np.int64) if "cut_tokens" in table.column_names else None
        role = cast("Role | None", metadata[_ROLE_KEY].decode() if _ROLE_KEY in metadata else None)
        return cls(values, id_array(table["id"].to_pylist()), space, role=role, offsets=offsets, cut_tokens=cut)

    def to_parquet(self, path: str | Path) -> None:
        """Write `to_arrow` to a Parquet file."""
        import pyarrow.parquet as pq

        pq.write_table(self.to_arrow(), str(path))

    @classmethod
    def from_parquet(cls, path: str | Path) -> Embeddings:
        """Read a file written by `to_parquet`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(str(path))
        except pa.ArrowInvalid as error:
            raise DataFormatError(path, None, f"this is not a readable Parquet file ({error}).") from error
        return cls.from_arrow(table, source=str(path))
