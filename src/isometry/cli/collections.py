"""``isometry list`` and ``isometry delete``: which collections there are."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from isometry.cli.console import emit, out, say, table
from isometry.cli.options import JsonFlag

SEARCHED = {
    "exact": "exact scan",
    "code-scan": "scan of codes",
    "code-graph": "graph over codes",
    "coded": "codes, then vectors",
}


def list_collections(json_: JsonFlag = False) -> None:
    """List the collections on this computer.

    Example: isometry list
    """
    from isometry.errors import StoreError
    from isometry.store import Collection
    from isometry.workbench.places import collection_names, collection_path, settings

    rows: list[dict[str, Any]] = []
    for name in collection_names():
        path = collection_path(name)
        try:
            with Collection.open(path) as opened:
                model, way = opened.default_space.model, opened.searched_by()
                rows.append({"name": name, "documents": opened.count(), "model": model, "searched_by": way})
        except StoreError as error:
            rows.append({"name": name, "documents": None, "model": f"unreadable: {error}", "searched_by": None})
        rows[-1]["bytes"] = sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    if json_:
        emit(rows)
        return
    default = settings().collection
    if not rows:
        say("No collection yet: isometry index FOLDER makes one.")
        return
    shown = [
        [
            f"{r['name']}{' *' if r['name'] == default else ''}",
            "?" if r["documents"] is None else f"{r['documents']:,}",
            f"{r['bytes'] / 1e6:,.1f} MB",
            r["model"],
            SEARCHED.get(r["searched_by"], ""),
        ]
        for r in rows
    ]
    table(["collection (* searched by default)", "documents", "size", "model", "searched by"], shown, right=(1, 2))


def delete(
    name: Annotated[str, typer.Argument(help="Name or path of the collection.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a collection and its files.

    Example: isometry delete old-notes
    """
    import shutil

    from isometry.errors import UnknownName
    from isometry.workbench.places import collection_names, collection_path, set_setting, settings

    path = collection_path(name)
    if not (path / "collection.sqlite").is_file():
        raise UnknownName("collection", name, collection_names(), hint="`isometry list` shows what there is.")
    if not yes:
        typer.confirm(f"Delete {path} and everything in it?", abort=True, err=True)
    shutil.rmtree(path)
    if settings().collection == name:
        set_setting("collection", None)
    out().print(f"Deleted {name}", markup=False)
