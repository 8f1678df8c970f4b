"""The doctor of a collection: looks at everything, repairs what is derived, never touches the truth."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from isometry.errors import IsometryError, StoreError
from isometry.store import documents, snapshots, vectors
from isometry.store.fields import Entry, payload_entries
from isometry.store.session import Session
from isometry.store.vectors import StoredSpace

BATCH: Final = 2000


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: ``ok`` as it is now, ``repaired`` when it was mended just now."""

    name: str
    ok: bool
    detail: str
    repaired: bool = False


@dataclass(frozen=True)
class Report:
    """Everything that was looked at."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong (any more)."""
        return all(check.ok for check in self.checks)


def examine(session: Session, *, repair: bool) -> Report:
    """Check database, documents, filter fields, full text, vectors and snapshots, in this order."""
    checks = [_attempt(session, "database", _database), _attempt(session, "documents", _documents)]
    repair = repair and session.write
    # Nothing is written into a database that is itself broken.
    mend = repair and all(check.ok for check in checks)
    checks.append(_derived(session, "filter fields", _fields, _rebuild_fields, mend))
    checks.append(_derived(session, "full text", _full_text, _rebuild_full_text, mend))
    try:
        with session.read() as db:
            stored = vectors.spaces(db)
        checks.append(Check("spaces", bool(stored), f"{len(stored)} there" if stored else "there is none"))
    except StoreError as error:
        stored = {}
        checks.append(Check("spaces", False, str(error)))
    for space in stored.values():
        checks.append(_attempt(session, f"vectors {space.space.id}", lambda db, s=space: _vectors(db, s)))
        checks.extend(_snapshots(session, space, repair))
    return Report(tuple(checks))


def _attempt(session: Session, name: str, look: object) -> Check:
    """Run one look in a read transaction; what it returns, or the error it meets, is the detail."""
    assert callable(look)
    try:
        with session.read() as db:
            problem, detail = look(db)
    except IsometryError as error:
        problem, detail = str(error), ""
    return Check(name, not problem, problem or detail)


def _database(db: sqlite3.Connection) -> tuple[str, str]:
    found = [text for (text,) in db.execute("PRAGMA integrity_check")]
    wrong = [text for text in found if text != "ok" and "fts5" not in text.lower()]  # full text has its own check
    orphans = db.execute("PRAGMA foreign_key_check").fetchmany(3)
    wrong += [f"row {row[1]} of {row[0]} belongs to no document" for row in orphans]
    return "; ".join(wrong[:5]), "structure and references are sound"


def _documents(db: sqlite3.Connection) -> tuple[str, str]:
    count = 0
    for record in db.execute(f"SELECT {documents.COLUMNS} FROM documents AS d"):
        documents.restore(record)
        count += 1
    return "", f"{count} documents fit their checksums"


def _entries(db: sqlite3.Connection) -> Iterator[tuple[int, set[Entry]]]:
    after = -1
    while page := documents.page(db, after, ("1", []), BATCH):
        for row, document in page:
            yield row, set(payload_entries(document.payload, document.id))
        after = page[-1][0]


def _fields(db: sqlite3.Connection) -> tuple[str, str]:
    count = 0
    for row, expected in _entries(db):
        if set(db.execute("SELECT path, kind, value FROM fields WHERE document = ?", (row,))) != expected:
            return f"the filter fields of document row {row} do not fit its payload", ""
        count += len(expected)
    ((there,),) = db.execute("SELECT count(*) FROM fields")
    return ("" if there == count else f"{there} entries instead of {count}"), f"{count} entries fit the payloads"


def _rebuild_fields(db: sqlite3.Connection) -> None:
    db.execute("DELETE FROM fields")
    documents.write_fields(db, ((row, list(expected)) for row, expected in list(_entries(db))))


def _full_text(db: sqlite3.Connection) -> tuple[str, str]:
    db.execute("INSERT INTO search (search, rank) VALUES ('integrity-check', 1)")
    return "", "the BM25 index fits the documents"


def _rebuild_full_text(db: sqlite3.Connection) -> None:
    db.execute("INSERT INTO search (search) VALUES ('rebuild')")


def _derived(session: Session, name: str, look: object, rebuild: object, mend: bool) -> Check:
    """Check something made from the documents, and make it anew if it is wrong."""
    assert callable(rebuild)
    if look is _full_text and not session.write:
        return Check(name, True, "not checked: this needs a collection opened for writing")
    first = _attempt(session, name, look)
    if first.ok or not mend:
        return first
    try:
        with session.commit():
            rebuild(session.db)
    except StoreError as error:
        return Check(name, False, f"{first.detail} Rebuilding failed: {error}")
    second = _attempt(session, name, look)
    return Check(name, second.ok, f"rebuilt from the documents, because: {first.detail}", repaired=second.ok)


def _vectors(db: sqlite3.Connection, stored: StoredSpace) -> tuple[str, str]:
    count = len(vectors.read(db, stored))  # refuses what does not fit, NaN and infinity included
    query = f"SELECT id FROM documents WHERE rowid NOT IN (SELECT document FROM vectors_{stored.key}) LIMIT 3"
    if missing := [identity for (identity,) in db.execute(query)]:
        return f"documents without a vector in {stored.space.name}: {', '.join(missing)}", ""
    return "", f"{count} vectors fit their checksums"


def _snapshots(session: Session, stored: StoredSpace, repair: bool) -> Iterator[Check]:
    root = snapshots.place(session.folder, stored.space)
    for kind in snapshots.KINDS:
        found = snapshots.found(root, kind)
        if not found:
            continue
        name = f"snapshot {stored.space.id} {kind}"
        if not (wrong := _wrong(session, stored, found[0])):
            yield Check(name, True, f"covers commit {snapshots.sequence_of(found[0])}")
        elif not repair:
            yield Check(name, False, f"{wrong}; it is a cache and will be passed over")
        else:
            yield _rebuild_snapshot(session, stored, kind, Check(name, False, wrong))


def _wrong(session: Session, stored: StoredSpace, snapshot: Path) -> str | None:
    try:
        with session.read():
            now, since = session.state("sequence"), max(session.state("removals_since"), stored.since)
    except StoreError as error:
        return str(error)
    covered = snapshots.sequence_of(snapshot)
    if covered > now:
        return f"it covers commit {covered} and the database stands at {now}: the database has lost commits"
    if covered < since:
        return f"it covers commit {covered}, too long ago to be brought up to date"
    try:
        snapshots.open_snapshot(snapshot, stored.space)
    except StoreError as error:
        return str(error)
    return None


def _rebuild_snapshot(session: Session, stored: StoredSpace, kind: str, found: Check) -> Check:
    from isometry.store.neighbours import Neighbours

    try:
        snapshots.prune(snapshots.place(session.folder, stored.space), kind)
        fresh = Neighbours(session.folder, stored, kind)
        with session.read() as db:
            fresh.refresh(db, since=session.state("removals_since"), now=session.state("sequence"))
        with session.guarded():
            fresh.write()
    except IsometryError as error:
        return Check(found.name, False, f"{found.detail}; rebuilding failed: {error}")
    return Check(found.name, True, f"rebuilt from the database, because: {found.detail}", repaired=True)
