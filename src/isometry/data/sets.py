"""Data sets by name: where they are looked for, which there are, and loading one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict, Unpack, overload

from isometry.data.formats import graph, images, interactions, retrieval, rows, sequences
from isometry.data.formats.folders import Request, Shape, stem
from isometry.data.readers.content import readable
from isometry.data.schemas import STS, Labelled, Pairs, Retrieval, Schema
from isometry.errors import InputError, UnknownName

# Most particular first: a folder of ratings also holds tables, a table of three columns may be triples.
_RECOGNISERS: tuple[Callable[[Path], Shape | None], ...] = (
    retrieval.recognise,
    sequences.recognise,
    images.recognise,
    interactions.recognise,
    rows.recognise,
    graph.recognise,
)
_LOADERS: dict[str, Callable[[Request], Schema]] = {
    "retrieval": retrieval.load,
    "graph": graph.load,
    "interactions": interactions.load,
    "image-text": images.load,
    "sequences": sequences.load,
    **rows.LOADERS,
}
KINDS = tuple(_LOADERS)
_BUILTIN = Path(__file__).parent / "builtin"
_DEPTH = 4


@dataclass(frozen=True)
class SetInfo:
    """A data set that was found: its name, kind, place, size on disk, parts (splits) and languages."""

    name: str
    kind: str
    path: Path
    size_bytes: int
    builtin: bool
    parts: tuple[str, ...] = ()
    langs: tuple[str, ...] = ()


def cache_root() -> Path:
    """Return the folder that `fetch` writes to."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("isometry")) / "data"


def roots(root: str | Path | None = None) -> list[Path]:
    """Return the folders data sets are looked for in, in order, those that exist.

    ``root``, the environment variable ``ISOMETRY_DATA``, ``../shared/data`` beside the working folder and beside the
    checkout this package runs from, the cache folder, and what the package carries itself.

    Raises
    ------
    InputError
        If ``root`` is given and is no folder.
    """
    if root is not None and not Path(root).expanduser().is_dir():
        raise InputError(f"The data folder {str(root)!r} does not exist.")
    named = [Path(r).expanduser() for r in (root, os.environ.get("ISOMETRY_DATA")) if r]
    beside = [folder.parent / "shared" / "data" for folder in (Path.cwd(), Path(__file__).resolve().parents[3])]
    places = [place.resolve() for place in (*named, *beside, cache_root(), _BUILTIN)]
    return [place for place in dict.fromkeys(places) if place.is_dir()]


def find(name: str, root: str | Path | None = None) -> Path:
    """Return the folder or file of a data set, e.g. ``ir/scifact`` or ``sts/sts12-15/sts12``.

    Raises
    ------
    UnknownName
        If no root has it; the message names near ones.
    """
    found = [path for place in roots(root) for path in _under(place, name)]
    if found:
        # Of two folders of one name, the one in a format that can be loaded.
        return next((path for path in found if recognise(path)), found[0])
    known = [info.name for info in available(root)]
    raise UnknownName("data set", name, known, "Pass a path, or set ISOMETRY_DATA to the folder of the data sets.")


def _under(place: Path, name: str) -> Iterator[Path]:
    path = place / name
    if not name.strip("/. ") or ".." in Path(name).parts or Path(name).is_absolute():
        return
    if path.exists():
        yield path
    elif path.parent.is_dir():
        yield from sorted(p for p in path.parent.iterdir() if p.is_file() and stem(p) == path.name)


def recognise(path: Path) -> Shape | None:
    """Return the kind, parts and languages of a folder or file; None if it is in no known format."""
    return next((shape for known in _RECOGNISERS if (shape := known(path))), None)


