"""The index of one space in memory, kept in step with the database by reading only what changed."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from isometry.codes import Code
from isometry.indexes import Coded
from isometry.protocols import Index, Mask
from isometry.store import documents, snapshots, vectors
from isometry.store.documents import select
from isometry.store.filter import Sql
from isometry.store.session import Session
from isometry.store.vectors import StoredSpace
from isometry.types import FloatArray, Space

# Below `SCAN_FROM` vectors an exact scan is used: at most 3 ms a query on one core, with recall 1. From there on codes
# are scanned: a third of the memory, a tenth of the time, recall above .99, a second per 100 000 to build. From
# `GRAPH_FROM` on a graph over codes is walked once `snapshot` has built one: up to there a scan of signs takes no
# longer than a walk of the same recall. All measured: benchmarks/vectors.py.
SCAN_FROM: Final = 50_000
GRAPH_FROM: Final = 100_000
CODES: Final = "codes"


class Neighbours:
    """One index of one space and the commit it covers."""

    def __init__(self, folder: Path, stored: StoredSpace, kind: str, code: Code | None = None) -> None:
        self.stored, self.kind, self.code = stored, kind, code
        self.root = snapshots.place(folder, stored.space)
        self.index: Index | None = None
        self.sequence = -1

    def refresh(self, db: sqlite3.Connection, *, since: int, now: int) -> Index:
        """Bring the index to commit ``now``; the removals log reaches back to commit ``since``.

        A refresh that is interrupted is taken up again by the next: each step may be repeated.
        """
        oldest = max(since, self.stored.since)
        if self.index is None or self.sequence < oldest:
            self._load(db, oldest, now)
        assert self.index is not None
        if self.sequence < now:
            query = "SELECT DISTINCT id FROM removals WHERE sequence > ?"
            if removed := [identity for (identity,) in db.execute(query, (self.sequence,))]:
                self.index.remove(removed)
            changed = vectors.read(db, self.stored, since=self.sequence)
            if len(changed):
                self.index.add(changed)
            self.sequence = now
        return self.index

    def _load(self, db: sqlite3.Connection, oldest: int, now: int) -> None:
        loaded = snapshots.load(self.root, self.stored.space, self.kind, oldest=oldest, newest=now)
        if loaded is None or (self.code and getattr(loaded[0], "code", self.code).fingerprint != self.code.fingerprint):
            loaded = snapshots.build(self.kind, vectors.read(db, self.stored), self.code), now
        self.index, self.sequence = loaded

    def write(self) -> Path:
        """Save the index as a snapshot of the commit it covers."""
        assert self.index is not None
        space = self.stored.space
        return snapshots.write(self.root, self.index, kind=self.kind, space=space, sequence=self.sequence)


class Indexes:
    """The indexes a collection has in memory; to be used inside a read transaction of its session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._held: dict[tuple[int, str], Neighbours] = {}

    def clear(self) -> None:
        """Forget them all."""
        self._held.clear()

    def of(self, stored: StoredSpace, kind: str) -> Neighbours:
        """The index of a kind as of the commit the transaction sees."""
        session, key = self._session, (stored.key, kind)
        if key not in self._held:
            code = self.code(stored.space) if kind == snapshots.CODED else None
            self._held[key] = Neighbours(session.folder, stored, kind, code)
        neighbours = self._held[key]
        neighbours.refresh(session.db, since=session.state("removals_since"), now=session.state("sequence"))
        return neighbours

    def best(self, stored: StoredSpace, *, exact: bool) -> Index:
        """The index to search, brought to the commit the transaction sees."""
        neighbours = self.of(stored, self.kind(stored, exact=exact))
        index = neighbours.index
        assert index is not None
        if isinstance(index, Coded):
            index.source = lambda ids: self._originals(stored, ids)
        return index

    def kind(self, stored: StoredSpace, *, exact: bool = False) -> str:
        """How a space is searched: by the code it was given, else by its size."""
        if exact:
            return snapshots.EXACT
        if self.code_file(stored.space).is_file():
            return snapshots.CODED
        size = count(self._session.db)
        if size >= GRAPH_FROM and self._has_graph(stored):
            return snapshots.GRAPH
        return snapshots.SCAN if size >= SCAN_FROM else snapshots.EXACT

    def _has_graph(self, stored: StoredSpace) -> bool:
        root = snapshots.place(self._session.folder, stored.space)
        return (stored.key, snapshots.GRAPH) in self._held or bool(snapshots.found(root, snapshots.GRAPH))

    def _originals(self, stored: StoredSpace, ids: Sequence[str]) -> FloatArray:
        db = self._session.db
        return vectors.read(db, stored, rows=documents.require_rows(db, list(ids))).vectors

    def code_file(self, space: Space) -> Path:
        """Where the code that compresses a space is kept."""
        return self._session.folder / CODES / f"{space.id}.safetensors"

    def code(self, space: Space) -> Code | None:
        """The code a space was given, if any."""
        file = self.code_file(space)
        return Code.load(file) if file.is_file() else None

    def set_code(self, stored: StoredSpace, code: Code | None) -> None:
        """Search a space by codes from now on, or by its vectors again."""
        file = self.code_file(stored.space)
        self._held.pop((stored.key, snapshots.CODED), None)
        snapshots.prune(snapshots.place(self._session.folder, stored.space), snapshots.CODED)
        if code is None:
            file.unlink(missing_ok=True)
            return
        file.parent.mkdir(exist_ok=True)
        code.save(file)

    def renew(self, stored: StoredSpace) -> None:
        """Write those snapshots of a space again that there are."""
        root = snapshots.place(self._session.folder, stored.space)
        for kind in snapshots.KINDS:
            if snapshots.found(root, kind):
                self.of(stored, kind).write()


def count(db: sqlite3.Connection) -> int:
    """How many documents there are."""
    ((number,),) = db.execute("SELECT count(*) FROM documents")
    return int(number)


def mask(db: sqlite3.Connection, where: Sql, index: Index) -> Mask:
    """Which rows of an index a filter allows, bool ``[n]``."""
    allowed = {identity for (identity,) in select(db, "d.id", where)}
    return np.fromiter((identity in allowed for identity in index.ids), bool, len(index))
