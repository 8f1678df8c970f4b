"""``isometry compare``: which techniques help on my data?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isometry.cli.console import emit, progress_bar, remarks, say, table
from isometry.cli.options import DataRootOption, JsonFlag, QuietFlag, data_root

if TYPE_CHECKING:
    from isometry.workbench.comparing import Ranking


def compare(
    recipes: Annotated[str, typer.Option(help="Slugs of recipes, separated by commas.")],
    data: Annotated[str | None, typer.Option(help="Your data; default: each recipe's own.")] = None,
    preset: Annotated[str, typer.Option(help="Scale of recipes that do not tune: smoke, laptop or paper.")] = "smoke",
    model: Annotated[str, typer.Option("--model", "-m", help="Encoder to study.")] = "minilm",
    budget: Annotated[str, typer.Option(help="Time for tuning with all techniques, such as 10m.")] = "10m",
    steps: Annotated[int | None, typer.Option(min=1, help="Updates of each technique, instead of a budget.")] = None,
    seeds: Annotated[int | None, typer.Option(help="How many seeds, where recipes do not tune.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of tuning.")] = 0,
    root: DataRootOption = None,
    json_: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Rank techniques on the same data, with p-values corrected for looking at many.

    With --data, recipes that tune a model all tune the same one with equal steps and batches and are judged on one
    held-out part; other recipes check their claims on the data.

    Example: isometry compare --data tickets.tsv --recipes gistembed,kalm-embedding-v2,starbucks --budget 10m
    """
    from isometry.errors import EmptyInput
    from isometry.lab import runner
    from isometry.workbench.budget import parse_duration
    from isometry.workbench.comparing import rank_techniques
    from isometry.workbench.tuning import techniques

    slugs = [slug.strip() for slug in recipes.split(",") if slug.strip()]
    if not slugs:
        raise EmptyInput("Name at least one recipe, for example: --recipes gistembed.")
    for slug in slugs:
        runner.card(slug).preset(preset)  # unknown names are reported before anything runs
    tuned = [] if data is None else [slug for slug in slugs if slug in techniques()]
    claimed = [slug for slug in slugs if slug not in tuned]
    if claimed and data is not None and not Path(data).exists():
        raise EmptyInput(
            f"{', '.join(claimed)} need a file or folder of data, and {data} is none; leave them out of --recipes."
        )
    limit, found, rows, unfit = parse_duration(budget), None, list[Any](), dict[str, str]()
    with remarks(), progress_bar(quiet=quiet) as progress:
        if claimed:  # first: what cannot run says so before any tuning
            rows, unfit = _claims(claimed, preset, data, root, model, seeds, progress)
        if tuned and data is not None:
            found = rank_techniques(
                data, tuned, base=model, budget=limit, steps=steps, seed=seed, root=data_root(root), progress=progress
            )
    unfit |= found.left_out if found else {}
    for slug, reason in unfit.items():
        say(f"Left out {slug}: {reason}")
    claims = [{"recipe": slug, **finding.to_dict(), "p_adj": p_adj} for slug, finding, p_adj in rows]
    if json_:
        emit({"tuning": None if found is None else found.to_dict(), "claims": claims, "left_out": unfit})
        return
    if found is not None:
        _show(found)
    if claims:
        _show_claims(rows)


def _claims(
    slugs: list[str], preset: str, data: str | None, root: Path | None, model: str, seeds: int | None, progress: Any
) -> tuple[list[Any], dict[str, str]]:
    from isometry.lab import runner
    from isometry.workbench.places import cache_folder

    path = None if data is None else Path(data)
    return runner.compare(
        slugs, preset, seeds=seeds, user_data=path, data_root=data_root(root), model=model, progress=progress,
        cache=cache_folder() / "lab",
    )  # fmt: skip


def _show(found: Ranking) -> None:
    rows = [
        [slug, f"{c.mean_baseline:.4f}", f"{c.mean_method:.4f}",
         f"{c.delta:+.4f} ({c.ci95[0]:+.4f} to {c.ci95[1]:+.4f})", "" if c.p_adj is None else f"{c.p_adj:.4f}",
         c.verdict]
        for slug, c in found.rows
    ]  # fmt: skip
    metric, n = found.data.metric, found.rows[0][1].n
    title = (
        f"{found.base} tuned on {len(found.data.rows):,} {found.data.rows.kind} of {found.data.name}, {found.steps} "
        f"steps of {found.batch_size} rows each; {metric} on {n:,} held out"
    )
    headings = ["technique", "before", "after", "change (95 % interval)", "p, Holm", "verdict"]
    table(headings, rows, title=title, right=(1, 2, 3, 4))
    for note in found.data.notes:
        say(f"Note: {note}")


def _show_claims(rows: list[Any]) -> None:
    shown = []
    for slug, f, p_adj in rows:
        interval = "" if f.ci95 is None else f"{f.delta:+.4f} ({f.ci95[0]:+.4f} to {f.ci95[1]:+.4f})"
        shown.append([slug, f.text, interval, "" if p_adj is None else f"{p_adj:.4f}", f.verdict])
    table(["recipe", "claim", "difference (95 % interval)", "p, Holm", "verdict"], shown, right=(3,))
