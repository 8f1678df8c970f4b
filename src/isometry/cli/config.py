"""``isometry config``: settings."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from isometry.cli.console import emit, out, table
from isometry.cli.options import JsonFlag


def config(
    name: Annotated[str | None, typer.Argument(help="Setting to show or change.")] = None,
    value: Annotated[str | None, typer.Argument(help="New value.")] = None,
    unset: Annotated[bool, typer.Option("--unset", help="Back to the default.")] = False,
    json_: JsonFlag = False,
) -> None:
    """Show or change settings.

    Example: isometry config k 5
    """
    from isometry.errors import InputError, UnknownName
    from isometry.workbench.places import Settings, home, set_setting, settings, settings_file

    if unset and (value is not None or name is None):
        raise InputError("Give --unset with one setting and no value, for example: isometry config k --unset.")
    now = set_setting(name, None if unset else value) if name and (value is not None or unset) else settings()
    values = asdict(now)
    if name is not None:
        if name not in values:
            raise UnknownName("setting", name, values)
        values = {name: values[name]}
    if json_:
        emit(values)
    elif name is not None:
        out().print(str(values[name]), markup=False)
    else:
        default = asdict(Settings())
        table(["setting", "value", "default"], [[n, v, default[n]] for n, v in values.items()])
        out().print(f"{settings_file()}\nEverything else is kept under {home()}", style="dim", markup=False)
