"""The ``isometry`` command: assembles the verbs and turns errors into one sentence and an exit code.

Exit codes: 0 done, 1 a check failed or something broke, 2 the input is wrong, 130 interrupted.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning barriers cost a shared machine most of its speed

import typer

from isometry.cli import (
    change,
    collections,
    compare,
    config,
    data,
    doctor,
    evaluate,
    exchange,
    inspect,
    recipes,
    search,
    shrink,
    tune,
    where,
)
from isometry.cli import index as index_command

app = typer.Typer(
    name="isometry",
    help="A workbench for embeddings: embed, index, search, judge and improve vectors on your own data.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog="Start with: isometry index FOLDER, then: isometry search 'what you are looking for'.",
)
app.command("index")(index_command.index)
app.command("search")(search.search)
app.command("eval")(evaluate.evaluate)
app.command("inspect")(inspect.inspect)
app.command("shrink")(shrink.shrink)
app.command("tune")(tune.tune)
app.command("distill")(change.distill)
app.command("merge")(change.merge)
app.command("cut")(change.cut)
app.command("rerank")(change.rerank)
app.command("list")(collections.list_collections)
app.command("delete")(collections.delete)
app.command("export")(exchange.export)
app.command("import")(exchange.import_)
app.command("doctor")(doctor.doctor)
app.add_typer(recipes.app, name="recipes")
app.command("where")(where.where)
app.command("compare")(compare.compare)
app.add_typer(data.app, name="data")
app.command("config")(config.config)


def _version(value: bool) -> None:
    if value:
        from isometry import __version__

        typer.echo(f"isometry {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    pass


def main() -> None:
    """Run the command line."""
    from isometry.errors import IsometryError

    try:
        app(standalone_mode=True)
    except IsometryError as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(2)
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != 130:  # what typer makes of an interruption, without a word
            raise
        sys.stderr.write("Interrupted; what was finished is kept, run the same command to go on.\n")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left, e.g. `| head`
        sys.exit(0)


if __name__ == "__main__":
    main()
