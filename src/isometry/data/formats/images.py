"""Pictures with texts: sheets of equal cells, or a folder with ``metadata.jsonl`` naming a file and its text."""

from __future__ import annotations

import re
from pathlib import Path

from isometry.data.formats.folders import LIMITS, Request, Shape, parts, stem, visible
from isometry.data.readers.records import read_records, table_format
from isometry.data.schemas import ImageRef, ImageText
from isometry.errors import DataFormatError, EmptyInput, InputError
from isometry.types import Json

_SHEET = re.compile(r"(.+?)(\d+)")
_PICTURES = (".webp", ".png")
_CELLS_A_ROW = 40
_TEXTS = ("text", "caption", "name", "title")
_CLASSES = ("label", "group", "category")


def _sheets(folder: Path) -> dict[str, tuple[Path, int]]:
    """Return the sheets of a folder, ``google64.webp`` -> ``{"google": (path, 64)}``."""
    found = ((_SHEET.fullmatch(stem(p)), p) for p in visible(folder) if p.suffix in _PICTURES)
    return {match[1]: (path, int(match[2])) for match, path in found if match}


def _tables(folder: Path) -> dict[str, Path]:
    return {stem(p): p for p in visible(folder) if table_format(p)}


def recognise(path: Path) -> Shape | None:
    """Return the designs of a folder of sheets, or a shape for a folder with metadata.jsonl or metadata.csv."""
    if not path.is_dir():
        return None
    if "metadata" in _tables(path):
        first = next(read_records(_tables(path)["metadata"], LIMITS), (0, {}))[1]
        return Shape("image-text") if "file_name" in first else None
    sheets = _sheets(path) if path.name in _tables(path) else {}
    return Shape("image-text", tuple(sheets)) if sheets else None


def load(request: Request) -> ImageText:
    """Read pictures by reference (nothing is decoded) with their texts, in English or the language asked for.

    Raises
    ------
    DataFormatError
        If a picture that is named is not there.
    """
    folder = request.path
    if not folder.is_dir() or recognise(folder) is None:
        raise InputError(f"{folder} holds no pictures with texts: it needs metadata.jsonl with file_name and text.")
    if "metadata" in _tables(folder):
        return _from_metadata(_tables(folder)["metadata"], request)
    sheets = _sheets(folder)
    sheet = parts({name: path for name, (path, _) in sheets.items()}, request)
    side = next(size for path, size in sheets.values() if path == sheet)
    records = [record for _, record in read_records(_tables(folder)[folder.name], LIMITS)]
    cells = {int(r["cell"]): r for r in records if "cell" in r} or _cells(_tables(folder), stem(sheet), records)
    names = _names(_tables(folder), request.lang) if request.lang not in (None, "en") else None
    images, texts, ids, labels = list[ImageRef](), list[str](), list[str](), list[str]()
    for cell, record in sorted(cells.items()):
        name = str(record.get("hex", cell))
        text = names.get(name) if names is not None else _first(record, _TEXTS)
        if not text:
            continue
        left, top = cell % _CELLS_A_ROW * side, cell // _CELLS_A_ROW * side
        images.append(ImageRef(sheet, (left, top, left + side, top + side)))
        texts.append(text)
        ids.append(name)
        labels.append(_first(record, _CLASSES))
    if not images:
        raise EmptyInput(f"{request.name} names no picture in the language {request.lang!r}.")
    return ImageText(images, texts, ids, labels, request.name)


def _first(record: dict[str, Json], columns: tuple[str, ...]) -> str:
    return next((str(record[c]) for c in columns if record.get(c)), "")


def _cells(tables: dict[str, Path], sheet: str, records: list[dict[str, Json]]) -> dict[int, dict[str, Json]]:
    """Join a sheet's table ``cell, hex`` with the records by ``hex``."""
    if sheet not in tables:
        raise InputError(f"The sheet {sheet} has no table {sheet}.tsv naming its cells.")
    by_name = {record["hex"]: record for record in records}
    rows = (row for _, row in read_records(tables[sheet], LIMITS))
    return {int(row["cell"]): by_name[row["hex"]] for row in rows if row["hex"] in by_name}


def _names(tables: dict[str, Path], lang: str | None) -> dict[str, str]:
    if "names" not in tables:
        return {}
    rows = (row for _, row in read_records(tables["names"], LIMITS))
    return {str(row["hex"]): str(row["name"]) for row in rows if row["lang"] == lang}


def _from_metadata(path: Path, request: Request) -> ImageText:
    images, texts, ids, labels = list[ImageRef](), list[str](), list[str](), list[str]()
    for line, record in read_records(path, LIMITS):
        name, text = record.get("file_name"), _first(record, _TEXTS)
        if not name or not text:
            raise DataFormatError(path, line, "a row needs file_name and text.")
        picture = path.parent / str(name)
        if not picture.is_file():
            raise DataFormatError(path, line, f"there is no picture {str(name)!r} beside it.")
        images.append(ImageRef(picture))
        texts.append(text)
        ids.append(str(name))
        labels.append(_first(record, _CLASSES))
    return ImageText(images, texts, ids, labels if any(labels) else None, request.name)
