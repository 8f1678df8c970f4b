"""``isometry tune``: change a model by your own data, and see what that did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from isometry.cli.console import emit, out, progress_bar, remarks, say, table
from isometry.cli.options import DataRootOption, JsonFlag, OutOption, QuietFlag, data_root


def _list(value: bool) -> None:
    """Print the techniques and stop."""
    if not value:
        return
    from isometry.lab import runner
    from isometry.workbench.tuning import techniques

    rows = [["default", "InfoNCE without false negatives by text or class; regression of cosines for scored pairs"]]
    table(["recipe", "technique"], [*rows, *([slug, runner.card(slug).title] for slug in techniques())])
    raise typer.Exit


def tune(
    data: Annotated[str, typer.Argument(help="Pairs, triplets, labelled or scored texts, a BEIR folder, documents.")],
    output: OutOption,
    base: Annotated[str, typer.Option("--base", "-b", help="Model to start from.")] = "minilm",
    recipe: Annotated[str, typer.Option("--recipe", "-r", help="Technique; --list names them.")] = "default",
    budget: Annotated[str, typer.Option(help="Time for everything, such as 10m.")] = "10m",
    steps: Annotated[int | None, typer.Option(min=1, help="Updates; default: what data and budget allow.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Rows per update.")] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=8, help="Longest text in training.")] = None,
    lora: Annotated[int | None, typer.Option(min=1, help="Train low-rank adapters of this rank instead.")] = None,
    elsewhere: Annotated[
        list[str] | None, typer.Option(help="Other data to watch for what is forgotten; 'none' for nothing.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over, and replace what is there.")] = False,
    list_: Annotated[
        bool, typer.Option("--list", callback=_list, is_eager=True, help="List the techniques and stop.")
    ] = False,
    root: DataRootOption = None,
    json_: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Tune a model on your data; ends with before and after on data held out.

    An interrupted run goes on where it stopped when the same command is given again.

    Example: isometry tune tickets.tsv --recipe gistembed --budget 10m --out tickets-model
    """
    from isometry.workbench.budget import parse_duration
    from isometry.workbench.tuning import Choices, plan_of
    from isometry.workbench.tuning import tune as run

    plan_of(recipe)
    choices = Choices(recipe, parse_duration(budget), steps, batch_size, lr, max_tokens, lora, seed)
    others = None if elsewhere is None else [name for name in elsewhere if name != "none"]
    with remarks(), progress_bar(quiet=quiet) as progress:
        found = run(
            data, output, base=base, choices=choices, elsewhere=others, root=data_root(root), fresh=fresh,
            progress=progress,
        )  # fmt: skip
    if json_:
        emit(found.to_dict())
        return
    report(found.to_dict())
    say(f"Written to {output}; index with it: isometry index DATA --model {output}")


def report(found: Mapping[str, Any]) -> None:
    """Print what a change of a model did: the table of before and after, the verdict, warnings and notes."""
    rows = [c for c in [found.get("held_out"), *found.get("elsewhere", [])] if c]
    if rows:
        comparisons(rows, found.get("compared", ("before", "after")))
    out().print(found["verdict"], markup=False)
    for warning in found.get("warnings", []):
        say(f"Warning: {warning}")
    for note in found.get("notes", []):
        say(f"Note: {note}")


def comparisons(rows: Sequence[Mapping[str, Any]], compared: Sequence[str]) -> None:
    """Print a table of before and after, or of whatever two are compared."""
    shown = [
        [c["task"], c["metric"], f"{c['n']:,}", f"{c['before']:.4f}", f"{c['after']:.4f}",
         f"{c['delta']:+.4f} ({c['ci95'][0]:+.4f} to {c['ci95'][1]:+.4f})"]
        for c in rows
    ]  # fmt: skip
    headings = ["held out", "metric", "n", *compared, "change (95 % interval)"]
    table(headings, shown, right=(2, 3, 4, 5))
