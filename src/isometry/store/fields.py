"""What a filter sees of a document: its payload as flat ``(path, kind, value)`` entries, and its four own fields.

A nested object is reached by dots (``meta.author``); the members of a list all stand at the path of the list, so that
``tags = 'x'`` means "some tag is x" and ``authors.name = 'Ada'`` means "some author is called Ada".
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Final

from isometry.errors import InputError
from isometry.types import Document, Json

OWN: Final = ("id", "title", "source", "text")  # a document's own fields; they win over payload fields of that name
PREFIX: Final = "payload."  # reaches a payload field whatever its name: payload.title
NUMBER, STRING, BOOL, NULL, OBJECT, LIST = "n", "s", "b", "z", "o", "l"
DEPTH: Final = 64  # deeper payloads are refused: no one filters by them, and recursion has its limits

Entry = tuple[str, str, float | int | str]


def kind_of(value: Json) -> str:
    """Kind of a scalar; two values of different kinds are never equal and have no order.

    >>> kind_of(1) == kind_of(1.5), kind_of(1) == kind_of(True), kind_of(1) == kind_of("1")
    (True, False, False)

    Raises
    ------
    InputError
        If the value is not a string, number, boolean or None.
    """
    if isinstance(value, bool):
        return BOOL
    if isinstance(value, int | float):
        return NUMBER
    if isinstance(value, str):
        return STRING
    if value is None:
        return NULL
    raise InputError(f"A filter compares with text, numbers, true, false and null, not with {type(value).__name__}.")


def check_text(text: Json, what: str) -> str:
    """Return ``text`` if it can be stored and read back as it stands.

    Raises
    ------
    InputError
        If it is not a string, or holds half a surrogate pair or a NUL character.
    """
    if not isinstance(text, str):
        raise InputError(f"{what} must be text, got {type(text).__name__}.")
    if "\0" in text:
        raise InputError(f"{what} holds a NUL character; remove it.")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{what} is not valid Unicode (character {error.start}); repair its encoding.") from None
    return text


def payload_entries(payload: Mapping[str, Json], owner: str) -> list[Entry]:
    """Flatten a payload; ``owner`` names the document in messages.

    >>> payload_entries({"year": 2024, "tags": ["a", "b"], "meta": {"author": "Ada"}}, "x")[:3]
    [('year', 'n', 2024), ('tags', 'l', 0), ('tags', 's', 'a')]

    Raises
    ------
    InputError
        If a value is not JSON, a number is not finite or beyond 64 bits, or a text cannot be stored.
    """
    if not isinstance(payload, Mapping):
        raise InputError(f"The payload of document {owner!r} must be a mapping, got {type(payload).__name__}.")
    return [entry for key, value in payload.items() for entry in _walk(_key(key, "", owner), value, owner, 1)]


def _key(key: Json, parent: str, owner: str) -> str:
    name = check_text(key, f"A payload key of document {owner!r}")
    return f"{parent}.{name}" if parent else name


def _walk(path: str, value: Json, owner: str, depth: int) -> Iterator[Entry]:
    what = f"The payload field {path!r} of document {owner!r}"
    if depth > DEPTH:
        raise InputError(f"{what} is nested deeper than {DEPTH} levels; flatten it.")
    if isinstance(value, Mapping):
        yield path, OBJECT, 0
        for key, member in value.items():
            yield from _walk(_key(key, path, owner), member, owner, depth + 1)
    elif isinstance(value, list | tuple):
        yield path, LIST, 0
        for member in value:
            yield from _walk(path, member, owner, depth + 1)
    elif isinstance(value, str):
        yield path, STRING, check_text(value, what)
    elif value is None:
        yield path, NULL, 0
    elif isinstance(value, bool):
        yield path, BOOL, int(value)
    elif isinstance(value, int | float):
        if not math.isfinite(value) or (isinstance(value, int) and not -(2**63) <= value < 2**63):
            raise InputError(f"{what} is {value}, which JSON or 64 bits cannot hold; store it as text or leave it out.")
        yield path, NUMBER, value
    else:
        raise InputError(f"{what} is of type {type(value).__name__}, which is not JSON; convert it first.")


def payload_json(payload: Mapping[str, Json]) -> str:
    """JSON text of a payload that `payload_entries` has accepted."""
    return json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=dict)


def entries(document: Document) -> Iterator[Entry]:
    """Everything a filter can ask about one document; an own field that is empty counts as missing."""
    for path, kind, value in payload_entries(document.payload, document.id):
        yield PREFIX + path, kind, value
    for name in OWN:
        if value := getattr(document, name):
            yield name, STRING, value
