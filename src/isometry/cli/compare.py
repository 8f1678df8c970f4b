"""``isometry compare``: which techniques help on my data?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isometry.cli.console import emit, progress_bar, remarks, say, table
from isometry.cli.options import DataRootOption, JsonFlag, QuietFlag, data_root


def compare(
    recipes: Annotated[str, typer.Option(help="Slugs of recipes, separated by commas.")],
    data: Annotated[Path | None, typer.Option(help="Your data; default: each recipe's own.")] = None,
    preset: Annotated[str, typer.Option(help="Scale: smoke, laptop or paper.")] = "smoke",
    model: Annotated[str, typer.Option("--model", "-m", help="Encoder to study.")] = "minilm",
    seeds: Annotated[int | None, typer.Option(help="How many seeds; default: the preset's.")] = None,
    root: DataRootOption = None,
    json_: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Run several techniques on the same data, with p-values corrected for looking at many.

    Example: isometry compare --data tickets.tsv --recipes text-embedding-depth,gistembed
    """
    from isometry.errors import EmptyInput
    from isometry.lab import runner
    from isometry.workbench.places import cache_folder

    slugs = [slug.strip() for slug in recipes.split(",") if slug.strip()]
    if not slugs:
        raise EmptyInput("Name at least one recipe, for example: --recipes text-embedding-depth.")
    for slug in slugs:
        runner.card(slug).preset(preset)  # unknown names are reported before anything runs
    if data is not None and not data.exists():
        raise EmptyInput(f"{data} does not exist; give a file or folder of data.")
    with remarks(), progress_bar(quiet=quiet) as progress:
        rows, unfit = runner.compare(
            slugs, preset, seeds=seeds, user_data=data, data_root=data_root(root), model=model, progress=progress,
            cache=cache_folder() / "lab",
        )  # fmt: skip
    for slug, reason in unfit.items():
        say(f"Left out {slug}: {reason}")
    if json_:
        emit([{"recipe": slug, **finding.to_dict(), "p_adj": p_adj} for slug, finding, p_adj in rows])
        return
    shown = []
    for slug, f, p_adj in rows:
        interval = "" if f.ci95 is None else f"{f.delta:+.4f} ({f.ci95[0]:+.4f} to {f.ci95[1]:+.4f})"
        shown.append([slug, f.text, interval, "" if p_adj is None else f"{p_adj:.4f}", f.verdict])
    table(["recipe", "claim", "difference (95 % interval)", "p, Holm", "verdict"], shown, right=(3,))
