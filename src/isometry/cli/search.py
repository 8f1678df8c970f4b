"""``isometry search``: ask a collection."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isometry.cli.console import emit, out, progress_bar, remarks, say
from isometry.cli.options import CollectionOption, FusionOption, JsonFlag, collection_name
from isometry.errors import InputError

if TYPE_CHECKING:
    from isometry.ranking import Provenance
    from isometry.workbench import Answer

SHOWN = 300  # characters of a text


def search(
    query: Annotated[str, typer.Argument(help="What you are looking for, in your own words; - reads stdin.")],
    collection: CollectionOption = None,
    k: Annotated[int | None, typer.Option("-k", help="How many answers.")] = None,
    mode: Annotated[
        str | None, typer.Option(help="hybrid, vector, keyword or late (the default where there are token vectors).")
    ] = None,
    fusion: FusionOption = "scores",
    where: Annotated[str | None, typer.Option(help="Filter, e.g. \"year >= 2020 and kind = 'survey'\".")] = None,
    diverse: Annotated[
        float | None, typer.Option(help="Spread the answers: 1 relevance only ... 0 diversity only.")
    ] = None,
    diverse_by: Annotated[
        str | None, typer.Option("--diverse-by", help="How to spread them: mmr (the default), coverage or dpp.")
    ] = None,
    hops: Annotated[int | None, typer.Option(help="Follow links between documents from the first answers.")] = None,
    edges: Annotated[
        Path | None, typer.Option(help="Links: source<TAB>target[<TAB>type[<TAB>weight]] or JSON Lines.")
    ] = None,
    rerank: Annotated[
        str | None,
        typer.Option(help="A folder of isometry rerank, a cross-encoder, or yes-no:LANGUAGE-MODEL."),
    ] = None,
    rerank_depth: Annotated[
        int | None, typer.Option("--rerank-depth", min=1, help="How many of the first answers it reorders (100).")
    ] = None,
    query_model: Annotated[
        str | None, typer.Option(help="Embed the question by a student distilled from the collection's model.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show what each stage contributed.")] = False,
    json_: JsonFlag = False,
) -> None:
    """Find documents by meaning and words.

    Example: isometry search "make vectors smaller without losing recall" --where "year >= 2023"
    """
    from isometry.workbench import Searcher, open_collection
    from isometry.workbench.places import Settings, settings
    from isometry.workbench.searching import check_query, query_encoder

    if diverse_by is not None and diverse is None:
        raise InputError("Answers are only spread if you say how much: give --diverse, such as --diverse 0.5.")
    if rerank_depth is not None and rerank is None:
        raise InputError("There is no reranker to give a depth to: give --rerank.")
    text = check_query(sys.stdin.read() if query == "-" else query)
    chosen = settings()
    with remarks(), open_collection(collection_name(collection)) as opened, progress_bar() as progress:
        if where is not None:
            opened.check_where(where)
        count = chosen.k if k is None else k
        usual = None if chosen.mode == Settings.mode else chosen.mode  # what is not set is the collection's to say
        student = None if query_model is None else query_encoder(opened, query_model)
        answers = Searcher(opened, student, progress=progress).search(
            text, k=count, mode=mode or usual, where=where, fusion=fusion, diverse=diverse,
            diverse_by=diverse_by or "mmr", hops=hops, edges=edges, rerank=rerank,
            **({} if rerank_depth is None else {"rerank_depth": rerank_depth}),
        )  # fmt: skip
        if not explain:
            answers = [replace(answer, explanation=()) for answer in answers]
        name, total = opened.name, opened.count()
    if (diverse is not None or hops is not None) and 0 < len(answers) < count:
        say(f"Note: there are only {len(answers)} candidates for {count} answers; all of them are shown.")
    if json_:
        emit([answer.to_dict() for answer in answers])
        return
    if not answers:
        say(f"Nothing found in {name} ({total:,} documents){' under this filter' if where else ''}.")
    for rank, answer in enumerate(answers, 1):
        _show(rank, answer)


def _show(rank: int, answer: Answer) -> None:
    from rich.padding import Padding
    from rich.text import Text

    document = answer.document
    console = out()
    head = Text(f"{rank:>2}. ", style="dim")
    head.append(document.title or document.source or document.id, style="bold")
    head.append(f"  {answer.score:.4f}", style="cyan")
    console.print(head)
    text = " ".join(document.text.split())
    console.print(Padding(Text(text if len(text) <= SHOWN else f"{text[:SHOWN].rsplit(' ', 1)[0]} ..."), (0, 0, 0, 4)))
    if document.source and document.title:
        console.print(Text(f"    {document.source}", style="dim"))
    if answer.provenance is not None:
        console.print(Text(f"    {_origin(answer.provenance)}", style="dim"))
    for part in answer.explanation:
        place = f", rank {part['rank']}" if part["rank"] else ""
        console.print(Text(f"    {part['stage']}: {part['score']:.4f}{place}", style="green"))


def _origin(origin: Provenance) -> str:
    """Say where an answer comes from, in one line."""
    parts = [f"rank {origin.rank} of plain search" if origin.rank else "not found by plain search"]
    if origin.path:
        parts.append(f"linked: {' > '.join(origin.path)}")
    if origin.gain is not None:
        parts.append(f"adds {origin.gain:.4f}")
    if origin.copies:
        parts.append(f"same as {', '.join(origin.copies[:5])}{' ...' if len(origin.copies) > 5 else ''}")
    return "; ".join(parts)
