"""Index folders on disk: data files named by their content, and a manifest that is replaced last.

The manifest is the commit: until it is renamed into place a reader sees the old index, after that the new one, at no
moment a mixture. Data files carry a part of their SHA-256 in their name, so old and new never overwrite each other.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from isometry.errors import CorruptStore, StoreError, StoreVersion

MANIFEST: Final = "manifest.json"
FORMAT: Final = 1
_NAMES: Final = re.compile(r"\w+\.([0-9a-f]{16}\.\w+|\w+\.\d+\.tmp)")
Writer = Callable[[Path], None]


def array(values: NDArray[Any]) -> Writer:
    """A writer of ``values`` as .npy."""

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.lib.format.write_array(file, np.ascontiguousarray(values), allow_pickle=False)

    return write


def text(value: str) -> Writer:
    """A writer of ``value`` as UTF-8."""

    def write(path: Path) -> None:
        path.write_bytes(value.encode("utf-8"))

    return write


def write_folder(folder: str | Path, kind: str, facts: Mapping[str, Any], files: Mapping[str, Writer]) -> None:
    """Write an index of ``kind`` with its ``facts`` (JSON) and ``files`` by name, whole or not at all.

    Raises
    ------
    StoreError
        If the folder cannot be written.
    """
    root = Path(folder)
    try:
        root.mkdir(parents=True, exist_ok=True)
        entries = {name: _place(root, name, writer) for name, writer in files.items()}
        manifest = {"format": FORMAT, "kind": kind, "facts": dict(facts), "files": entries}
        body = json.dumps(manifest, sort_keys=True, ensure_ascii=False)
        sealed = json.dumps({"sha256": hashlib.sha256(body.encode()).hexdigest(), "manifest": manifest})
        _place(root, MANIFEST, text(sealed), final=MANIFEST)
    except OSError as error:
        raise StoreError(f"Cannot write the index to {root}: {error}.") from error
    keep = {entry["file"] for entry in entries.values()}
    for old in root.iterdir():
        if old.name != MANIFEST and old.name not in keep and _ours(old.name):
            old.unlink(missing_ok=True)


def _ours(name: str) -> bool:
    """Whether a name is one that `_place` gives: of a data file, or of a temporary one a crash left behind."""
    return _NAMES.fullmatch(name) is not None


def _place(root: Path, name: str, writer: Writer, *, final: str = "") -> dict[str, str]:
    temporary = root / f"{name}.{os.getpid()}.tmp"
    writer(temporary)
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    digest = _digest(temporary)
    stem, _, suffix = name.partition(".")
    target = final or f"{stem}.{digest[:16]}.{suffix}"
    temporary.replace(root / target)
    handle = os.open(root, os.O_RDONLY)  # the rename itself must be on disk before the manifest names the file
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    return {"file": target, "sha256": digest}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Folder:
    """A folder whose manifest and files all fit their checksums."""

    root: Path
    facts: Mapping[str, Any]
    files: Mapping[str, Path]

    @classmethod
    def open(cls, folder: str | Path, kind: str) -> Folder:
        """Check everything in ``folder`` and return it.

        Raises
        ------
        StoreError
            If there is no index of that kind.
        StoreVersion
            If a newer release wrote it.
        CorruptStore
            If a file is missing or does not fit its checksum.
        """
        root = Path(folder)
        if not (root / MANIFEST).is_file():
            raise StoreError(f"There is no index in {root} (no {MANIFEST}); build it and save it there first.")
        manifest = _manifest(root)
        if manifest["format"] > FORMAT:
            raise StoreVersion(f"The index in {root} was written by a newer release; update isometry.")
        if manifest["kind"] != kind:
            raise StoreError(f"The index in {root} is of kind {manifest['kind']}, not {kind}; load it with that class.")
        files = {name: root / entry["file"] for name, entry in manifest["files"].items()}
        for name, path in files.items():
            if not path.is_file() or _digest(path) != manifest["files"][name]["sha256"]:
                raise CorruptStore(f"The file {path} is missing or does not fit its checksum; rebuild the index.")
        return cls(root, manifest["facts"], files)

    def array(self, name: str, *, mmap: bool = False) -> NDArray[Any]:
        """Read an array; with ``mmap`` it stays on disk and is read-only."""
        values = np.load(self.files[name], mmap_mode="r" if mmap else None, allow_pickle=False)
        return cast("NDArray[Any]", values)

    def text(self, name: str) -> str:
        """Read a text."""
        return self.files[name].read_bytes().decode("utf-8")


def _manifest(root: Path) -> dict[str, Any]:
    try:
        sealed = json.loads((root / MANIFEST).read_bytes())
        manifest: dict[str, Any] = sealed["manifest"]
        body = json.dumps(manifest, sort_keys=True, ensure_ascii=False)
        intact = hashlib.sha256(body.encode()).hexdigest() == sealed["sha256"]
    except (ValueError, TypeError, KeyError) as error:
        raise CorruptStore(f"The manifest of the index in {root} cannot be read; rebuild the index.") from error
    if not intact:
        raise CorruptStore(f"The manifest of the index in {root} does not fit its checksum; rebuild the index.")
    return manifest
