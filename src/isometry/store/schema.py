"""The database of a collection: its tables, how it is opened, and what SQLite's errors mean to a person.

Tables: ``documents`` (rowid, id, title, text, source, payload, checksum), ``fields`` (the payload, flat, for filters),
``search`` (FTS5 over title and text), ``spaces``, one ``vectors_<key>`` per space, ``removals`` (which ids went in
which commit), ``state`` (commit sequence, reach of the removals log) and ``meta`` (the owner's small notes).
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from isometry.errors import CorruptStore, StoreError, StoreLocked, StoreVersion

DATABASE: Final = "collection.sqlite"
FORMAT: Final = 1
APPLICATION: Final = 0x49534F4D  # "ISOM" in the header of the file
BUSY_MS: Final = 10_000

_TABLES: Final = """
CREATE TABLE state (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO state VALUES ('sequence', 1), ('removals_since', 1);
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE documents (
    rowid INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    title TEXT NOT NULL,
    text TEXT NOT NULL,
    source TEXT NOT NULL,
    payload TEXT NOT NULL,
    checksum INTEGER NOT NULL
);
CREATE TABLE fields (
    document INTEGER NOT NULL REFERENCES documents (rowid) ON DELETE CASCADE,
    path TEXT NOT NULL,
    kind TEXT NOT NULL,
    value NOT NULL,
    PRIMARY KEY (document, path, kind, value)
) WITHOUT ROWID;
CREATE INDEX fields_by_value ON fields (path, kind, value);
CREATE TABLE spaces (key INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, space TEXT NOT NULL,
    is_default INTEGER NOT NULL, since INTEGER NOT NULL);
CREATE TABLE removals (sequence INTEGER NOT NULL, id TEXT NOT NULL, PRIMARY KEY (sequence, id)) WITHOUT ROWID;
CREATE VIRTUAL TABLE search USING fts5 (
    title, text, content = 'documents', content_rowid = 'rowid', tokenize = 'porter unicode61 remove_diacritics 2'
);
CREATE TRIGGER search_insert AFTER INSERT ON documents BEGIN
    INSERT INTO search (rowid, title, text) VALUES (new.rowid, new.title, new.text);
END;
CREATE TRIGGER search_delete AFTER DELETE ON documents BEGIN
    INSERT INTO search (search, rowid, title, text) VALUES ('delete', old.rowid, old.title, old.text);
END;
CREATE TRIGGER search_update AFTER UPDATE OF title, text ON documents
WHEN old.title <> new.title OR old.text <> new.text BEGIN
    INSERT INTO search (search, rowid, title, text) VALUES ('delete', old.rowid, old.title, old.text);
    INSERT INTO search (rowid, title, text) VALUES (new.rowid, new.title, new.text);
END;
"""


def vectors_table(key: int) -> str:
    """SQL that creates the table of one space's vectors."""
    return f"""
    CREATE TABLE vectors_{key} (
        document INTEGER PRIMARY KEY REFERENCES documents (rowid) ON DELETE CASCADE,
        sequence INTEGER NOT NULL,
        checksum INTEGER NOT NULL,
        vector BLOB NOT NULL
    );
    CREATE INDEX vectors_{key}_by_sequence ON vectors_{key} (sequence);
    """


def create(database: Path) -> sqlite3.Connection:
    """Make an empty database."""
    db = _connect(f"file:{quote(str(database))}?mode=rwc")
    # 16 KiB pages: ten 384-wide or three 1024-wide float32 vectors to a page, no overflow chains for common widths.
    db.executescript(
        f"PRAGMA page_size = 16384; PRAGMA journal_mode = WAL; PRAGMA application_id = {APPLICATION};"
        f"PRAGMA user_version = {FORMAT}; BEGIN; {_TABLES} COMMIT;"
    )
    return db


def connect(database: Path, *, write: bool) -> sqlite3.Connection:
    """Open a database that is there; a reader falls back to immutable mode where its folder cannot be written.

    Raises
    ------
    CorruptStore, StoreVersion, StoreError
        If it is broken, cut short, newer than this release or not to be opened.
    """
    uri = f"file:{quote(str(database))}"
    with translated(database.parent):
        try:
            db = _open(f"{uri}?mode=rw")
        except sqlite3.OperationalError as error:
            if write or code_of(error) not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
                raise
            journal = database.with_name(f"{database.name}-wal")
            if journal.exists() and journal.stat().st_size:  # commits that only a writable folder can bring in
                raise
            db = _open(f"{uri}?mode=ro&immutable=1")
        try:
            _check_header(db, database)
            db.execute(f"PRAGMA query_only = {'OFF' if write else 'ON'}")
        except BaseException:
            db.close()
            raise
    return db


def _open(uri: str) -> sqlite3.Connection:
    db = _connect(uri)
    try:
        db.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # the first read is what may fail
    except BaseException:
        db.close()
        raise
    return db


def _connect(uri: str) -> sqlite3.Connection:
    db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_MS / 1000)
    db.execute("PRAGMA foreign_keys = ON")
    db.execute("PRAGMA synchronous = FULL")  # a commit is on the disk when it returns
    db.execute("PRAGMA cell_size_check = ON")  # broken pages are noticed when read
    return db


