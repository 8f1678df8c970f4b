"""How the command line speaks: results on stdout, progress and remarks on stderr, JSON when asked."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from isometry.types.progress import NamedProgress

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 140


def out() -> Console:
    """Return the console results go to."""
    from rich.console import Console

    # A pipe or a file has no width of its own; 80 columns would break file names in two.
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
    return Console(highlight=False, soft_wrap=False, width=width)


def err() -> Console:
    """Return the console progress and remarks go to."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Print a remark on stderr."""
    err().print(text, markup=False)


def emit(value: Any) -> None:
    """Print a value as JSON on stdout."""
    from isometry.types import finite

    json.dump(finite(value), sys.stdout, indent=2, ensure_ascii=False, allow_nan=False, default=str)
    sys.stdout.write("\n")


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str = "", right: Sequence[int] = ()) -> None:
    """Print a table; columns whose positions are in ``right`` are set flush right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", title_style="bold", pad_edge=False)
    for i, name in enumerate(columns):
        grid.add_column(name, justify="right" if i in right else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    out().print(grid)


@contextmanager
def progress_bar(*, quiet: bool = False) -> Iterator[NamedProgress]:
    """Yield a callback (what, done, total) that draws a bar with items per second and time left on stderr."""
    if quiet or not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        SpinnerColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Any:
            from rich.text import Text

            return Text(f"{task.speed:,.0f}/s" if task.speed else "")

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Speed())
    with Progress(*columns, TimeRemainingColumn(), console=err(), transient=True) as bars:
        known: dict[str, Any] = {}

        def report(what: str, done: int, total: int | None) -> None:
            if what not in known:
                known[what] = bars.add_task(what, total=total)
            bars.update(known[what], completed=done, total=total)

        yield report


@contextmanager
def remarks() -> Iterator[None]:
    """Show the package's own warnings as one line each on stderr, and hide those of libraries."""
    from isometry.errors import DataWarning, Truncated

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        for category in (Truncated, DataWarning):
            warnings.simplefilter("always", category)
        try:
            yield
        finally:
            for warning in caught:
                say(f"Note: {warning.message}")
