"""The graph of a collection: the user's links between its documents, or the neighbours of its vectors."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from isometry.errors import DataWarning, InputError, UnknownName

if TYPE_CHECKING:
    from isometry.ranking import Edge, NeighbourGraph, Surroundings
    from isometry.store import Collection
    from isometry.types import Document

NEIGHBOURS = 10  # of each document in a graph of neighbours


def link_graph(collection: Collection, edges: str | Path | None = None, field: str = "links") -> NeighbourGraph | None:
    """The graph of links between the documents of a collection; None if there are none.

    Parameters
    ----------
    collection
        The documents.
    edges
        A file of links, see `isometry.ranking.read_edges`. Ends are ids of documents, ids of rows as their table has
        them, or names of files, which stand for all their chunks. Without a file, the links that documents hold in a
        payload field count.
    field
        That field.

    Raises
    ------
    InputError
        If no link of the file joins two documents of the collection.
    """
    from isometry.ranking import NeighbourGraph, links_of, read_edges

    given = read_edges(edges) if edges is not None else list(links_of(_with(collection, field), field))
    if not given:
        return None
    found, lost = _resolved(collection, given)
    if not found:
        raise InputError(
            f"None of the {len(given)} links joins two documents of the collection {collection.name!r} (the first is "
            f"{given[0].source!r} to {given[0].target!r}); use the ids that search --json prints, or file names."
        )
    if lost:
        message = f"{lost:,} of {len(given):,} links name documents that are not in the collection; they are left out."
        warnings.warn(message, DataWarning, stacklevel=2)
    return NeighbourGraph.of(collection.ids(), found)


def neighbour_graph(collection: Collection, hops: int, where: str | None = None) -> Surroundings:
    """The graph of nearest neighbours around documents of a collection, with a `DataWarning` of what it is worth."""
    from isometry.ranking import Surroundings

    message = (
        "There are no links between documents, so nearest neighbours of the first answers are followed, which adds "
        "little that the vectors did not know; give --edges FILE, or documents with a field 'links' of ids."
    )
    warnings.warn(message, DataWarning, stacklevel=2)
    return Surroundings(
        lambda ids: collection.embeddings(ids=ids),
        lambda emb, k: collection.search(emb, k, where),
        k=NEIGHBOURS,
        hops=hops,
    )


def _with(collection: Collection, field: str) -> Iterable[Document]:
    """Documents that have a payload field; none where no document has it."""
    try:
        yield from collection.iterate(f"exists {field}")
    except UnknownName:
        return


def _resolved(collection: Collection, edges: Iterable[Edge]) -> tuple[list[Edge], int]:
    """Edges between ids of documents, and how many name something else."""
    names = {name for edge in edges for name in (edge.source, edge.target)}
    known = {name: [name] for name in names & set(collection.ids())}
    aliases: dict[str, list[str]] = {}
    if others := names - known.keys():
        for document in collection.iterate():
            file = str(document.payload.get("file", ""))
            for alias in {file, document.id.removeprefix(f"{file}:")} & others:
                aliases.setdefault(alias, []).append(document.id)
    known |= aliases
    found: list[Edge] = []
    lost = 0
    for edge in edges:
        ends = [(s, t) for s in known.get(edge.source, ()) for t in known.get(edge.target, ())]
        found += [edge._replace(source=s, target=t) for s, t in ends]
        lost += not ends
    return found, lost