def available(root: str | Path | None = None) -> list[SetInfo]:
    """Return the data sets under all roots, by name; of two of one name the first found, as `find` returns it."""
    found: dict[str, SetInfo] = {}
    for place in roots(root):
        for path, shape in _scan(place, _DEPTH):
            name = path.relative_to(place)
            key = (name if path.is_dir() else name.with_name(stem(path))).as_posix()
            info = SetInfo(key, shape.kind, path, size_of(path), place == _BUILTIN.resolve(), shape.parts, shape.langs)
            found.setdefault(key, info)
    return [found[name] for name in sorted(found)]


def _scan(folder: Path, depth: int) -> Iterator[tuple[Path, Shape]]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        try:
            shape = recognise(path)
        except InputError:
            continue  # an unreadable or broken file is no data set; loading it by name says what is wrong
        if shape:
            yield path, shape
        elif path.is_dir() and depth and not path.is_symlink():
            yield from _scan(path, depth - 1)


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


class _Options(TypedDict, total=False):
    split: str
    root: str | Path | None
    lang: str | None
    skip_bad: bool
    columns: Sequence[str] | None


@overload
def load(name_or_path: str | Path, kind: Literal["retrieval"], **options: Unpack[_Options]) -> Retrieval: ...
@overload
def load(name_or_path: str | Path, kind: Literal["pairs"], **options: Unpack[_Options]) -> Pairs: ...
@overload
def load(name_or_path: str | Path, kind: Literal["labelled"], **options: Unpack[_Options]) -> Labelled: ...
@overload
def load(name_or_path: str | Path, kind: Literal["sts"], **options: Unpack[_Options]) -> STS: ...
@overload
def load(name_or_path: str | Path, kind: str | None = None, **options: Unpack[_Options]) -> Schema: ...
def load(
    name_or_path: str | Path,
    kind: str | None = None,
    split: str = "test",
    root: str | Path | None = None,
    *,
    lang: str | None = None,
    skip_bad: bool = False,
    columns: Sequence[str] | None = None,
) -> Schema:
    """Load a data set by name or path as one of the `schemas`.

    Parameters
    ----------
    name_or_path
        A name that `available` lists, or a path: a BEIR folder, or a table (or a folder of tables named by their
        split) with the columns sentence1, sentence2, score / text, label / anchor, positive, negative ... A name comes
        before a path; write ``./papers`` for the folder.
    kind
        One of `KINDS`; by default what the files look like.
    split
        Name of the part; a set of one part only serves as test set.
    root
        Folder to look in first.
    lang
        Language of a multilingual set; two joined by ``-`` (``"en-de"``) pair the left side, or the queries, of one
        with the right side, or the documents, of the other.
    skip_bad
        Leave out bad lines of a BEIR folder with a `DataWarning`, instead of raising.
    columns
        Column names of a CSV or TSV file without a header row.

    Raises
    ------
    UnknownName
        If there is no such set, kind, split or language.
    InputError
        If the format is not recognised; `DataFormatError` where a line is wrong.
    """
    if kind is not None and kind not in _LOADERS:
        raise UnknownName("kind of data set", kind, KINDS)
    path = locate(name_or_path, root)
    shape = None if kind else recognise(path)
    wanted = kind or (shape.kind if shape else None)
    if wanted is None:
        raise InputError(
            f"{path} is in no known format; it must be a BEIR folder or tables with columns such as sentence1, "
            "sentence2, score or text, label."
        )
    name = path.name if isinstance(name_or_path, Path) else str(name_or_path)
    return _LOADERS[wanted](Request(path, name, split, lang, skip_bad, tuple(columns) if columns else None))


def locate(name_or_path: str | Path, root: str | Path | None) -> Path:
    """Return the place of a set: its name on the search path first, then a path as it stands."""
    text = str(name_or_path)
    path = Path(text).expanduser()
    with readable(path):
        exists = bool(text) and path.exists()
    if isinstance(name_or_path, Path) or text.startswith((".", "/", "~")):
        if not exists:
            raise InputError(f"There is no file or folder {text!r}; check the path.")
        return path
    try:
        return find(text, root)
    except UnknownName:
        if exists:
            return path
        raise
