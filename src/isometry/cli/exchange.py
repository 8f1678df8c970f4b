"""``isometry export`` and ``isometry import``: collections as Parquet files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isometry.cli.console import out
from isometry.cli.options import CollectionOption, collection_name


def export(
    file: Annotated[Path, typer.Argument(help="Parquet file to write.")],
    collection: CollectionOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
) -> None:
    """Write a collection, documents and vectors, to one Parquet file.

    Example: isometry export notes.parquet -c notes
    """
    from isometry.errors import InputError
    from isometry.workbench import open_collection

    if file.exists() and not force:
        raise InputError(f"{file} is already there; give --force to replace it.")
    with open_collection(collection_name(collection)) as opened:
        opened.export(file)
        count = opened.count()
    out().print(f"Wrote {count:,} documents to {file}", markup=False)


def import_(
    file: Annotated[Path, typer.Argument(help="Parquet file written by `isometry export`.")],
    name: Annotated[str | None, typer.Option("--name", "-n", help="Name or path of the new collection.")] = None,
) -> None:
    """Make a collection from an exported Parquet file.

    Example: isometry import notes.parquet --name notes-copy
    """
    from isometry.errors import EmptyInput, InputError
    from isometry.store import Collection
    from isometry.workbench.places import collection_path

    if not file.is_file():
        raise EmptyInput(f"{file} does not exist or is not a file; give a Parquet file written by `isometry export`.")
    path = collection_path(name or file.stem)
    if path.exists():
        raise InputError(f"There already is something at {path}; choose another --name.")
    with Collection.import_parquet(path, file) as made:
        out().print(f"{made.name}: {made.count():,} documents", markup=False)
