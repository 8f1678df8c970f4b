"""FASTA files, and folders of them with a table of facts about each file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from isometry.data.formats.folders import LIMITS, Request, Shape, stem, visible
from isometry.data.readers.content import read_lines
from isometry.data.readers.records import read_records, table_format
from isometry.data.schemas import Sequences
from isometry.errors import DataFormatError, InputError
from isometry.types import Json

_FASTA = (".fa", ".fasta", ".fna", ".fa.gz", ".fasta.gz", ".fna.gz")


def _files(path: Path) -> list[Path]:
    return [p for p in (visible(path) if path.is_dir() else [path]) if p.name.lower().endswith(_FASTA)]


def recognise(path: Path) -> Shape | None:
    """Return a shape for FASTA files and folders of them."""
    return Shape("sequences") if _files(path) else None


def load(request: Request) -> Sequences:
    """Read all sequences; ids are ``file/record``, facts the row of the folder's table whose ``id`` is the file's name.

    Raises
    ------
    DataFormatError
        If a file does not start with ``>``.
    """
    files = _files(request.path)
    if not files:
        raise InputError(f"{request.path} holds no FASTA file.")
    known = _facts(request.path)
    ids, sequences, facts = list[str](), list[str](), list[dict[str, Json]]()
    for path in files:
        for header, sequence in _records(path):
            name, _, about = header.partition(" ")
            ids.append(f"{stem(path)}/{name}")
            sequences.append(sequence)
            facts.append({**known.get(stem(path), {}), "file": path.name, "about": about})
    return Sequences(ids, sequences, facts, request.name)


def _records(path: Path) -> Iterator[tuple[str, str]]:
    header, lines = "", list[str]()
    for number, raw in enumerate(read_lines(path, LIMITS), 1):
        line = raw.decode("ascii", "replace").strip()
        if line.startswith(">"):
            if header:
                yield header, "".join(lines)
            header, lines = line[1:].strip() or f"record-{number}", []
        elif line and not header:
            raise DataFormatError(path, number, "a FASTA file starts with a line '>name'.")
        else:
            lines.append(line)
    if header:
        yield header, "".join(lines)


def _facts(folder: Path) -> dict[str, dict[str, Json]]:
    tables = [p for p in visible(folder) if table_format(p)] if folder.is_dir() else []
    rows = [record for path in tables for _, record in read_records(path, LIMITS) if "id" in record]
    return {str(row["id"]): row for row in rows}
