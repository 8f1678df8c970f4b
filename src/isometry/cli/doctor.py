"""``isometry doctor``: check a collection and repair what is a cache."""

from __future__ import annotations

from typing import Annotated

import typer

from isometry.cli.console import emit, out
from isometry.cli.options import CollectionOption, JsonFlag, collection_name


def doctor(
    name: Annotated[str | None, typer.Argument(help="Name or path of the collection.")] = None,
    collection: CollectionOption = None,
    repair: Annotated[bool, typer.Option(help="Rebuild broken caches; the documents are never touched.")] = True,
    json_: JsonFlag = False,
) -> None:
    """Check every checksum and invariant of a collection.

    Example: isometry doctor notes
    """
    from isometry.errors import CorruptStore
    from isometry.workbench import open_collection

    try:
        with open_collection(collection_name(name or collection), write=repair) as opened:
            report = opened.verify(repair=repair)
        ok = report.ok
        checks = [{"name": c.name, "ok": c.ok, "detail": c.detail, "repaired": c.repaired} for c in report.checks]
    except CorruptStore as error:
        ok, checks = False, [{"name": "open", "ok": False, "detail": str(error), "repaired": False}]
    if json_:
        emit({"ok": ok, "checks": checks})
    else:
        from rich.text import Text

        for check in checks:
            state, style = ("ok", "green") if check["ok"] else ("BROKEN", "bold red")
            if check["repaired"]:
                state, style = "repaired", "yellow"
            out().print(Text.assemble((f"{state:>8}  ", style), str(check["name"]), (f"  {check['detail']}", "dim")))
    if not ok:
        raise typer.Exit(1)
