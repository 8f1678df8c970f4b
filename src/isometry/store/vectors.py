"""Vectors in the database: one row each, little-endian float32, with a checksum that also covers whose it is."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from isometry.errors import CorruptStore, InputError, SpaceMismatch
from isometry.store.schema import vectors_table
from isometry.types import Embeddings, FloatArray, Space, id_array

CHUNK: Final = 8192  # rows read at once: bounds what is held twice


@dataclass(frozen=True)
class StoredSpace:
    """A space of a collection: its number, and the commit that brought it."""

    key: int
    space: Space
    is_default: bool
    since: int


def spaces(db: sqlite3.Connection) -> dict[str, StoredSpace]:
    """Spaces by id, in the order they came.

    Raises
    ------
    CorruptStore
        If a space no longer has the id it was stored under.
    """
    found = {}
    for key, identity, text, is_default, since in db.execute("SELECT * FROM spaces ORDER BY key"):
        try:
            space = Space.from_json(text)
            intact = space.id == identity
        except (ValueError, TypeError, KeyError):
            intact = False
        if not intact:
            raise CorruptStore(f"The record of the space {identity!r} is damaged; restore the collection from a copy.")
        found[identity] = StoredSpace(key, space, bool(is_default), since)
    return found


def add_space(db: sqlite3.Connection, space: Space, *, default: bool, sequence: int) -> StoredSpace:
    """Make room for the vectors of one more space."""
    if default:
        db.execute("UPDATE spaces SET is_default = 0")
    # AUTOINCREMENT never gives a key twice, so nothing cached under an old one is taken for the new.
    key = db.execute(
        "INSERT INTO spaces (id, space, is_default, since) VALUES (?, ?, ?, ?)",
        (space.id, space.to_json(), default, sequence),
    ).lastrowid
    assert key is not None
    for statement in vectors_table(key).split(";"):
        db.execute(statement)
    return StoredSpace(key, space, default, sequence)


def remove_space(db: sqlite3.Connection, stored: StoredSpace) -> None:
    """Forget a space and its vectors."""
    db.execute(f"DROP TABLE vectors_{stored.key}")
    db.execute("DELETE FROM spaces WHERE key = ?", (stored.key,))


def align(embeddings: Embeddings, ids: Sequence[str]) -> FloatArray:
    """Vectors in the order of ``ids``.

    Raises
    ------
    InputError
        If the ids are not the same set, or an item has several vectors.
    """
    if embeddings.multi:
        raise InputError("A collection stores one vector per document; pool multi-vector embeddings first.")
    given = embeddings.ids.tolist()
    if given == list(ids):
        return embeddings.vectors
    position = {identity: i for i, identity in enumerate(given)}
    if len(position) != len(given):
        raise InputError("Two embeddings have the same id; an id names one document.")
    if odd := sorted(set(ids) ^ set(given))[:3]:
        raise InputError(f"Documents and embeddings must have the same ids; only one side has {', '.join(odd)}.")
    return embeddings.vectors[[position[identity] for identity in ids]]


def checksum(identity: str, blob: bytes) -> int:
    """CRC-32 of an id and a vector's bytes, so that a broken index cannot give a vector to another document."""
    return zlib.crc32(blob, zlib.crc32(identity.encode()))


def write(db: sqlite3.Connection, key: int, rows: Mapping[str, int], vectors: FloatArray, sequence: int) -> None:
    """Insert or replace the vectors of documents, given their row numbers by id in the order of the vectors."""
    blobs = (row.tobytes() for row in vectors.astype("<f4", copy=False))
    db.executemany(
        f"INSERT OR REPLACE INTO vectors_{key} VALUES (?, ?, ?, ?)",
        ((row, sequence, checksum(i, blob), blob) for (i, row), blob in zip(rows.items(), blobs, strict=True)),
    )


def read(
    db: sqlite3.Connection, stored: StoredSpace, *, since: int | None = None, rows: Sequence[int] | None = None
) -> Embeddings:
    """Vectors of a space: all, those written after a commit, or those of document ``rows`` in their order.

    Raises
    ------
    CorruptStore
        If a vector does not fit its checksum or width, or belongs to no document.
    """
    table, dim = f"vectors_{stored.key} AS v", stored.space.dim
    names = "SELECT rowid, id FROM documents"  # of all documents: served by the index on id alone
    source, parameters = f"{table} ORDER BY v.document", list[int | str]()
    if since is not None:
        source, parameters = f"{table} WHERE v.sequence > ? ORDER BY v.document", [since]
        names += f" WHERE rowid IN (SELECT document FROM vectors_{stored.key} WHERE sequence > ?)"
    elif rows is not None:
        source = f"json_each(?) AS j CROSS JOIN {table} ON v.document = j.value ORDER BY j.key"
        names += " WHERE rowid IN (SELECT value FROM json_each(?))"
        parameters = [json.dumps(list(rows))]
    by_row = dict(db.execute(names, parameters))
    found = db.execute(f"SELECT v.document, v.checksum, v.vector FROM {source}", parameters)
    ids: list[str] = []
    parts = [np.empty((0, dim), np.float32)]
    while chunk := found.fetchmany(CHUNK):
        for row, expected, blob in chunk:
            identity = by_row.get(row)
            known = isinstance(identity, str) and isinstance(blob, bytes) and len(blob) == 4 * dim
            if not known or checksum(str(identity), blob) != expected:
                raise CorruptStore(
                    f"The vector of document {identity!r} (row {row}) in {stored.space.name} does not fit its "
                    "checksum; restore the collection from a copy, or embed the document again."
                )
            ids.append(str(identity))
        parts.append(np.frombuffer(b"".join(row[2] for row in chunk), "<f4").reshape(-1, dim))
    vectors = np.concatenate(parts).astype(np.float32, copy=False)
    return Embeddings(vectors, id_array(ids), stored.space, role="document")


def require(stored: dict[str, StoredSpace], space: Space) -> StoredSpace:
    """The stored space that equals ``space``.

    Raises
    ------
    SpaceMismatch
        If the collection has no vectors of it.
    """
    if space.id in stored:
        return stored[space.id]
    there = " and ".join(f"{s.space.name} [{s.space.id}]" for s in stored.values())
    raise SpaceMismatch(
        f"The collection holds vectors of {there}, not of {space.name} [{space.id}]; "
        "embed with the same model, prompts and transforms."
    )
