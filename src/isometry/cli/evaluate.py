"""``isometry eval``: how good is the search, with error bars."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isometry.cli.console import emit, out, progress_bar, remarks, table
from isometry.cli.options import (
    CollectionOption,
    DataRootOption,
    EngineOption,
    FusionOption,
    JsonFlag,
    ModelOption,
    PoolingOption,
    QuietFlag,
    collection_name,
    data_root,
    encoder,
)

if TYPE_CHECKING:
    from isometry.workbench import Evaluation


def evaluate(
    data: Annotated[str | None, typer.Option(help="BEIR folder, or a set's name such as ir/scifact.")] = None,
    collection: CollectionOption = None,
    judgments: Annotated[Path | None, typer.Option(help="BEIR folder with judgments for the collection.")] = None,
    synthetic: Annotated[int, typer.Option(help="Make this many pseudo-queries from the documents.")] = 0,
    mode: Annotated[str, typer.Option(help="vector, keyword, hybrid or late.")] = "vector",
    against: Annotated[str | None, typer.Option(help="Compare with another mode, with its interval.")] = None,
    fusion: FusionOption = "scores",
    split: Annotated[str, typer.Option(help="Which qrels to use.")] = "test",
    model: ModelOption = None,
    engine: EngineOption = None,
    pooling: PoolingOption = None,
    root: DataRootOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the pseudo-queries.")] = 0,
    json_: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Measure retrieval quality with 95 % intervals.

    Example: isometry eval --data ir/scifact --mode hybrid --against keyword
    """
    from isometry.errors import InputError
    from isometry.workbench import evaluate_collection, evaluate_set, open_collection

    if data and (collection or judgments or synthetic):
        raise InputError("Give --data, or --collection with --judgments or --synthetic, not both.")
    if synthetic < 0:
        raise InputError(f"--synthetic must be at least 1 (how many pseudo-queries), got {synthetic}.")
    with remarks(), progress_bar(quiet=quiet) as report:

        def progress(done: int, total: int | None) -> None:
            report("embedding", done, total)

        if data:
            result = evaluate_set(
                data, encoder(model, engine, pooling), mode=mode, against=against, fusion=fusion, root=data_root(root),
                split=split,
                progress=progress,
            )  # fmt: skip
        else:
            with open_collection(collection_name(collection)) as opened:
                result = evaluate_collection(
                    opened, encoder(model, engine, pooling) if model or engine else None, mode=mode, against=against,
                    fusion=fusion, judgments=judgments, synthetic=synthetic, seed=seed, progress=progress,
                )  # fmt: skip
    if json_:
        emit(result.to_dict())
    else:
        _show(result)


def _show(result: Evaluation) -> None:
    label = f"{result.name}, {result.mode} search, {result.n:,} queries"
    if result.synthetic:
        label += " [synthetic: sentences of the documents, easier than real questions]"
    rows = [[m, f"{result.scores.mean(m):.4f}", f"{lo:.4f} to {hi:.4f}"] for m, (lo, hi) in result.intervals.items()]
    table(["metric", "mean", "95 % interval"], rows, title=label, right=(1,))
    if result.comparisons:
        rows = [
            [c.metric, f"{c.delta:+.4f}", f"{c.ci95[0]:+.4f} to {c.ci95[1]:+.4f}", f"{c.p:.4f}", f"{c.wins}/{c.losses}",
             c.verdict]
            for c in result.comparisons
        ]  # fmt: skip
        title = f"{result.mode} against {result.against}, same queries"
        table(["metric", "difference", "95 % interval", "p", "wins/losses", "verdict"], rows, title=title, right=(1, 3))
    out().print("Means over queries; intervals by bootstrap over queries.", style="dim")
