"""A collection as one Parquet file and back: documents, the vectors of every space, and the owner's notes.

Columns ``id, vector, title, text, source, payload`` (JSON text), and ``vector:<space id>`` for each further space;
the schema metadata carry the spaces. `isometry.types.Embeddings.from_parquet` reads the file too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from isometry.errors import DataFormatError, InputError, StoreError
from isometry.store.fields import payload_json
from isometry.types import Document, Embeddings, Json

if TYPE_CHECKING:
    import pyarrow as pa

META: Final = b"isometry.meta"
TEXTS: Final = ("title", "text", "source", "payload")
OTHER: Final = "vector:"


def write(
    path: Path, documents: Sequence[Document], embeddings: Sequence[Embeddings], meta: Mapping[str, Json]
) -> None:
    """Write one file, whole or not at all; the first embeddings are those of the default space.

    Raises
    ------
    StoreError
        If the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = embeddings[0].to_arrow()
    metadata = {**table.schema.metadata, META: json.dumps(dict(meta)).encode()}
    columns = [[getattr(d, name) for d in documents] for name in TEXTS[:3]]
    for name, values in zip(TEXTS, [*columns, [payload_json(d.payload) for d in documents]], strict=True):
        table = table.append_column(name, pa.array(values, pa.string()))
    for other in embeddings[1:]:
        vectors = other.to_arrow()
        name = OTHER + other.space.id
        metadata[name.encode()] = other.space.to_json().encode()
        table = table.append_column(name, vectors["vector"])
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as stream:
            pq.write_table(table.replace_schema_metadata(metadata), stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)


def read(path: Path) -> tuple[list[Document], list[Embeddings], dict[str, Json]]:
    """Read what `write` wrote.

    Raises
    ------
    DataFormatError
        If it is no Parquet file, or columns or the space are missing.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    try:
        table = pq.read_table(str(path))
    except (pa.ArrowInvalid, OSError) as error:
        raise DataFormatError(path, None, f"this is not a readable Parquet file ({error}).") from error
    if missing := [name for name in TEXTS if name not in table.column_names]:
        problem = f"columns {missing} are missing; a collection is imported from what export wrote."
        raise DataFormatError(path, None, problem)
    try:
        return _documents(table), _embeddings(table, path), _meta(table)
    except (ValueError, TypeError, KeyError) as error:
        if isinstance(error, InputError):
            raise
        raise DataFormatError(path, None, f"a column or the metadata cannot be read ({error}).") from error


def _documents(table: pa.Table) -> list[Document]:
    rows = zip(*(table[name].to_pylist() for name in ("id", "text", "title", "source", "payload")), strict=True)
    return [Document(i, text, title, source, json.loads(payload)) for i, text, title, source, payload in rows]


def _embeddings(table: pa.Table, path: Path) -> list[Embeddings]:
    parts = [Embeddings.from_arrow(table, source=str(path))]
    metadata: dict[bytes, Any] = dict(table.schema.metadata)
    for name in table.column_names:
        if name.startswith(OTHER):
            other = table.select(["id", name]).rename_columns(["id", "vector"])
            space = {b"isometry.space": metadata[name.encode()]}
            parts.append(Embeddings.from_arrow(other.replace_schema_metadata(space), source=str(path)))
    return parts


def _meta(table: pa.Table) -> dict[str, Json]:
    meta: dict[str, Json] = json.loads((table.schema.metadata or {}).get(META, b"{}"))
    return meta
