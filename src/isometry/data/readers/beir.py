"""BEIR folders: ``corpus.jsonl[.gz]``, ``queries.jsonl[.gz]``, ``qrels/<split>.tsv``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from isometry.data.readers.tables import read_table
from isometry.data.readers.units import Source, Unit


def part(folder: Path, name: str) -> Path | None:
    """Return the folder's file ``name.jsonl`` or ``name.jsonl.gz``, whichever is there."""
    return next((p for p in (folder / f"{name}.jsonl", folder / f"{name}.jsonl.gz") if p.is_file()), None)


def is_beir(folder: Path) -> bool:
    """Whether a folder holds a corpus and queries in BEIR's naming."""
    return part(folder, "corpus") is not None and part(folder, "queries") is not None


def judgments(folder: Path) -> list[Path]:
    """Return the queries and judgments of a BEIR folder: files that are no documents."""
    queries = part(folder, "queries")
    return ([queries] if queries else []) + [folder / "qrels"]


def read_corpus(source: Source) -> Iterator[Unit]:
    """Read a BEIR corpus: ``_id``, ``title`` (may be absent), ``text``; every other field is payload."""
    return read_table(replace(source, text_column="text", id_column="_id"))
