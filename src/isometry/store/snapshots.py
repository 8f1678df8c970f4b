"""Snapshots of a space's index on disk: a cache that may be deleted at any time.

``snapshots/<space id>/<commit sequence>-<kind>/`` holds a manifest and, in ``index/``, what the index saved with
checksums. A snapshot is written under a temporary name, synced and renamed: it is there whole or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, Final

from isometry.errors import CorruptStore, IsometryError
from isometry.protocols import Index
from isometry.store.schema import sync_folder
from isometry.types import Embeddings, Space

if TYPE_CHECKING:
    from isometry.codes import Code

FOLDER: Final = "snapshots"
MANIFEST: Final = "manifest.json"
EXACT, SCAN, GRAPH, CODED = KINDS = ("exact", "code-scan", "code-graph", "coded")
FORMAT: Final = 1
_TEMPORARY: Final = ".writing-"


def build(kind: str, embeddings: Embeddings, code: Code | None = None) -> Index:
    """An index of a kind over embeddings with distinct ids; ``code`` is for the kind that keeps codes of its own."""
    from isometry.indexes import Coded, CodeGraph, CodeScan, Exact

    if kind == EXACT:
        return Exact.of(embeddings)
    index: Index
    if kind == CODED:
        assert code is not None
        index = Coded(embeddings.space, code)
    else:
        index = (CodeScan if kind == SCAN else CodeGraph)(embeddings.space)
    index.add(embeddings)
    return index


def suits(kind: str, space: Space) -> bool:
    """Whether vectors of a space can be kept that way."""
    return kind != GRAPH or space.similarity != "dot" or space.normalized


def place(folder: Path, space: Space) -> Path:
    """Where the snapshots of a space are."""
    return folder / FOLDER / space.id


def found(root: Path, kind: str) -> list[Path]:
    """Snapshots of a kind, newest first."""
    return sorted(root.glob(f"[0-9]*-{kind}"), reverse=True)


def sequence_of(snapshot: Path) -> int:
    """The commit a snapshot covers; -1 for a name that says none."""
    number = snapshot.name.partition("-")[0]
    return int(number) if number.isdecimal() else -1


def write(root: Path, index: Index, *, kind: str, space: Space, sequence: int) -> Path:
    """Save an index as the snapshot of one commit and remove those it replaces.

    Raises
    ------
    OSError
        If the disk is full or the folder cannot be written; what was there stays.
    """
    root.mkdir(parents=True, exist_ok=True)
    for old in root.glob(f"{_TEMPORARY}*"):  # there is one writer: these were left by one that was killed
        shutil.rmtree(old, ignore_errors=True)
    target = root / f"{sequence:012d}-{kind}"
    if target.exists():
        try:
            open_snapshot(target, space)
            return target
        except CorruptStore:
            pass  # made anew
    temporary = Path(mkdtemp(prefix=_TEMPORARY, dir=root))
    try:
        index.save(temporary / "index")
        record = {"format": FORMAT, "kind": kind, "sequence": sequence, "count": len(index), "space": space.to_json()}
        (temporary / MANIFEST).write_text(json.dumps(record, indent=1), encoding="utf-8")
        for path in temporary.rglob("*"):
            _sync(path)
        sync_folder(temporary)
        temporary.chmod(0o755)
        _discard(target)
        temporary.rename(target)
        for folder in (root, root.parent, root.parent.parent):
            sync_folder(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    prune(root, kind, keep=target)
    return target


def prune(root: Path, kind: str, keep: Path | None = None) -> None:
    """Remove the snapshots of a kind, all but one."""
    for snapshot in found(root, kind):
        if snapshot != keep:
            _discard(snapshot)


def _discard(snapshot: Path) -> None:
    """Remove a snapshot; its name goes first, so that no moment shows half of it."""
    if snapshot.exists():
        gone = snapshot.with_name(f"{_TEMPORARY}{snapshot.name}")
        shutil.rmtree(gone, ignore_errors=True)  # left by a kill
        snapshot.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def open_snapshot(snapshot: Path, space: Space) -> Index:
    """The index of a snapshot, every checksum compared.

    Raises
    ------
    CorruptStore
        If anything is missing, damaged or of another space; the snapshot is then to be made anew.
    """
    from isometry import indexes

    classes: dict[str, Any] = {
        EXACT: indexes.Exact,
        SCAN: indexes.CodeScan,
        GRAPH: indexes.CodeGraph,
        CODED: indexes.Coded,
    }
    try:
        manifest = json.loads((snapshot / MANIFEST).read_text(encoding="utf-8"))
        kind, sequence = manifest["kind"], manifest["sequence"]
        fits = f"{sequence:012d}-{kind}" == snapshot.name and manifest["space"] == space.to_json()
        if manifest["format"] != FORMAT or not fits:
            raise CorruptStore(f"The snapshot {snapshot} is of another format, commit or space.")
        index: Index = classes[kind].load(snapshot / "index", mmap=True)
        if len(index) != manifest["count"] or getattr(index, "space", space).id != space.id:
            raise CorruptStore(f"The snapshot {snapshot} holds another index than its manifest says.")
    except (IsometryError, OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptStore(f"The snapshot {snapshot} cannot be used: {error}") from error
    return index


def load(root: Path, space: Space, kind: str, *, oldest: int, newest: int) -> tuple[Index, int] | None:
    """The newest sound snapshot that covers a commit from ``oldest`` to ``newest``, and that commit's sequence."""
    for snapshot in found(root, kind):
        sequence = sequence_of(snapshot)
        if oldest <= sequence <= newest:
            try:
                return open_snapshot(snapshot, space), sequence
            except CorruptStore:
                continue  # a cache: the next one, or the database, will do
    return None


def _sync(path: Path) -> None:
    if path.is_dir():
        sync_folder(path)
        return
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
