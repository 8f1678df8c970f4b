"""The values of reading: units of text, what was passed over and why, and how big an input may be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from isometry.errors import InputError
from isometry.types import Json

Locator = Literal["line", "page", "row"]


@dataclass(frozen=True)
class Unit:
    r"""A file, a page of a PDF or a row of a table, before it is cut into chunks.

    Parameters
    ----------
    path
        Relative posix path of the file.
    text
        The text; line ends are ``\n``.
    title
        Title where the file has one, else empty.
    locator
        What a place in the unit is called: line, page or row.
    page
        Page number of a PDF, counted from 1.
    first_line
        Line of the file the unit starts on, counted from 1; for a Parquet file the row; for HTML and DOCX lines
        count in the extracted text.
    payload
        JSON-able fields: the other columns of a table.
    id
        Unique in one reading.
    """

    path: str
    text: str
    title: str = ""
    locator: Locator = "line"
    page: int | None = None
    first_line: int = 1
    payload: Mapping[str, Json] = field(default_factory=dict)
    id: str = ""


@dataclass(frozen=True)
class Skipped:
    """A file or folder that was passed over, and why."""

    path: str
    reason: str


@dataclass
class Reading:
    """What `read` returns: iterate it once for its units.

    ``skipped`` and ``warnings`` fill while the units are drawn and are complete when the last one has been.
    """

    units: Iterator[Unit]
    skipped: list[Skipped] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Unit]:
        return iter(self.units)


@dataclass(frozen=True)
class Limits:
    """How big an input may be, in bytes.

    Parameters
    ----------
    max_file_bytes
        Size of one file on disk.
    max_unpacked_bytes
        Size of one compressed file (gz, docx, Parquet) once unpacked.
    """

    max_file_bytes: int = 200_000_000
    max_unpacked_bytes: int = 1_000_000_000

    def check(self, path: Path, size: int) -> None:
        """Raise `InputError` when a file of ``size`` bytes is too big to read."""
        if size > self.max_file_bytes:
            raise InputError(
                f"{path} is {megabytes(size)}, more than the limit of {megabytes(self.max_file_bytes)}; "
                "split it, or raise Limits(max_file_bytes=...)."
            )

    def check_unpacked(self, path: Path, size: int) -> None:
        """Raise `InputError` when a compressed file unpacks to more than allowed."""
        if size > self.max_unpacked_bytes:
            raise InputError(
                f"{path} unpacks to more than the limit of {megabytes(self.max_unpacked_bytes)}; "
                "if you trust the file, raise Limits(max_unpacked_bytes=...)."
            )


def megabytes(size: int) -> str:
    """Return a size in bytes for people.

    >>> megabytes(200_000_000), megabytes(1_500)
    ('200 MB', '0.0015 MB')
    """
    return f"{size / 1e6:.4g} MB"


@dataclass(frozen=True)
class Source:
    """One file to be read, and how."""

    path: Path
    rel: str
    text_column: str | None = None
    id_column: str | None = None
    title_column: str | None = None
    skip_bad: bool = False
    limits: Limits = field(default_factory=Limits)
    warnings: list[str] = field(default_factory=list)

    def warn(self, problem: str) -> None:
        """Note that the file was read, but not as it stood."""
        self.warnings.append(f"{self.rel}: {problem}")
