"""``isometry data``: sets by name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isometry.cli.console import emit, out, say, table
from isometry.cli.options import DataRootOption, JsonFlag, data_root

app = typer.Typer(help="List, show and fetch data sets.", no_args_is_help=True)


@app.command("list")
def list_sets(root: DataRootOption = None, json_: JsonFlag = False) -> None:
    """List the data sets that are here: built in, and found on the search path.

    Example: isometry data list
    """
    from isometry.data import available

    sets = available(data_root(root))
    if json_:
        emit(
            [
                {"name": s.name, "kind": s.kind, "path": str(s.path), "bytes": s.size_bytes, "builtin": s.builtin}
                for s in sets
            ]
        )
        return
    table(
        ["set", "kind", "size", "from"],
        [[s.name, s.kind, f"{s.size_bytes / 1e6:.2f} MB", "built in" if s.builtin else str(s.path)] for s in sets],
        right=(2,),
    )
    if all(s.builtin for s in sets):
        say("More sets are found in --data-root, $ISOMETRY_DATA, ../shared/data and the cache.")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Set's name, or a path.")],
    root: DataRootOption = None,
    json_: JsonFlag = False,
) -> None:
    """Show what a set holds, with a few rows.

    Example: isometry data show ir/scifact
    """
    from isometry.data import describe

    about = describe(name, root=data_root(root))
    if json_:
        emit(about)
        return
    for key, value in about.items():
        if key != "examples":
            out().print(f"{key:>10}  {value}", markup=False)
    for example in about.get("examples", ()):
        out().print(f"{'':>10}  {str(example)[:160]}", style="dim", markup=False)


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="Set's name on the hub.")],
    config: Annotated[str | None, typer.Option(help="Configuration of the set.")] = None,
    split: Annotated[str | None, typer.Option(help="Split; default: all.")] = None,
    to: Annotated[Path | None, typer.Option(help="Folder; default: the cache.")] = None,
) -> None:
    """Download a set from the Hugging Face hub into the cache; the only command that uses the network.

    Example: isometry data fetch BeIR/nfcorpus --config corpus
    """
    from isometry.data import fetch as fetch_set

    out().print(f"Wrote {fetch_set(name, config=config, split=split, to=to)}", markup=False)
