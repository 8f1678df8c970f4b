"""Packages whose public names are imported when first asked for, so that importing a package costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def exports(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the ``__getattr__`` and the ``__dir__`` of a package.

    Parameters
    ----------
    package
        Its ``__name__``.
    homes
        By public name, the module below the package that holds it; ``"module:name"`` where it has another name there.

    >>> find, names = exports("json", {"Decoder": "decoder:JSONDecoder"})
    >>> find("Decoder").__name__, names()
    ('JSONDecoder', ['Decoder'])
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, attribute = homes[name].partition(":")
        return getattr(import_module(f"{package}.{module}"), attribute or name)

    return find, lambda: sorted(homes)
