"""``isometry recipes``: the papers, runnable."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isometry.cli.console import emit, out, progress_bar, remarks, say, table
from isometry.cli.options import DataRootOption, JsonFlag, QuietFlag, data_root

if TYPE_CHECKING:
    from isometry.lab.card import Card

app = typer.Typer()
SlugArgument = Annotated[str, typer.Argument(help="Slug of the recipe, as `isometry recipes` lists it.")]
MOST_SEEDS = 10_000
STYLES = {"holds": "green", "invariant ok": "green", "not shown": "yellow", "never run": "dim"}


@app.callback(invoke_without_command=True)
def list_recipes(context: typer.Context, json_: JsonFlag = False) -> None:
    """List, show and run recipes: one per paper, each checking the paper's claims.

    Example: isometry recipes run text-embedding-depth --preset smoke
    """
    if context.invoked_subcommand is not None:
        return
    from isometry import registry
    from isometry.lab.card import Card
    from isometry.lab.runner import status

    cards = [Card.from_literals(entry.card) for entry in registry.recipes().values()]
    rows = [
        {
            "slug": card.slug,
            "title": card.title,
            "kind": card.kind,
            "mechanism": list(card.mechanism),
            "claims": [{"text": c.text, "key": c.key, "invariant": c.invariant} for c in card.claims],
            "status": status(card.slug),
        }
        for card in cards
    ]
    if json_:
        emit(rows)
        return
    shown = [[r["slug"], r["kind"], len(r["claims"]), _styled(str(r["status"])), r["title"]] for r in rows]
    table(["recipe", "kind", "claims", "status", "paper"], shown, right=(2,))


def _styled(verdict: str) -> Any:
    from rich.text import Text

    return Text(verdict, style=STYLES.get(verdict, "bold red"))


@app.command()
def show(slug: SlugArgument, json_: JsonFlag = False) -> None:
    """Show a recipe's card: what the paper does, its parts, its claims.

    Example: isometry recipes show hnsw-recall
    """
    from dataclasses import asdict

    from isometry.lab import runner

    card = runner.card(slug)
    if json_:
        emit({**asdict(card), "status": runner.status(slug)})
        return
    _show_card(card)
    if result := runner.load_result(slug):
        _show_result(result)


def _show_card(card: Card) -> None:
    from rich.text import Text

    console = out()
    console.print(Text.assemble((card.title, "bold"), f"  ({card.year}, arXiv {card.arxiv})"))
    console.print(card.summary, markup=False)
    console.print(f"The paper reports: {card.headline}", markup=False)
    for name in ("mechanism", "parts", "needs", "aliases"):
        if values := getattr(card, name):
            console.print(Text.assemble((f"{name:>10}  ", "dim"), ", ".join(values)))
    console.print(Text.assemble(("   presets  ", "dim"), ", ".join(card.presets)))
    for claim in card.claims:
        console.print(Text.assemble(("     claim  ", "dim"), claim.text))


@app.command()
def run(
    slug: SlugArgument,
    preset: Annotated[str, typer.Option(help="Scale: smoke, laptop or paper.")] = "smoke",
    data: Annotated[Path | None, typer.Option(help="Your own data instead of the named sets.")] = None,
    seeds: Annotated[int | None, typer.Option(help="How many seeds; default: the preset's.")] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="Encoder to study.")] = "minilm",
    root: DataRootOption = None,
    save: Annotated[Path | None, typer.Option(help="Folder to write <slug>.json to.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Folder to draw the recipe's plots in, as SVG.")] = None,
    json_: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Run a recipe and judge its claims.

    Example: isometry recipes run hnsw-recall --preset laptop
    """
    from isometry.errors import EmptyInput, InputError
    from isometry.files import make_folder
    from isometry.lab import runner
    from isometry.lab.plots import write_plots
    from isometry.workbench.places import cache_folder

    if seeds is not None and not 1 <= seeds <= MOST_SEEDS:
        raise InputError(f"--seeds must be between 1 and {MOST_SEEDS:,}, got {seeds}.")
    if data is not None and not data.exists():
        raise EmptyInput(f"{data} does not exist; give a file or folder of data.")
    for folder in (save, plots):
        if folder is not None:
            make_folder(folder)  # before the work, not after it
    with remarks(), progress_bar(quiet=quiet) as progress:
        lab = runner.lab_for(
            slug, preset, seeds=seeds, user_data=data, data_root=data_root(root), model=model, progress=progress,
            cache=cache_folder() / "lab",
        )  # fmt: skip
        result = runner.run(slug, lab)
    if save is not None:
        runner.write(result, save)
    drawn = write_plots(result.plots, plots) if plots is not None else []
    record = result.to_dict()
    if json_:
        emit(record)
    else:
        _show_result(record)
        for file in drawn:
            say(f"  drew {file}")
    if any(f.verdict in ("crashed", "invariant broken") for f in result.findings):
        raise typer.Exit(1)


def _show_result(result: dict[str, Any]) -> None:
    rows = []
    for claim in result["claims"]:
        ci = claim["ci95"]
        interval = "" if ci is None else f"{claim['delta']:+.4f} ({ci[0]:+.4f} to {ci[1]:+.4f})"
        figures = claim["detail"].splitlines()[-1] if claim["detail"] else f"{interval}, n = {claim['n']}"
        rows.append([_styled(claim["verdict"]), claim["text"], figures])
    title = f"{result['slug']}, {result['preset']}, {result['seconds']:.0f} s, {result['seeds']} seeds"
    table(["verdict", "claim", "difference (95 % interval)"], rows, title=title)
    for name, value in result["facts"].items():
        say(f"  {name}: {value}")


@app.command()
def report(
    folder: Annotated[Path | None, typer.Option(help="Folder of results; default: those we stand by.")] = None,
    json_: JsonFlag = False,
) -> None:
    """Show the verdict of every claim of every recipe that was run.

    Example: isometry recipes report
    """
    from isometry import registry
    from isometry.lab import runner

    results = [r for slug in registry.recipes() if (r := runner.load_result(slug, folder))]
    if json_:
        emit(results)
        return
    missing = [slug for slug in registry.recipes() if slug not in {r["slug"] for r in results}]
    for result in results:
        _show_result({**result, "facts": {}})
    if missing:
        say(f"Never run: {', '.join(missing)}")


@app.command()
def cp(
    slug: SlugArgument,
    target: Annotated[Path, typer.Argument(help="File or folder to copy the recipe to.")],
) -> None:
    """Copy a recipe's source, to change it.

    Example: isometry recipes cp hnsw-recall my_study.py
    """
    import shutil

    from isometry import registry
    from isometry.errors import InputError

    entry = registry.recipe(slug)
    file = target / entry.path.name if target.is_dir() else target
    if file.exists():
        raise InputError(f"{file} is already there; choose another name.")
    if not file.parent.is_dir():
        raise InputError(f"The folder {file.parent} does not exist; make it first.")
    shutil.copyfile(entry.path, file)
    out().print(f"Copied to {file}", markup=False)
