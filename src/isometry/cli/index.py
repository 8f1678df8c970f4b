"""``isometry index``: files to a collection."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isometry.cli.console import emit, out, progress_bar, remarks, say
from isometry.cli.options import EngineOption, JsonFlag, ModelOption, PoolingOption, QuietFlag, encoder

if TYPE_CHECKING:
    from isometry.encoders import LateInteraction, TextEncoder


def index(
    source: Annotated[Path, typer.Argument(help="File, folder, BEIR folder, or table (csv, tsv, jsonl, parquet).")],
    name: Annotated[str | None, typer.Option("--name", "-n", help="Name or path of the collection.")] = None,
    model: ModelOption = None,
    engine: EngineOption = None,
    pooling: PoolingOption = None,
    text_column: Annotated[str | None, typer.Option(help="Column of a table that holds the text.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Column that holds the id.")] = None,
    title_column: Annotated[str | None, typer.Option(help="Column that holds the title.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Pattern to leave out, as in .gitignore.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest chunk, in the model's tokens.")] = None,
    overlap: Annotated[int, typer.Option(help="Tokens that neighbouring chunks share.")] = 32,
    late_interaction: Annotated[
        bool,
        typer.Option("--late-interaction", help="Also keep a vector per token: larger, slower, every detail counts."),
    ] = False,
    dim: Annotated[int | None, typer.Option(help="Width of a token vector; default: the model's own.")] = None,
    late_model: Annotated[
        Path | None, typer.Option(help="Folder of a trained late-interaction model; default: the model, untrained.")
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Count malformed lines instead of stopping.")] = False,
    json_: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Embed files into a searchable collection; run again to update it.

    Example: isometry index ~/notes --name notes
    """
    from isometry.errors import InputError
    from isometry.workbench import indexing
    from isometry.workbench.places import BUILTIN, set_setting

    chosen = name or _name_of(source)
    options: dict[str, Any] = {
        "text_column": text_column,
        "id_column": id_column,
        "title_column": title_column,
        "skip_bad": skip_bad,
        "exclude": tuple(exclude or ()),
    }
    if not late_interaction and (dim is not None or late_model):
        raise InputError("--dim and --late-model say how to make token vectors; give --late-interaction as well.")
    source = indexing.resolve(source, chosen)
    with remarks(), progress_bar(quiet=quiet) as progress:
        loaded = encoder(model, engine, pooling)
        late = _late(loaded, dim, late_model) if dim is not None or late_model else late_interaction
        report = indexing.index(
            source, chosen, loaded, options=options, max_tokens=max_tokens, overlap=overlap, late=late,
            progress=progress,
        )  # fmt: skip
    if chosen != BUILTIN:
        set_setting("collection", chosen)
    if json_:
        emit(_record(report))
    else:
        _show(report)


def _late(loaded: TextEncoder, dim: int | None, folder: Path | None) -> LateInteraction:
    from isometry.encoders import LateInteraction
    from isometry.errors import InputError
    from isometry.workbench.late_interaction import token_encoder

    if folder is None:
        return token_encoder(loaded, dim)
    if dim is not None:
        raise InputError("A trained late-interaction model has its own width; give --dim or --late-model, not both.")
    return LateInteraction.load(folder)


def _name_of(source: Path) -> str:
    import re

    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", source.resolve().stem if source.is_file() else source.resolve().name)
    return stem.strip(".-_")[:100] or "collection"


def _record(report: Any) -> dict[str, Any]:
    plain = ("collection", "documents", "added", "unchanged", "removed", "cut_documents", "cut_tokens")
    record = {name: getattr(report, name) for name in (*plain, "judged_queries")}
    if report.tokens is not None:
        record["tokens"] = asdict(report.tokens)
    skipped = [{"path": str(s.path), "reason": s.reason} for s in report.skipped]
    return {**record, "path": str(report.path), "skipped": skipped, "warnings": list(report.warnings)}


def _show(report: Any) -> None:
    for warning in report.warnings[:10]:
        say(f"Note: {warning}")
    for skip in report.skipped[:10]:
        say(f"Skipped {skip.path}: {skip.reason}")
    if len(report.skipped) > 10:
        say(f"Skipped {len(report.skipped) - 10} more; --json lists them all.")
    if report.cut_documents:
        say(
            f"Note: {report.cut_documents:,} documents are longer than the model's window; {report.cut_tokens:,} "
            "tokens at their ends were not embedded (keyword search still finds them)."
        )
    changes = f"{report.added:,} embedded, {report.unchanged:,} unchanged, {report.removed:,} removed"
    console = out()
    console.print(f"{report.collection}: {report.documents:,} documents ({changes})", markup=False)
    if (tokens := report.tokens) is not None:
        console.print(
            f"Late interaction: {tokens.documents:,} documents with {tokens.dim}-d token vectors "
            f"({tokens.embedded:,} embedded), {tokens.bytes / 1e6:,.1f} MB",
            markup=False,
        )
    if report.judged_queries:
        console.print(
            f"{report.judged_queries:,} judged queries kept: isometry eval -c {report.collection}", markup=False
        )
    console.print(f"Next: isometry search 'what you are looking for' -c {report.collection}", markup=False)
