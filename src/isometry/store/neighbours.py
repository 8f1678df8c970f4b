"""The index of one space in memory, kept in step with the database by reading only what changed."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

import numpy as np

from isometry.protocols import Index, Mask
from isometry.store import snapshots, vectors
from isometry.store.documents import select
from isometry.store.filter import Sql
from isometry.store.session import Session
from isometry.store.vectors import StoredSpace

# Below this many vectors an exact scan is used: a query over 100 000 vectors of 384 numbers takes 6 to 9 ms on one core
# (benchmarks/durability.py), with recall 1 and nothing to build. From here on a graph is used once `snapshot` has built
# one; building it inside a search would keep that search waiting.
ANN_FROM: Final = 100_000


class Neighbours:
    """One index (exact or graph) of one space and the commit it covers."""

    def __init__(self, folder: Path, stored: StoredSpace, kind: str) -> None:
        self.stored, self.kind = stored, kind
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
        if loaded is None:
            loaded = snapshots.build(self.kind, vectors.read(db, self.stored)), now
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
        neighbours = self._held.setdefault(key, Neighbours(session.folder, stored, kind))
        neighbours.refresh(session.db, since=session.state("removals_since"), now=session.state("sequence"))
        return neighbours

    def best(self, stored: StoredSpace, *, exact: bool) -> Index:
        """The index to search: the graph for a large collection that has built one, else the exact one."""
        kind = snapshots.EXACT
        if not exact and count(self._session.db) >= ANN_FROM and self._has_graph(stored):
            kind = snapshots.GRAPH
        index = self.of(stored, kind).index
        assert index is not None
        return index

    def _has_graph(self, stored: StoredSpace) -> bool:
        root = snapshots.place(self._session.folder, stored.space)
        return (stored.key, snapshots.GRAPH) in self._held or bool(snapshots.found(root, snapshots.GRAPH))

    def renew(self, stored: StoredSpace) -> None:
        """Write those snapshots of a space again that there are."""
        root = snapshots.place(self._session.folder, stored.space)
        for kind in (snapshots.EXACT, snapshots.GRAPH):
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
