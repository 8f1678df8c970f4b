"""One writer at a time, across processes."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Final

from isometry.errors import StoreLocked

LOCK: Final = "writer.lock"


class WriterLock:
    """An advisory lock on a file in the collection's folder; it ends with its process, however that ends.

    Parameters
    ----------
    folder
        The collection.
    wait
        Seconds to wait for another writer.

    Raises
    ------
    StoreLocked
        If the other writer is still there after ``wait``; names its process.
    """

    def __init__(self, folder: Path, wait: float) -> None:
        self._file = (folder / LOCK).open("a+b", buffering=0)  # closed with the object, so a forgotten lock ends too
        try:
            self._acquire(folder, time.monotonic() + wait, wait)
        except BaseException:
            self._file.close()
            raise

    def _acquire(self, folder: Path, deadline: float, wait: float) -> None:
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    owner = os.pread(self._file.fileno(), 64, 0).decode(errors="replace").strip() or "another process"
                    raise StoreLocked(
                        f"The collection {folder} is being written by {owner}; "
                        f"waited {wait:g} s: let it finish, or wait longer."
                    ) from None
                time.sleep(0.02)
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()}".encode())

    def release(self) -> None:
        """Let the next writer in."""
        if not self._file.closed:
            fcntl.flock(self._file, fcntl.LOCK_UN)  # a forked child may still hold the same open file
            self._file.close()
