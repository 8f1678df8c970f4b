"""What all formats share: the parts of a set (train, test ...), languages, limits, headers."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from pathlib import Path

from isometry.data.readers.content import readable
from isometry.data.readers.units import Limits
from isometry.errors import InputError, UnknownName

# A data set that was named is trusted further than a file that was found.
LIMITS = Limits(max_file_bytes=8_000_000_000, max_unpacked_bytes=32_000_000_000)


@dataclass(frozen=True)
class Request:
    """Which part of which data set is wanted, and how.

    Parameters
    ----------
    path
        File or folder.
    split
        Name of the part.
    lang
        Language, or two joined by ``-`` (left-right, queries-documents), or None for English or the only one.
    skip_bad
        Leave out bad rows with a `DataWarning` instead of raising.
    columns
        Column names of tables without a header row.
    """

    path: Path
    name: str
    split: str = "test"
    lang: str | None = None
    skip_bad: bool = False
    columns: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Shape:
    """What recognising a path found: its kind, parts and languages."""

    kind: str
    parts: tuple[str, ...] = ()
    langs: tuple[str, ...] = field(default=())


def stem(path: Path) -> str:
    """Return a file's name without its extensions: ``en-test`` for ``en-test.tsv.gz``."""
    name = path.name.removesuffix(".gz")
    return name[: -len(Path(name).suffix)] if Path(name).suffix else name


def visible(folder: Path) -> list[Path]:
    """Return the files of a folder, sorted by name, hidden ones left out."""
    with readable(folder):
        return sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))


def parts(files: dict[str, Path], request: Request) -> Path:
    """Return the file of the part that is asked for.

    Raises
    ------
    UnknownName
        If there is no such part. A set with one part only serves as test set.
    """
    if request.split in files:
        return files[request.split]
    if len(files) == 1 and request.split in ("test", "all"):
        return next(iter(files.values()))
    raise UnknownName(f"part of {request.name}", request.split, hint=f"It has {', '.join(sorted(files))}.")


def language(langs: list[str], request: Request) -> tuple[str, str]:
    """Return the languages of the left and right side."""
    asked = request.lang or ("en" if "en" in langs else langs[0] if len(langs) == 1 else "")
    if not asked:
        raise InputError(f"{request.name} comes in {', '.join(langs)}; pass lang=...")
    left, _, right = asked.partition("-")
    for name in (left, right or left):
        if name not in langs:
            raise UnknownName(f"language of {request.name}", name, hint=f"It comes in {', '.join(langs)}.")
    return left, right or left


def first_line(path: Path) -> str:
    """Return the first line of a text file (gz or not), or nothing when it is no text."""
    with readable(path):
        with path.open("rb") as raw:
            line = (gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw).readline(1 << 16)
        return line.decode("utf-8-sig", "replace").rstrip("\r\n")
