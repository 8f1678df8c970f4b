"""Writing a file whole or not at all, into a folder that is there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from isometry.errors import InputError


def make_folder(path: str | Path) -> Path:
    """Make a folder unless it is there, and return it.

    Raises
    ------
    InputError
        If it cannot be made, or a file is in its place.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Cannot make the folder {folder} ({error.strerror}); give another.") from error
    return folder


def write_whole(path: str | Path, content: bytes) -> None:
    """Write ``content`` under a temporary name (``*.part``) beside ``path``, sync it, and rename it there.

    Whatever interrupts it, the file is the old one or the new one.
    """
    target = Path(path)
    handle, name = tempfile.mkstemp(dir=target.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
