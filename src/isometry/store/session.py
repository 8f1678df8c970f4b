"""One connection to a collection: whole commits, consistent reads, one writer."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from isometry.errors import StoreError
from isometry.store.lock import WriterLock
from isometry.store.schema import DATABASE, connect, sync_folder, translated


class Session:
    """An open database with its folder, its lock and its transactions; may be used from several threads in turn.

    Raises
    ------
    StoreError
        If there is no collection, or it cannot be opened; `StoreLocked` if another process writes.
    """

    def __init__(self, folder: Path, *, write: bool, wait: float) -> None:
        self.folder, self.write = folder, write
        self._turn = threading.RLock()
        self._lock: WriterLock | None = None
        self._closed = self._inside = False
        if not (folder / DATABASE).is_file():
            raise StoreError(f"There is no collection at {folder}; check the path, or create one there.")
        with translated(folder):
            if write:
                self._lock = WriterLock(folder, wait)
            try:
                self.db: sqlite3.Connection = connect(folder / DATABASE, write=write)
            except BaseException:
                self._release()
                raise

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def close(self) -> None:
        """Close the database and let the next writer in."""
        with self._turn:
            if not self._closed:
                self._closed = True
                try:
                    with translated(self.folder):
                        self.db.close()
                finally:
                    self._release()

    def check_writable(self) -> None:
        """Raise `StoreError` unless the collection was opened for writing."""
        if not self.write:
            raise StoreError(f"The collection {self.folder} is open for reading; open it with write=True to change it.")

    @contextmanager
    def guarded(self) -> Iterator[sqlite3.Connection]:
        """The connection, for one thread at a time, with its errors translated."""
        with self._turn, translated(self.folder):
            if self._closed:
                raise StoreError(f"The collection {self.folder} has been closed; open it again.")
            yield self.db

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """The connection inside one read transaction: everything read in it, nested reads too, is of one commit."""
        with self.guarded() as db:
            if self._inside:
                yield db
            else:
                with self._transaction(db, "BEGIN"):
                    yield db

    @contextmanager
    def commit(self) -> Iterator[int]:
        """One change, all of it or nothing; yields its commit sequence and is on the disk when left."""
        self.check_writable()
        with self.guarded() as db, self._transaction(db, "BEGIN IMMEDIATE"):
            ((sequence,),) = db.execute("UPDATE state SET value = value + 1 WHERE name = 'sequence' RETURNING value")
            yield sequence

    @contextmanager
    def _transaction(self, db: sqlite3.Connection, begin: str) -> Iterator[None]:
        try:
            if db.in_transaction:  # left over by an interrupt between two statements
                db.execute("ROLLBACK")
            self._inside = True
            db.execute(begin)
            yield
            db.execute("COMMIT")
        except BaseException:  # Ctrl-C too: nothing half-written
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        finally:
            self._inside = False

    def state(self, name: str) -> int:
        """A number of the ``state`` table."""
        ((value,),) = self.db.execute("SELECT value FROM state WHERE name = ?", (name,))
        return int(value)


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the name ``folder`` when the block ends well, and is gone when it does not.

    Raises
    ------
    StoreError
        If there is already something at ``folder``, or it cannot be written.
    """
    with translated(folder):
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            found = "a collection" if (folder / DATABASE).is_file() else "something else"
            raise StoreError(f"There is already {found} at {folder}; open it, or choose another path.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            temporary.chmod(0o755)
            yield temporary
            sync_folder(temporary)
            temporary.rename(folder)  # takes the place of an empty folder, fails on any other
            sync_folder(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
