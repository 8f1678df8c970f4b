"""More texts than fit in memory: shards on disk, resumable at any moment."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from isometry.encoders.embedding import OnTruncate, embed
from isometry.errors import DataFormatError, InputError, StoreLocked
from isometry.files import write_whole
from isometry.types import Embeddings, Role, Space
from isometry.types.progress import Progress

if TYPE_CHECKING:
    from isometry.encoders.text import TextEncoder

FORMAT = 1
Item = tuple[str, str]


@dataclass(frozen=True)
class Shard:
    """One finished file: its name, rows, the hash of its bytes and of the ids and texts it was made from."""

    name: str
    count: int
    sha256: str
    input_sha256: str
    cut_tokens: int = 0


@dataclass(frozen=True)
class Manifest:
    """What a folder of shards holds; written after every shard.

    Parameters
    ----------
    space, role, shard_size
        What the vectors mean, and rows per shard.
    shards
        Finished shards, in the order of the input.
    complete
        Whether the input came to its end.
    """

    folder: Path
    space: Space
    role: Role
    shard_size: int
    shards: tuple[Shard, ...] = field(default=())
    complete: bool = False

    @property
    def count(self) -> int:
        """Rows in all shards."""
        return sum(shard.count for shard in self.shards)

    def __iter__(self) -> Iterator[Embeddings]:
        """Yield the embeddings of each shard, checked.

        Raises
        ------
        DataFormatError
            If a shard is missing or its bytes have changed.
        """
        for shard in self.shards:
            path = self.folder / shard.name
            if not path.is_file() or _sha256(path) != shard.sha256:
                raise DataFormatError(
                    path, None, "the shard is missing or its bytes have changed; delete it and stream again."
                )
            yield Embeddings.from_parquet(path)

    def save(self) -> None:
        """Write ``manifest.json``, whole or not at all."""
        record = {name: getattr(self, name) for name in ("role", "shard_size", "complete")}
        record |= {
            "format": FORMAT,
            "space": json.loads(self.space.to_json()),
            "shards": [asdict(s) for s in self.shards],
        }
        write_whole(self.folder / "manifest.json", json.dumps(record, indent=1).encode())

    @classmethod
    def load(cls, folder: str | Path) -> Manifest:
        """Read the manifest of a folder.

        Raises
        ------
        DataFormatError
            If there is none, or it cannot be read.
        """
        path = Path(folder) / "manifest.json"
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["format"] > FORMAT:
                raise DataFormatError(path, None, "the folder was written by a newer release; update isometry.")
            space = Space.from_json(json.dumps(record["space"]))
            shards = tuple(Shard(**shard) for shard in record["shards"])
            return cls(Path(folder), space, record["role"], record["shard_size"], shards, record["complete"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, DataFormatError):
                raise
            raise DataFormatError(path, None, f"this is no readable manifest ({error}).") from error


def stream(
    encoder: TextEncoder,
    texts: Iterable[Item],
    out: str | Path,
    *,
    role: Role = "document",
    shard_size: int = 8192,
    on_truncate: OnTruncate = "ignore",
    resume: bool = True,
    progress: Progress | None = None,
) -> Manifest:
    """Embed a stream of ``(id, text)`` into Parquet shards; run again after any interruption to go on.

    A shard is written to a temporary name, synced, renamed, then listed in the manifest: after kill -9 the finished
    shards are kept and the one in the making is made anew. Memory holds one shard, whatever the length of the stream.

    Parameters
    ----------
    texts
        The same stream every time: what a finished shard was made of is compared by hash.
    out
        Folder of the shards and of ``manifest.json``.
    resume
        Go on where an earlier run stopped; False: remove its shards and begin anew.
    progress
        Called with (rows done, None).

    Raises
    ------
    InputError
        If the folder was begun with another encoder, role, shard size or other texts.
    StoreLocked
        If another process is writing there.
    """
    if shard_size < 1:
        raise InputError(f"shard_size must be at least 1, got {shard_size}.")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    with _only_writer(folder):
        if not resume:
            _forget(folder)
        manifest = _begin(folder, encoder.space, role, shard_size)
        items = iter(texts)
        for number, shard in enumerate(manifest.shards):
            _check_same(list(islice(items, shard.count)), shard, number)
            if progress is not None:
                progress(sum(s.count for s in manifest.shards[: number + 1]), None)
        if manifest.complete:
            if next(items, None) is not None:
                raise InputError(f"{folder} is complete, but there are more texts now; stream them to another folder.")
            return manifest
        for part in iter(lambda: list(islice(items, shard_size)), []):
            shard = _write(encoder, part, folder, len(manifest.shards), role, on_truncate)
            manifest = Manifest(folder, encoder.space, role, shard_size, (*manifest.shards, shard))
            manifest.save()
            if progress is not None:
                progress(manifest.count, None)
        manifest = Manifest(folder, encoder.space, role, shard_size, manifest.shards, complete=True)
        manifest.save()
        return manifest


def _forget(folder: Path) -> None:
    """Remove what an earlier run wrote, the list first: a folder without one holds nothing."""
    (folder / "manifest.json").unlink(missing_ok=True)
    for shard in folder.glob("shard-*.parquet"):
        shard.unlink()


def _begin(folder: Path, space: Space, role: Role, shard_size: int) -> Manifest:
    for leftover in folder.glob("*.part"):
        leftover.unlink()
    if not (folder / "manifest.json").exists():
        return Manifest(folder, space, role, shard_size)
    manifest = Manifest.load(folder)
    manifest.space.check(space)
    if (manifest.role, manifest.shard_size) != (role, shard_size):
        raise InputError(
            f"{folder} was begun with role {manifest.role!r} and shards of {manifest.shard_size:,} rows, now asked for "
            f"{role!r} and {shard_size:,}; use the same, or another folder."
        )
    for shard in manifest.shards:
        if not (folder / shard.name).is_file() or _sha256(folder / shard.name) != shard.sha256:
            raise DataFormatError(
                folder / shard.name, None, "the shard is missing or broken; delete the folder to start anew."
            )
    return manifest


def _check_same(part: list[Item], shard: Shard, number: int) -> None:
    if _input_sha256(part) != shard.input_sha256:
        raise InputError(
            f"The texts of shard {number} are not those it was made of; give the same stream, or use another folder."
        )


def _write(
    encoder: TextEncoder, part: list[Item], folder: Path, number: int, role: Role, on_truncate: OnTruncate
) -> Shard:
    ids, texts = zip(*part, strict=True)
    emb = embed(encoder, texts, role=role, ids=ids, on_truncate=on_truncate)
    name = f"shard-{number:06d}.parquet"
    temporary = folder / f"{name}.part"
    emb.to_parquet(temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    digest = _sha256(temporary)
    temporary.replace(folder / name)
    cut = 0 if emb.cut_tokens is None else int(emb.cut_tokens.sum())
    return Shard(name, len(part), digest, _input_sha256(part), cut)


def _input_sha256(part: list[Item]) -> str:
    digest = hashlib.sha256()
    for identity, text in part:
        digest.update(f"{len(identity)}:{identity}{len(text)}:{text}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the system lets go of it when the process ends, however it ends."""
    import fcntl

    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreLocked(
                f"Another process is streaming into {folder}; wait for it, or use another folder."
            ) from error
        yield
