"""Knowledge graphs: tables ``head, relation, tail``, with or without a header, ids or row numbers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from isometry.data.formats.folders import LIMITS, Request, Shape, first_line, parts, stem, visible
from isometry.data.readers.records import read_records, table_format
from isometry.data.schemas import Graph
from isometry.errors import DataFormatError, InputError
from isometry.types import IntArray

_HEADER = ["head", "relation", "tail"]
_SPLITS = ("train", "valid", "dev", "val", "test")
_NAMES = ("name", "wikidata_label", "label", "text", "description")

Rows = list[tuple[str, str, str]]


def recognise(path: Path) -> Shape | None:
    """Return the parts of a folder of triples: files of three columns named train, valid, test or triples_*."""
    files = _triples(path) if path.is_dir() else {}
    if not files or ("train" not in files and not any(stem(f).startswith("triples_") for f in files.values())):
        return None
    return Shape("graph", tuple(files)) if all(_is_triple(first_line(f)) for f in files.values()) else None


def _is_triple(line: str) -> bool:
    fields = line.split("\t")
    return len(fields) == 3 and (fields == _HEADER or not {"label", "text", "score", "sentence1"} & set(fields))


def _triples(folder: Path) -> dict[str, Path]:
    files = {stem(p).removeprefix("triples_"): p for p in visible(folder) if table_format(p) == ".tsv"}
    return {k: p for k, p in files.items() if k in _SPLITS or stem(p).startswith("triples_")}


def load(request: Request) -> Graph:
    """Read the triples of one part; entities and relations are numbered over all parts.

    Where the folder names them (``entities.tsv``, ``relations.tsv``), its order is kept; else they are sorted, those
    of the parts ``triples_1``, ``triples_2`` apart, since these are graphs of their own.

    Raises
    ------
    DataFormatError
        If a line has not three fields, or the first is a header of other names than ``head, relation, tail``.
    """
    if not request.path.is_dir():
        files = {stem(request.path): request.path}
    else:
        files = _triples(request.path)
    if not files:
        raise InputError(f"{request.path} holds no triples: train.tsv, valid.tsv, test.tsv with head, relation, tail.")
    chosen = parts(files, request)
    together = [chosen] if stem(chosen).startswith("triples_") else list(files.values())
    rows = {path: _read(path) for path in together}
    order = _columns([row for part in rows.values() for row in part])
    everything = [tuple(row[c] for c in order) for part in rows.values() for row in part]
    entities, texts = _named(request.path, "entities") or _named(request.path, f"ent_ids_{request.split}") or ([], None)
    entities = entities or sorted({e for h, _, t in everything for e in (h, t)})
    relations = (_named(request.path, "relations") or ([], None))[0] or sorted({r for _, r, _ in everything})
    triples = _numbered(chosen, rows[chosen], order, entities, relations)
    return Graph(triples, entities, relations, texts, request.name)


def _read(path: Path) -> Rows:
    records = read_records(path, LIMITS, columns=["0", "1", "2"])
    rows = [(r["0"], r["1"], r["2"]) for _, r in records]
    if not rows:
        raise InputError(f"{path} holds no triples.")
    if list(rows[0]) == _HEADER:
        return rows[1:]
    uses = Counter(value for row in rows for value in row)
    if len(rows) > 10 and all(uses[value] == 1 for value in rows[0]):
        problem = f"the first line ({', '.join(rows[0])}) looks like a header; name the columns head, relation, tail."
        raise DataFormatError(path, 1, problem)
    return rows


def _columns(rows: Rows) -> tuple[int, int, int]:
    """Return where head, relation and tail stand: relation first if only the other two columns share values."""
    first, middle, last = ({row[c] for row in rows} for c in range(3))
    relation_first = middle & last and not first & (middle | last)
    return (1, 0, 2) if relation_first else (0, 1, 2)


def _named(folder: Path, name: str) -> tuple[list[str], list[str] | None] | None:
    """Return ids and texts from a table of entities or relations; a first column ``index`` counts rows, no ids."""
    path = next((p for p in visible(folder) if stem(p) == name), None) if folder.is_dir() else None
    if path is None:
        return None
    if name.startswith("ent_ids"):
        rows = [r for _, r in read_records(path, LIMITS, columns=["id", "name"])]
        return [r["id"] for r in rows], [_last_part(r["name"]) for r in rows]
    rows = [r for _, r in read_records(path, LIMITS)]
    columns = list(rows[0]) if rows else []
    key = columns[1] if columns[:1] == ["index"] else columns[0]
    shown = next((c for c in _NAMES if c in columns and c != key), None)
    about = "description" if "description" in columns and shown != "description" else None
    texts = [f"{r[shown]}: {r[about]}" if about and r[about] else r[shown] for r in rows] if shown else None
    return [r[key] for r in rows], texts


def _last_part(uri: str) -> str:
    return uri.rpartition("/")[2].replace("_", " ")


def _numbered(
    path: Path, rows: Rows, order: tuple[int, int, int], entities: list[str], relations: list[str]
) -> IntArray:
    """Return the triples as positions; numbers that are no ids themselves are taken for row numbers."""
    entity, relation = ({name: i for i, name in enumerate(names)} for names in (entities, relations))
    if not any(row[order[0]] in entity for row in rows):
        entity = {str(i): i for i in range(len(entities))}
    if not any(row[order[1]] in relation for row in rows):
        relation = {str(i): i for i in range(len(relations))}
    triples = np.empty((len(rows), 3), np.int64)
    for number, row in enumerate(rows):
        head, link, tail = (row[c] for c in order)
        if head not in entity or tail not in entity or link not in relation:
            unknown = next(v for v, known in ((head, entity), (link, relation), (tail, entity)) if v not in known)
            raise DataFormatError(path, number + 1, f"{unknown!r} is not among the entities and relations of the set.")
        triples[number] = entity[head], relation[link], entity[tail]
    return triples
