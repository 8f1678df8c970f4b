"""Every exception of the package, as one tree.

::

    IsometryError                    anything a caller can mend; the command line prints it and exits with 2
    ├── InputError                   an argument or a piece of input is wrong
    │   ├── EmptyInput               nothing to work on (no file, no text, no row)
    │   ├── DimensionMismatch        vectors of another width, or with NaN / infinity
    │   ├── SpaceMismatch            vectors of two spaces were about to be compared
    │   ├── UnknownName              no model, data set, recipe, field ... of that name (carries the nearest ones)
    │   ├── DataFormatError          a file says something its format does not allow (carries path and line)
    │   ├── NoTextColumn             a table with no column known to hold its text
    │   ├── TextTooLong              text beyond the encoder's window, under on_truncate="error"
    │   └── FilterError              a filter expression that cannot be read (carries the position)
    ├── NotFitted                    a part was used before fit
    ├── MissingExtra                 an optional dependency is not installed (carries the extra)
    ├── StoreError                   a collection cannot be read or written
    │   ├── CorruptStore             its database or a checksum is broken
    │   ├── StoreLocked              another process is writing
    │   └── StoreVersion             written by a newer release
    └── RecipeError                  a recipe cannot run as asked

    Truncated (warning)              text was cut to the encoder's window; says how many items and tokens
    DataWarning (warning)            input was read, but not as it stood (encoding guessed, rows skipped)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class IsometryError(Exception):
    """Base of every error a caller can mend: one sentence saying what is wrong and what to do."""


class InputError(IsometryError, ValueError):
    """An argument or a piece of input is wrong."""


class EmptyInput(InputError):
    """There is nothing to work on."""


class DimensionMismatch(InputError):
    """Vectors have another width than expected, or hold NaN or infinity."""


class SpaceMismatch(InputError):
    """Vectors of two different spaces were about to be compared."""


class UnknownName(InputError):
    """No thing of that kind has this name.

    Parameters
    ----------
    kind
        What was looked for, e.g. ``"recipe"``.
    name
        The name that was given.
    known
        The names there are; up to three near ones are suggested.
    hint
        One more sentence, e.g. which command lists the names.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str] = (), hint: str = "") -> None:
        self.kind, self.name = kind, name
        names = sorted(set(known))
        self.nearest = tuple(difflib.get_close_matches(name, names, n=3, cutoff=0.4))
        message = f"Unknown {kind} {name!r}."
        if self.nearest:
            message += f" Did you mean {' or '.join(map(repr, self.nearest))}?"
        elif names and len(names) <= 12:
            message += f" Known: {', '.join(names)}."
        super().__init__(f"{message} {hint}".strip())


class DataFormatError(InputError):
    """A file says something its format does not allow.

    Parameters
    ----------
    path
        The file.
    line
        Line number, counted from 1, or None where the format has no lines.
    problem
        What is wrong and what to do, as one sentence without the place.
    """

    def __init__(self, path: str | Path, line: int | None, problem: str) -> None:
        self.path, self.line, self.problem = Path(path), line, problem
        super().__init__(f"{path}{f':{line}' if line is not None else ''}: {problem}")


class NoTextColumn(InputError):
    """A table has several columns, and none is known to hold the text."""


class TextTooLong(InputError):
    """A text does not fit the encoder's window and cutting it was not allowed."""


class FilterError(InputError):
    """A filter expression cannot be read; ``position`` counts characters from 0."""

    def __init__(self, expression: str, position: int, problem: str) -> None:
        self.expression, self.position = expression, position
        shown = expression if len(expression) <= 200 else f"{expression[:197]}..."
        super().__init__(f"Cannot read the filter {shown!r} at character {position + 1}: {problem}")


class NotFitted(IsometryError):
    """A part was used before it was fitted."""


class MissingExtra(IsometryError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, why: str = "", *, command: str = "") -> None:
        self.package, self.extra = package, extra
        purpose = f" to {why}" if why else ""
        command = command or f"pip install 'isometry[{extra}]'"
        super().__init__(f"The package {package!r} is needed{purpose}: {command}.")


class StoreError(IsometryError):
    """A collection cannot be read or written."""


class CorruptStore(StoreError):
    """A collection's database or one of its checksums is broken."""


class StoreLocked(StoreError):
    """Another process is writing to the collection."""


class StoreVersion(StoreError):
    """The collection was written by a newer release than this one."""


class RecipeError(IsometryError):
    """A recipe cannot run as asked."""


class Truncated(UserWarning):
    """Text was cut to the encoder's window."""


class DataWarning(UserWarning):
    """Input was read, but not as it stood."""
