"""Names of reducers: the short ones of papers, and records for files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from isometry.errors import InputError, UnknownName
from isometry.modules.token_reduction.agglomerative import Agglomerative
from isometry.modules.token_reduction.clusters import Clusters, Mean
from isometry.modules.token_reduction.reducer import Reducer
from isometry.modules.token_reduction.selection import Identity, Stride, Tail
from isometry.types import Role

KINDS: dict[str, Any] = {kind.__name__: kind for kind in (Agglomerative, Clusters, Identity, Mean, Stride, Tail)}


def reducers(name: str) -> dict[Role, Reducer]:
    """Return the reducers by role that a name of the CRISP paper stands for.

    ``MV`` every token, ``SV`` their mean, ``Tail 4x8`` the last 4 of a query and 8 of a document, ``K2`` every second
    token, ``C4x8`` 4 and 8 clusters, ``C25`` clusters for a quarter of the tokens, ``Ward 4x8`` and ``Pool2``
    hierarchical pooling to 4 and 8 vectors and of documents by a factor of 2.

    Raises
    ------
    UnknownName
        If the name has none of these forms.

    Examples
    --------
    >>> reducers("C4x8")["document"]
    Clusters(k=8, share=None, steps=10, renormalise=False)
    """
    plain: dict[str, Reducer] = {"MV": Identity(), "SV": Mean()}
    if name in plain:
        return _sides(plain[name], plain[name])
    pair: dict[str, Any] = {"C": lambda k: Clusters(k=k), "Tail": Tail, "Ward": lambda k: Agglomerative(k=k)}
    if found := re.fullmatch(r"(C|Tail|Ward) ?(\d+)x(\d+)", name):
        kind, query, document = found.groups()
        return _sides(pair[kind](int(query)), pair[kind](int(document)))
    if found := re.fullmatch(r"(C|K|Pool)(\d+)", name):
        kind, number = found[1], int(found[2])
        if kind == "Pool":
            return _sides(Identity(), Agglomerative(factor=number))
        one: Reducer = Stride(number) if kind == "K" else Clusters(share=number / 100)
        return _sides(one, one)
    raise UnknownName("reducer", name, ("MV", "SV", "Tail 4x8", "K2", "C4x8", "C25", "Ward 4x8", "Pool2"))


def _sides(query: Reducer, document: Reducer) -> dict[Role, Reducer]:
    return {"query": query, "document": document}


def to_record(reducer: Reducer) -> dict[str, Any]:
    """Return a reducer of this package as plain values.

    >>> to_record(Tail(4))
    {'kind': 'Tail', 'k': 4}
    """
    kind = type(reducer).__name__
    if KINDS.get(kind) is not type(reducer):
        raise InputError(f"Only reducers of isometry.modules.token_reduction can be written, not {kind}.")
    return {"kind": kind, **asdict(reducer)}  # type: ignore[call-overload]


def from_record(record: Mapping[str, Any]) -> Reducer:
    """Inverse of `to_record`."""
    kind = str(record.get("kind"))
    if kind not in KINDS:
        raise UnknownName("reducer", kind, KINDS)
    made: Reducer = KINDS[kind](**{key: value for key, value in record.items() if key != "kind"})
    return made
