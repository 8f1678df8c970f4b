"""``isometry where``: which file holds a technique."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isometry.cli.console import emit, say, table
from isometry.cli.options import JsonFlag


def where(
    text: Annotated[str, typer.Argument(help="Words of a technique, a class or a paper.")],
    json_: JsonFlag = False,
) -> None:
    """Say where a technique lives: file and line, the recipe that checks it, its test.

    Example: isometry where "statistical depth"
    """
    from isometry import registry
    from isometry.errors import EmptyInput

    if not text.strip():
        raise EmptyInput("Say what to look for, for example: isometry where hnsw.")
    found = registry.find(text)
    rows = [
        {
            "name": part.name,
            "path": _short(part.path),
            "line": part.line,
            "recipe": part.recipes[0] if part.recipes else None,
            "test": _short(part.test) if part.test else None,
        }
        for part in found
    ]
    if json_:
        emit(rows)
    elif not rows:
        say(f"No part or recipe mentions {text!r}.")
    else:
        shown = [
            [p.name, f"{r['path']}:{r['line']}", r["recipe"] or "", p.summary] for p, r in zip(found, rows, strict=True)
        ]
        table(["name", "place", "recipe", "what it is"], shown[:40])


def _short(path: Path) -> str:
    """Return a path relative to the current folder or the checkout, where it is below one of them."""
    from isometry.registry import PACKAGE

    for base in (Path.cwd(), PACKAGE.parents[1]):
        if path.is_relative_to(base):
            return path.relative_to(base).as_posix()
    return str(path)
