"""Documents in the database: checked on the way in, checked again on the way out."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from isometry.errors import CorruptStore, InputError, UnknownName
from isometry.store.fields import (
    BOOL,
    NUMBER,
    OWN,
    PREFIX,
    STRING,
    Entry,
    check_text,
    payload_entries,
    payload_json,
)
from isometry.store.filter import Filter, Sql
from isometry.types import Document

COLUMNS: Final = "d.id, d.title, d.text, d.source, d.payload, d.checksum"
Record = tuple[str, str, str, str, str, int]


def _checksum(parts: Iterable[str]) -> int:
    return zlib.crc32("\0".join(parts).encode())


def prepare(documents: Sequence[Document]) -> list[tuple[Record, list[Entry]]]:
    """Check documents and turn them into rows.

    Raises
    ------
    InputError
        If an id is empty or twice there, a text cannot be stored, or a payload is not JSON.
    """
    prepared: dict[str, tuple[Record, list[Entry]]] = {}
    for position, document in enumerate(documents):
        if not isinstance(document, Document):
            raise InputError(f"Item {position} is a {type(document).__name__}, not a Document.")
        identity = check_text(document.id, f"The id of document {position}")
        if not identity:
            raise InputError(f"Document {position} has an empty id; give it one.")
        if identity in prepared:
            raise InputError(f"The id {identity!r} is given twice; an id names one document.")
        entries = payload_entries(document.payload, identity)
        texts = [check_text(getattr(document, name), f"The {name} of document {identity!r}") for name in OWN[1:]]
        title, source, text = texts
        parts = (identity, title, text, source, payload_json(document.payload))
        prepared[identity] = ((*parts, _checksum(parts)), entries)
    return list(prepared.values())


def write(db: sqlite3.Connection, prepared: Sequence[tuple[Record, list[Entry]]]) -> dict[str, int]:
    """Insert or replace documents and their fields; return their row numbers by id, in the order given."""
    db.executemany(
        "INSERT INTO documents (id, title, text, source, payload, checksum) VALUES (?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (id) DO UPDATE SET title = excluded.title, text = excluded.text, source = excluded.source, "
        "payload = excluded.payload, checksum = excluded.checksum",
        (record for record, _ in prepared),
    )
    rows = rows_of(db, [record[0] for record, _ in prepared])
    write_fields(db, ((rows[record[0]], entries) for record, entries in prepared))
    return {record[0]: rows[record[0]] for record, _ in prepared}


def write_fields(db: sqlite3.Connection, entries: Iterable[tuple[int, list[Entry]]]) -> None:
    """Replace the filterable fields of documents."""
    for row, found in entries:
        db.execute("DELETE FROM fields WHERE document = ?", (row,))
        db.executemany("INSERT OR IGNORE INTO fields VALUES (?, ?, ?, ?)", [(row, *entry) for entry in found])


def restore(record: Record) -> Document:
    """A row as a document.

    Raises
    ------
    CorruptStore
        If its checksum does not fit.
    """
    identity, title, text, source, payload, checksum = record
    try:
        if _checksum(record[:5]) == checksum:
            return Document(identity, text, title, source, json.loads(payload))
    except (TypeError, ValueError):  # a column is no text any more
        pass
    raise CorruptStore(f"Document {identity!r} does not fit its checksum; restore the collection from a copy.")


def rows_of(db: sqlite3.Connection, ids: Sequence[str]) -> dict[str, int]:
    """Row numbers by id, of the ids that are there."""
    found = db.execute(
        "SELECT d.id, d.rowid FROM json_each(?) AS j CROSS JOIN documents AS d ON d.id = j.value", (_listed(ids),)
    )
    return dict(found)


def _listed(ids: Sequence[str]) -> str:
    return json.dumps([check_text(i, "An id") for i in ids])


def require_rows(db: sqlite3.Connection, ids: Sequence[str]) -> list[int]:
    """Row numbers in the order of ``ids``.

    Raises
    ------
    UnknownName
        If a document is not there; names it.
    """
    rows = rows_of(db, ids)
    for identity in ids:
        if identity not in rows:
            known = [i for (i,) in db.execute("SELECT id FROM documents LIMIT 20000")]
            raise UnknownName("document", identity, known)
    return [rows[identity] for identity in ids]


def read(db: sqlite3.Connection, rows: Sequence[int]) -> list[Document]:
    """Documents in the order of their row numbers given."""
    query = f"SELECT {COLUMNS}, d.rowid FROM json_each(?) AS j CROSS JOIN documents AS d ON d.rowid = j.value"
    found = {row[6]: restore(row[:6]) for row in db.execute(query, (json.dumps(list(rows)),))}
    return [found[row] for row in rows]


def page(db: sqlite3.Connection, after: int, where: Sql, size: int) -> list[tuple[int, Document]]:
    """The next documents by row number after a row number."""
    condition, parameters = where
    query = f"SELECT {COLUMNS}, d.rowid FROM documents AS d WHERE d.rowid > ? AND {condition} ORDER BY d.rowid LIMIT ?"
    return [(row[6], restore(row[:6])) for row in db.execute(query, (after, *parameters, size))]


def select(db: sqlite3.Connection, what: str, where: Sql) -> Iterator[tuple[Any, ...]]:
    """Columns of the documents for which a condition holds."""
    condition, parameters = where
    yield from db.execute(f"SELECT {what} FROM documents AS d WHERE {condition}", parameters)


NAMES = {STRING: "text", NUMBER: "numbers", BOOL: "true or false"}


def check_kinds(db: sqlite3.Connection, where: str | Filter | None) -> None:
    """Raise `InputError` if a field is compared with a kind of value that no document has there."""
    condition = Filter.parse(where) if isinstance(where, str) else where
    for leaf in condition._leaves() if condition is not None else ():
        path = leaf.path.removeprefix(PREFIX)
        stored = {kind for (kind,) in db.execute("SELECT DISTINCT kind FROM fields WHERE path = ?", (path,))}
        held = ({STRING} if leaf.path in OWN else stored) & NAMES.keys()
        asked = leaf.kinds & NAMES.keys()
        if held and asked and not held & asked:
            holds, given = (" and ".join(NAMES[kind] for kind in sorted(kinds)) for kinds in (held, asked))
            raise InputError(f"The field {leaf.field!r} holds {holds}, the filter compares it with {given}.")


def compiled(db: sqlite3.Connection, where: str | Filter | None) -> Sql:
    """SQL of a filter, once its fields are known to be there.

    Raises
    ------
    FilterError
        If the expression cannot be read.
    UnknownName
        If no document has a field of that name (in a collection that has documents).
    """
    if where is None:
        return "1", []
    condition = Filter.parse(where) if isinstance(where, str) else where
    if not isinstance(condition, Filter):
        raise InputError(f"A filter is text or a Filter, not {type(where).__name__}.")
    for name in sorted(condition.fields() - set(OWN)):
        path = name.removeprefix(PREFIX)
        if name == PREFIX + path and path in OWN:
            continue  # payload.title and its like are always named in full
        there = db.execute("SELECT 1 FROM fields WHERE path = ? LIMIT 1", (path,)).fetchone()
        if there is None and db.execute("SELECT 1 FROM documents LIMIT 1").fetchone():
            raise UnknownName("field", name, [*OWN, *(p for (p,) in db.execute("SELECT DISTINCT path FROM fields"))])
    return condition.sql()
