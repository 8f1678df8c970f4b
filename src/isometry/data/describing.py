"""What a data set holds, in a few facts and rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

from isometry.data.sets import load, locate, recognise, size_of
from isometry.errors import InputError

SHOWN = 3  # rows


def describe(name_or_path: str, root: str | Path | None = None) -> dict[str, Any]:
    """Return ``name, kind, path, bytes, parts``, the size of every field of its schema, and ``examples``.

    Raises
    ------
    UnknownName, InputError
        As `isometry.data.load_set`.
    """
    path = locate(name_or_path, root)
    shape = recognise(path)
    if shape is None:
        raise InputError(f"{path} is in no known format of data set; `isometry data list` shows those that are.")
    facts: dict[str, Any] = {"name": name_or_path, "kind": shape.kind, "path": str(path), "bytes": size_of(path)}
    facts["parts"] = list(shape.parts)
    if shape.langs:
        facts["languages"] = list(shape.langs)
    split = "test" if "test" in shape.parts or not shape.parts else shape.parts[0]
    loaded = load(path, split=split)
    values = {f.name: getattr(loaded, f.name) for f in fields(loaded) if f.name != "name"}
    facts |= {name: len(value) for name, value in values.items() if hasattr(value, "__len__")}
    facts["examples"] = list(_examples(values))
    return facts


def _examples(values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows: Sequence[Any] = list(islice(value.items(), SHOWN))
        else:
            rows = list(islice(value, SHOWN)) if hasattr(value, "__iter__") else []
        for row in rows:
            shown = getattr(row, "content", row)
            yield f"{name}: {shown}"
