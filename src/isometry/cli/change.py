"""``isometry distill``, ``merge``, ``cut`` and ``rerank``: other ways to make a model, each measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from isometry.cli.console import emit, progress_bar, remarks, say
from isometry.cli.options import DataRootOption, JsonFlag, OutOption, QuietFlag, data_root
from isometry.cli.tune import report

Fresh = Annotated[bool, typer.Option("--fresh", help="Start over, and replace what is there.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]
Budget = Annotated[str, typer.Option(help="Time for everything, such as 10m.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Updates; default: what data and budget allow.")]
Judged = Annotated[list[str] | None, typer.Option("--data", help="Data to judge by; may be repeated.")]


def _end(facts: Mapping[str, Any], output: Path, *, as_json: bool, hint: str) -> None:
    if as_json:
        emit(facts)
        return
    report(facts)
    say(f"Written to {output}; {hint}")


def distill(
    data: Annotated[str, typer.Argument(help="Texts of any kind; labels and judgments only judge.")],
    output: OutOption,
    teacher: Annotated[str, typer.Option("--teacher", "-t", help="Model to learn from.")] = "minilm",
    layers: Annotated[int, typer.Option(min=1, help="Layers of the student, the teacher's first.")] = 2,
    budget: Budget = "10m",
    steps: Steps = None,
    seed: Seed = 0,
    fresh: Fresh = False,
    root: DataRootOption = None,
    json_: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Distil a model into a smaller one whose queries can search the teacher's indexes.

    Example: isometry distill ir/scifact --layers 2 --out small
    """
    from isometry.workbench.budget import parse_duration
    from isometry.workbench.distilling import distil_model

    with remarks(), progress_bar(quiet=quiet) as progress:
        found = distil_model(
            data, output, teacher=teacher, layers=layers, budget=parse_duration(budget), steps=steps, seed=seed,
            root=data_root(root), fresh=fresh, progress=progress,
        )  # fmt: skip
    _end(found.to_dict(), output, as_json=json_, hint=f"search an index of {teacher} with --query-model {output}")


def merge(
    models: Annotated[list[str], typer.Argument(help="Two or more models tuned from one start.")],
    output: OutOption,
    method: Annotated[str, typer.Option(help="average, slerp or task-arithmetic.")] = "average",
    weights: Annotated[str | None, typer.Option(help="A factor for each model, separated by commas.")] = None,
    base: Annotated[str | None, typer.Option(help="Their common start, for task-arithmetic.")] = None,
    data: Judged = None,
    fresh: Fresh = False,
    root: DataRootOption = None,
    json_: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Merge tuned copies of one model; with --data, compare with the best of them.

    Example: isometry merge tuned-a tuned-b --method slerp --data ir/scifact --out both
    """
    from isometry.errors import InputError
    from isometry.workbench.merging import merge as run

    try:
        factors = None if weights is None else [float(part) for part in weights.split(",")]
    except ValueError as error:
        raise InputError(f"--weights must be numbers separated by commas, got {weights!r}.") from error
    with remarks(), progress_bar(quiet=quiet) as progress:
        facts = run(
            models, output, method=method, weights=factors, base=base, data=data or (),
            root=data_root(root), fresh=fresh, progress=progress,
        )  # fmt: skip
    _end(facts, output, as_json=json_, hint=f"index with it: isometry index DATA --model {output}")


def cut(
    model: Annotated[str, typer.Argument(help="Model to cut.")],
    output: OutOption,
    layers: Annotated[int | None, typer.Option(min=1, help="Layers to keep, from the first.")] = None,
    dims: Annotated[int | None, typer.Option(min=1, help="Dimensions to keep, from the first.")] = None,
    data: Judged = None,
    fresh: Fresh = False,
    root: DataRootOption = None,
    json_: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Write fewer layers or dimensions of a model as a model of its own; with --data, see what that costs.

    Example: isometry cut tuned --layers 3 --dims 128 --data sts/stsb --out tuned-small
    """
    from isometry.workbench.cutting import cut as run

    with remarks(), progress_bar(quiet=quiet):
        facts = run(model, output, layers=layers, dims=dims, data=data or (), root=data_root(root), fresh=fresh)
    _end(facts, output, as_json=json_, hint=f"index with it: isometry index DATA --model {output}")


def rerank(
    data: Annotated[str, typer.Argument(help="A BEIR folder, pairs, or documents.")],
    output: OutOption,
    kind: Annotated[str, typer.Option(help="cross-encoder, or yes-no: a language model asked for yes or no.")] = (
        "cross-encoder"
    ),
    base: Annotated[
        str | None, typer.Option("--base", "-b", help="Model to start from (minilm; smollm2 for yes-no).")
    ] = None,
    encoder: Annotated[str, typer.Option("--encoder", help="First stage, whose hits are reordered.")] = "minilm",
    depth: Annotated[int, typer.Option(min=2, help="How many hits are reordered.")] = 20,
    budget: Budget = "10m",
    steps: Steps = None,
    seed: Seed = 0,
    fresh: Fresh = False,
    root: DataRootOption = None,
    json_: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Train a reranker of search results; ends with before and after on held-out queries.

    Example: isometry rerank ir/scifact --out scifact-reranker
    """
    from isometry.workbench.budget import parse_duration
    from isometry.workbench.reranking import train_reranker

    with remarks(), progress_bar(quiet=quiet) as progress:
        facts = train_reranker(
            data, output, kind=kind, base=base, encoder=encoder, depth=depth, budget=parse_duration(budget),
            steps=steps, seed=seed, root=data_root(root), fresh=fresh, progress=progress,
        )  # fmt: skip
    _end(facts, output, as_json=json_, hint=f"use it: isometry search 'words' --rerank {output}")
