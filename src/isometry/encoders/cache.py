"""Vectors that were computed before, by space, role and text."""

from __future__ import annotations

import hashlib
import sqlite3
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from isometry.errors import StoreError
from isometry.types import FloatArray, Role, Space, check_vectors

_BATCH = 500  # keys per query: SQLite allows 999 parameters on its oldest builds
_WAIT = 30.0  # seconds to wait for another process


class EmbeddingCache:
    """A content-addressed cache of vectors in one SQLite file, safe with several processes.

    A broken file is a broken cache: it is replaced by an empty one. A row whose checksum does not fit counts as
    missing.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = self._open()
        except sqlite3.DatabaseError:
            for end in ("", "-wal", "-shm"):
                self.path.with_name(self.path.name + end).unlink(missing_ok=True)
            self._db = self._open()
        except OSError as error:
            message = f"The cache {self.path} cannot be written ({error.strerror}); choose another place."
            raise StoreError(message) from error

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=_WAIT, isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")  # a cache may lose its last commits to a power cut
        db.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB, crc INTEGER) WITHOUT ROWID")
        return db

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM vectors").fetchone()[0])

    def get_many(
        self, space: Space, role: Role, texts: Sequence[str], *, out: FloatArray, variant: str = ""
    ) -> NDArray[np.bool_]:
        """Fill the rows of ``out`` ``[n, d]`` that are known; return which, bool ``[n]``.

        ``variant`` tells apart vectors of one space that are not quite equal, such as those of two precisions.
        """
        keys = [_key(space, role, text, variant) for text in texts]
        rows: dict[bytes, list[int]] = {}
        for row, key in enumerate(keys):
            rows.setdefault(key, []).append(row)
        found = np.zeros(len(texts), bool)
        unique = list(rows)
        for start in range(0, len(unique), _BATCH):
            part = unique[start : start + _BATCH]
            marks = ",".join("?" * len(part))
            query = f"SELECT key, vector, crc FROM vectors WHERE key IN ({marks})"
            for key, blob, crc in self._db.execute(query, part):
                if zlib.crc32(blob) == crc and len(blob) == 4 * space.dim:
                    out[rows[key]] = np.frombuffer(blob, "<f4")
                    found[rows[key]] = True
        return found

    def put_many(
        self, space: Space, role: Role, texts: Sequence[str], vectors: FloatArray, *, variant: str = ""
    ) -> None:
        """Keep the vectors ``[n, d]`` of texts, in one transaction."""
        array = check_vectors(vectors, dim=space.dim).astype("<f4", copy=False)
        blobs = (row.tobytes() for row in array)
        keys = (_key(space, role, text, variant) for text in texts)
        rows = ((key, blob, zlib.crc32(blob)) for key, blob in zip(keys, blobs, strict=True))
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise


def _key(space: Space, role: Role, text: str, variant: str) -> bytes:
    digest = hashlib.sha256(f"{space.id}\0{role}\0{variant}\0".encode())
    digest.update(text.encode("utf-8", "surrogatepass"))
    return digest.digest()
