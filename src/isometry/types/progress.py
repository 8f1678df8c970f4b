"""How long work tells whoever waits for it how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int | None], None]
"""Called with (done, total); the total is None where nobody knows it."""

NamedProgress = Callable[[str, int, int | None], None]
"""Called with (what is being done, done, total)."""


def silent(what: str, done: int, total: int | None) -> None:
    """Tell nobody."""