def _check_header(db: sqlite3.Connection, database: Path) -> None:
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION:
        raise CorruptStore(f"{database} is not the database of a collection, or it is damaged; restore it from a copy.")
    if version > FORMAT:
        raise StoreVersion(
            f"The collection {database.parent} has format {version} and this release reads up to {FORMAT}; "
            "install a newer isometry."
        )
    db.execute("BEGIN")  # one state of the database for both questions
    try:
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
        journal = database.with_name(f"{database.name}-wal")
        complete = not journal.exists() or journal.stat().st_size == 0  # nothing waits outside the main file
        if complete and database.stat().st_size < pages * size:
            raise CorruptStore(f"{database} has been cut short (it names {pages} pages); restore it from a copy.")
        if db.execute("SELECT count(*) FROM state").fetchone() != (2,):
            raise CorruptStore(f"{database} has lost its commit sequence; restore it from a copy.")
    finally:
        db.execute("COMMIT")


def code_of(error: sqlite3.Error) -> int:
    """SQLite's primary result code, 0 when the error carries none."""
    return int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


@contextmanager
def translated(folder: Path) -> Iterator[None]:
    """Turn errors of SQLite and of the file system into one clear `StoreError`."""
    try:
        yield
    except (sqlite3.ProgrammingError, sqlite3.InterfaceError):
        raise  # a mistake of this program, not a state of the disk
    except sqlite3.Error as error:
        raise _translate(error, folder) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StoreError(_FULL.format(folder)) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StoreError(_READONLY.format(folder, error.strerror)) from error
        raise StoreError(f"The collection {folder} cannot be used: {error.strerror or error}.") from error


_FULL: Final = "The disk is full: this change of the collection {} was not stored, everything before it is safe."

_READONLY: Final = "The collection {} cannot be written here ({}); check the permissions of the folder or copy it."


def _translate(error: sqlite3.Error, folder: Path) -> StoreError:
    code = code_of(error)
    undecodable = "Could not decode to UTF-8" in str(error)
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or undecodable:
        return CorruptStore(
            f"The database of the collection {folder} is damaged ({error}); nothing was changed: "
            "restore it from a copy, or run verify to see what is broken."
        )
    if code == sqlite3.SQLITE_FULL:
        return StoreError(_FULL.format(folder))
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreLocked(f"The collection {folder} is busy with another process; try again when it has ended.")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return StoreError(_READONLY.format(folder, error))
    if code == sqlite3.SQLITE_TOOBIG:
        return StoreError(f"A text or vector is too long for the collection {folder} (1 GB); split it.")
    if code == sqlite3.SQLITE_IOERR:
        return StoreError(f"Reading or writing the collection {folder} failed ({error}); check the disk.")
    return CorruptStore(f"The database of the collection {folder} is not as it should be ({error}); run verify.")


def sync_folder(folder: Path) -> None:
    """Make names created or renamed in a folder last."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
