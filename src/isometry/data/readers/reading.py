"""The main door of reading: a file or a folder to units of text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from isometry.data.readers import docx, html, pdf, plain, tables
from isometry.data.readers.beir import is_beir, part, read_corpus
from isometry.data.readers.content import readable
from isometry.data.readers.units import Limits, Reading, Skipped, Source, Unit
from isometry.data.readers.walk import walk
from isometry.errors import DataFormatError, EmptyInput, InputError, MissingExtra

Reader = Callable[[Source], Iterator[Unit]]

READERS: dict[str, Reader] = {
    **dict.fromkeys(plain.EXTENSIONS, plain.read_plain),
    **dict.fromkeys(html.EXTENSIONS, html.read_html),
    **dict.fromkeys(pdf.EXTENSIONS, pdf.read_pdf),
    **dict.fromkeys(docx.EXTENSIONS, docx.read_docx),
    **dict.fromkeys(tables.EXTENSIONS, tables.read_table),
}
"""Reader by file extension, in lower case; all but PDF, DOCX and Parquet may also be packed (``.gz``)."""


def read(
    path: str | Path,
    *,
    text_column: str | None = None,
    id_column: str | None = None,
    title_column: str | None = None,
    exclude: Sequence[str] = (),
    skip_bad: bool = False,
    limits: Limits | None = None,
) -> Reading:
    """Read a file, a BEIR folder or a tree of folders into units of text: files, pages of PDFs, rows of tables.

    In a tree, a file that cannot be read is passed over and reported; a file named itself raises. Files come in
    sorted order. A tree leaves out what its .gitignore files, ``exclude`` and the built-in patterns name.

    Parameters
    ----------
    path
        File or folder.
    text_column, id_column, title_column
        Columns of tables; without a name the first with a usual one (text, content, body, abstract ...) is taken;
        ``""`` for id or title takes none.
    exclude
        Patterns to leave out, in the language of .gitignore.
    skip_bad
        Leave out bad rows of tables and count them in ``warnings``, instead of raising.
    limits
        How big a file may be.

    Raises
    ------
    InputError
        If the path does not exist, is too big, binary, encrypted, or no column can be taken for the text.
    EmptyInput
        If there is nothing to read.
    DataFormatError
        If a table named by ``path`` has a bad row (without ``skip_bad``).
    """
    root = Path(path).expanduser()
    reading = Reading(iter(()))
    source = Source(root, root.name, text_column, id_column, title_column, skip_bad, limits or Limits())
    source = replace(source, warnings=reading.warnings)
    with readable(root):
        exists = bool(str(path).strip()) and root.exists()
    if not exists:
        raise InputError(f"There is no file or folder {str(path)!r}; check the path.")
    if not root.is_dir():
        units = _reader_of(root, named=True)(source)
    elif is_beir(root):
        corpus = part(root, "corpus")
        assert corpus is not None
        units = read_corpus(replace(source, path=corpus, rel=corpus.name))
    else:
        units = _tree(source, exclude, reading.skipped)
    first = next(units, None)  # the first unit now, so that what is wrong with a named file is raised here
    if first is None:
        raise EmptyInput(_nothing(root, reading))
    reading.units = chain([first], units)
    return reading


def _tree(source: Source, exclude: Sequence[str], skipped: list[Skipped]) -> Iterator[Unit]:
    for path in walk(source.path, exclude, skipped):
        rel = path.relative_to(source.path).as_posix()
        one = replace(source, path=path, rel=rel, warnings=[])
        try:
            units = list(_reader_of(path, named=False)(one))
        except (InputError, MissingExtra) as error:
            skipped.append(Skipped(rel, _reason(error, path)))
            continue
        source.warnings.extend(one.warnings)
        if not units:
            skipped.append(Skipped(rel, "holds no text"))
        for unit in units:
            # Two tables may number their rows alike, so that the table's name comes before a row's own id.
            own = unit.locator == "row" and unit.id != f"{rel}:{unit.first_line}"
            yield replace(unit, id=f"{rel}:{unit.id}") if own else unit


def _reason(error: InputError | MissingExtra, path: Path) -> str:
    """Return an error's sentence without the path, which the report names already."""
    if isinstance(error, DataFormatError):
        return f"line {error.line}: {error.problem}" if error.line else error.problem
    return str(error).removeprefix(str(path)).lstrip(": ").removeprefix("is ")


def _reader_of(path: Path, *, named: bool) -> Reader:
    """Return the reader of a file; one named by the caller is tried as text whatever its extension is."""
    suffix = path.suffix.lower()
    if suffix == ".gz":
        suffix = path.with_suffix("").suffix.lower()
        if suffix in (*pdf.EXTENSIONS, *docx.EXTENSIONS, ".parquet"):
            raise InputError(f"{path} is packed; unpack it first.")
    if suffix in READERS:
        return READERS[suffix]
    if named or not suffix:
        return plain.read_plain
    raise InputError(f"no reader for {suffix} files.")


def _nothing(root: Path, reading: Reading) -> str:
    if not root.is_dir():
        return f"{root} holds no text: {'; '.join(reading.warnings) or 'it is empty'}."
    if not reading.skipped:
        return f"The folder {root} is empty."
    shown = "; ".join(f"{s.path}: {s.reason.rstrip('.')}" for s in reading.skipped[:3])
    more = f"; and {len(reading.skipped) - 3} more" if len(reading.skipped) > 3 else ""
    return f"The folder {root} holds nothing that can be read ({shown}{more})."
