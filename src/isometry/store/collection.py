"""The Collection: documents and their vectors in one folder, in one SQLite database that survives kill -9."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from isometry.errors import CorruptStore, InputError, SpaceMismatch, UnknownName
from isometry.store import documents, fulltext, schema, snapshots, transfer, vectors
from isometry.store.filter import Filter
from isometry.store.neighbours import GRAPH_FROM, Indexes, mask
from isometry.store.session import Session, staged
from isometry.store.vectors import StoredSpace
from isometry.store.verify import Report, examine
from isometry.types import Document, Embeddings, Hits, Json, Queries, Space

if TYPE_CHECKING:
    from isometry.codes import Code

Where = str | Filter | None


class Collection:
    """Documents with their vectors, in a folder; made by `create`, `open` or `import_parquet`.

    Any number of processes may read while one writes. A change is in the collection when its method returns, whole,
    and is there after a crash; every method reads the state of one commit. Needs POSIX file locks.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._indexes = Indexes(session)

    # -- opening ------------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, path: str | Path, space: Space, *, exist_ok: bool = False) -> Self:
        """Make an empty collection whose vectors live in ``space``, opened for writing.

        Raises
        ------
        StoreError
            If something is there already (unless ``exist_ok`` and it is a collection) or the disk does not allow it.
        SpaceMismatch
            If the collection that is there has another default space.
        """
        folder = Path(path)
        if exist_ok and (folder / schema.DATABASE).is_file():
            found = cls.open(folder, write=True)
            try:
                found.default_space.check(space)
            except SpaceMismatch:
                found.close()
                raise
            return found
        with staged(folder) as temporary, schema.translated(folder):
            db = schema.create(temporary / schema.DATABASE)
            try:
                db.execute("BEGIN")
                vectors.add_space(db, space, default=True, sequence=1)
                db.execute("COMMIT")
            finally:
                db.close()
        return cls.open(folder, write=True)

    @classmethod
    def open(cls, path: str | Path, *, write: bool = False, wait: float = 10.0) -> Self:
        """Open a collection; ``wait`` is how many seconds to wait for another writer.

        Raises
        ------
        StoreError
            If there is none; `StoreLocked`, `CorruptStore` or `StoreVersion` if it cannot be opened.
        """
        return cls(Session(Path(path), write=write, wait=wait))

    def close(self) -> None:
        """Close the database and let the next writer in."""
        self._indexes.clear()
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __len__(self) -> int:
        return self.count()

    def __repr__(self) -> str:
        return f"Collection({str(self.path)!r})"

    # -- what it is ---------------------------------------------------------------------------------------------

    @property
    def path(self) -> Path:
        """Its folder."""
        return self._session.folder

    @property
    def name(self) -> str:
        """Name of its folder."""
        return self.path.resolve().name

    @property
    def spaces(self) -> list[Space]:
        """Spaces it holds vectors of, in the order they came."""
        with self._session.read() as db:
            return [stored.space for stored in vectors.spaces(db).values()]

    @property
    def default_space(self) -> Space:
        """The space that `embeddings` returns unless asked for another."""
        with self._session.read() as db:
            return self._stored(vectors.spaces(db), None).space

    @property
    def sequence(self) -> int:
        """Number of the last commit."""
        with self._session.read():
            return self._session.state("sequence")

    @property
    def meta(self) -> dict[str, Json]:
        """Small notes of the owner: model name, source root ..."""
        with self._session.read() as db:
            return {name: json.loads(value) for name, value in db.execute("SELECT name, value FROM meta")}

    def set_meta(self, notes: Mapping[str, Json]) -> None:
        """Add or replace notes; a value must be JSON."""
        try:
            rows = [(str(name), json.dumps(value, allow_nan=False)) for name, value in notes.items()]
        except (TypeError, ValueError) as error:
            raise InputError(f"The notes of a collection must be JSON: {error}.") from None
        with self._session.commit():
            self._session.db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)

    # -- changing it --------------------------------------------------------------------------------------------

    def upsert(self, items: Sequence[Document], embeddings: Embeddings | Sequence[Embeddings]) -> int:
        """Add documents with their vectors, replacing those of the same id, in one commit; return its sequence.

        A collection with several spaces takes one `Embeddings` for each of them, so that none goes stale.

        Raises
        ------
        InputError
            If ids do not match, an id is given twice, or something cannot be stored; then nothing is.
        SpaceMismatch
            If the vectors are of a space the collection does not have.
        """
        prepared = documents.prepare(items)
        parts = (embeddings,) if isinstance(embeddings, Embeddings) else tuple(embeddings)
        ids = [record[0] for record, _ in prepared]
        with self._session.commit() as sequence:
            db = self._session.db
            stored = vectors.spaces(db)
            targets = {vectors.require(stored, part.space): vectors.align(part, ids) for part in parts}
            if lacking := [s.space.name for s in stored.values() if s not in targets]:
                raise InputError(f"Vectors in {' and '.join(lacking)} are missing: give the embeddings of every space.")
            rows = documents.write(db, prepared)
            for target, values in targets.items():
                vectors.write(db, target.key, rows, values, sequence)
        return sequence

    def delete(self, ids: Sequence[str] | None = None, *, where: Where = None) -> int:
        """Remove documents by id, by filter, or those that meet both; return how many there were.

        Raises
        ------
        InputError
            If neither ids nor a filter is given.
        """
        if ids is None and where is None:
            raise InputError('delete needs ids or a filter; where="exists id" removes everything.')
        with self._session.commit() as sequence:
            db = self._session.db
            found = {} if ids is None else documents.rows_of(db, _listed(ids))
            if where is not None:
                meeting = dict(documents.select(db, "d.id, d.rowid", documents.compiled(db, where)))
                found = meeting if ids is None else {i: row for i, row in found.items() if i in meeting}
            db.executemany("DELETE FROM documents WHERE rowid = ?", ((row,) for row in found.values()))
            db.executemany("INSERT INTO removals VALUES (?, ?)", ((sequence, i) for i in found))
        return len(found)

    def add_space(self, embeddings: Embeddings, *, default: bool = False) -> int:
        """Store vectors of one more space for exactly the documents that are there; return the commit's sequence.

        Raises
        ------
        InputError
            If the space is there already, or the ids are not those of the documents.
        """
        with self._session.commit() as sequence:
            db = self._session.db
            if embeddings.space.id in vectors.spaces(db):
                raise InputError(f"Vectors of {embeddings.space.name} are there already; remove that space first.")
            rows = dict(db.execute("SELECT id, rowid FROM documents ORDER BY rowid"))
            values = vectors.align(embeddings, list(rows))
            stored = vectors.add_space(db, embeddings.space, default=default, sequence=sequence)
            vectors.write(db, stored.key, rows, values, sequence)
        return sequence

    def remove_space(self, space_id: str) -> None:
        """Forget a space and its vectors; the default space cannot be removed.

        Raises
        ------
        InputError
            If it is the default space; `UnknownName` if there is no such space.
        """
        with self._session.commit():
            stored = self._stored(vectors.spaces(self._session.db), space_id)
            if stored.is_default:
                raise InputError(f"{stored.space.name} is the default space; add another with default=True first.")
            vectors.remove_space(self._session.db, stored)
        self._indexes.set_code(stored, None)
        self._indexes.clear()
        shutil.rmtree(snapshots.place(self.path, stored.space), ignore_errors=True)

    # -- reading it ---------------------------------------------------------------------------------------------

    def get(self, ids: Sequence[str]) -> list[Document]:
        """Documents in the order of ``ids``; `UnknownName` names the first that is not there."""
        with self._session.read() as db:
            return documents.read(db, documents.require_rows(db, _listed(ids)))

    def iterate(self, where: Where = None, batch: int = 1000) -> Iterator[Document]:
        """Documents one by one in the order they came; each batch is of one commit."""
        _check_positive("batch", batch)
        after = -1
        while True:
            with self._session.read() as db:
                page = documents.page(db, after, documents.compiled(db, where), batch)
            yield from (document for _, document in page)
            if len(page) < batch:
                return
            after = page[-1][0]

    def check_where(self, where: Where) -> None:
        """Raise `InputError` if a filter names no field that is there, or compares one with another kind of value."""
        with self._session.read() as db:
            documents.compiled(db, where)
            documents.check_kinds(db, where)

    def count(self, where: Where = None) -> int:
        """How many documents there are."""
        with self._session.read() as db:
            ((count,),) = documents.select(db, "count(*)", documents.compiled(db, where))
        return int(count)

    def ids(self, where: Where = None) -> list[str]:
        """Ids in the order the documents came."""
        with self._session.read() as db:
            condition, parameters = documents.compiled(db, where)
            return [i for (i,) in documents.select(db, "d.id", (f"{condition} ORDER BY d.rowid", parameters))]

    def embeddings(self, space: str | None = None, ids: Sequence[str] | None = None) -> Embeddings:
        """Vectors of a space (by its id; default: the default space), of all documents or in the order of ``ids``."""
        with self._session.read() as db:
            stored = self._stored(vectors.spaces(db), space)
            rows = None if ids is None else documents.require_rows(db, _listed(ids))
            return vectors.read(db, stored, rows=rows)

    def search(self, queries: Embeddings, k: int = 10, where: Where = None, *, exact: bool = False) -> Hits:
        """The k nearest documents of each query, in the space of the queries.

        Scanned exactly in a small collection; by codes from 50 000 documents on; by a graph over codes from 100 000 on
        once `snapshot` has built one; by the code that `set_code` gave, ranked again by the vectors. `searched_by`
        tells. With ``exact`` always exactly.

        Raises
        ------
        SpaceMismatch
            If the collection has no vectors of the queries' space.
        """
        _check_positive("k", k)
        with self._session.guarded(), self._session.read() as db:  # one thread at a time: a refresh changes the index
            stored = vectors.require(vectors.spaces(db), queries.space)
            condition = None if where is None else documents.compiled(db, where)
            index = self._indexes.best(stored, exact=exact)
            allowed = None if condition is None else mask(db, condition, index)
            if not len(index):
                return Hits.build(queries.ids, [()] * len(queries))
            return index.search(queries, k, allowed)

    def searched_by(self, space: str | None = None) -> str:
        """How `search` finds neighbours in a space: ``exact``, ``code-scan``, ``code-graph`` or ``coded``."""
        with self._session.read() as db:
            return self._indexes.kind(self._stored(vectors.spaces(db), space))

    def code(self, space: str | None = None) -> Code | None:
        """The code a space is searched by, None if by its vectors."""
        with self._session.read() as db:
            return self._indexes.code(self._stored(vectors.spaces(db), space).space)

    def set_code(self, code: Code | None, space: str | None = None) -> None:
        """Search a space by the codes of a fitted code, ranked again by the vectors; None: by the vectors alone again.

        The vectors stay in the database; only codes are held in memory.

        Raises
        ------
        InputError
            If the code is for vectors of another width.
        """
        self._session.check_writable()
        with self._session.guarded(), self._session.read() as db:
            stored = self._stored(vectors.spaces(db), space)
            if code is not None and code.dim != stored.space.dim:
                raise InputError(f"The code is for {code.dim}-d vectors, {stored.space.name} has {stored.space.dim}-d.")
            self._indexes.set_code(stored, code)

    def bm25(self, texts: Queries | Sequence[str], k: int = 10, where: Where = None) -> Hits:
        """The k best documents of each text by BM25 over title and text; any of its words may match."""
        _check_positive("k", k)
        queries = texts if isinstance(texts, Queries) else Queries.of(_listed(texts))
        with self._session.read() as db:
            condition = None if where is None else documents.compiled(db, where)
            rows = [fulltext.ranked(db, text, k, condition) for text in queries.texts]
        return Hits.build(queries.ids, rows, k=k)

    # -- moving and mending it ----------------------------------------------------------------------------------

    def export(self, path: str | Path) -> None:
        """Write documents, the vectors of every space and the notes to one Parquet file."""
        with self._session.read() as db:
            stored = sorted(vectors.spaces(db).values(), key=lambda s: not s.is_default)
            items = [restored for _, restored in documents.page(db, -1, ("1", []), -1)]
            rows = documents.require_rows(db, [item.id for item in items])
            parts = [vectors.read(db, s, rows=rows) for s in stored]
            notes = self.meta
        transfer.write(Path(path), items, parts, notes)

    @classmethod
    def import_parquet(cls, path: str | Path, file: str | Path) -> Self:
        """Make a collection from what `export` wrote, opened for writing; whole or not at all.

        Raises
        ------
        DataFormatError
            If the file is not one `export` wrote.
        """
        items, parts, notes = transfer.read(Path(file))
        with staged(Path(path)) as temporary, cls.create(temporary, parts[0].space) as made:
            made.upsert(items, parts[0])
            for part in parts[1:]:
                made.add_space(part)
            made.set_meta(notes)
        return cls.open(path, write=True)

    def snapshot(self, *, graph: bool | None = None) -> list[Path]:
        """Save the index of every space beside the database, so that the next process opens at once.

        ``graph`` builds a graph too; by default from 100 000 documents on.
        """
        self._session.check_writable()
        with self._session.read() as db:
            build = graph if graph is not None else self.count() >= GRAPH_FROM
            written = []
            for stored in vectors.spaces(db).values():
                kinds = {self._indexes.kind(stored)} - {snapshots.GRAPH} or {snapshots.SCAN}
                kinds |= {snapshots.GRAPH} if build and snapshots.suits(snapshots.GRAPH, stored.space) else set()
                written += [self._indexes.of(stored, kind).write() for kind in sorted(kinds)]
            return written

    def compact(self) -> None:
        """Give space back: renew the snapshots, forget the log of removals, tidy the full text, pack the file."""
        self._session.check_writable()
        with self._session.read() as db:
            covered = self.sequence
            for space in vectors.spaces(db).values():
                self._indexes.renew(space)  # first: a snapshot needs the log back to the commit it covers
        with self._session.commit():
            db = self._session.db
            db.execute("INSERT INTO search (search) VALUES ('optimize')")
            db.execute("DELETE FROM removals WHERE sequence <= ?", (covered,))
            db.execute("UPDATE state SET value = ? WHERE name = 'removals_since'", (covered,))
        with self._session.guarded() as db:
            db.execute("VACUUM")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def verify(self, *, repair: bool = True) -> Report:
        """Check everything; repair what is derived (full text, filter fields, snapshots) if opened for writing."""
        report = examine(self._session, repair=repair)
        if any(check.repaired for check in report.checks):
            self._indexes.clear()
        return report

    # -- inside -------------------------------------------------------------------------------------------------

    def _stored(self, stored: dict[str, StoredSpace], space: str | None) -> StoredSpace:
        if space is None:
            for candidate in stored.values():
                if candidate.is_default:
                    return candidate
            raise CorruptStore(f"The collection {self.path} has lost its default space; restore it from a copy.")
        if space not in stored:
            raise UnknownName("space", space, stored)
        return stored[space]


def _listed(texts: Sequence[str]) -> Sequence[str]:
    return [texts] if isinstance(texts, str) else list(texts)


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise InputError(f"{name} must be at least 1, got {value}.")
