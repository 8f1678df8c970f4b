"""``isometry search``: ask a collection."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from isometry.cli.console import emit, out, remarks, say
from isometry.cli.options import CollectionOption, FusionOption, JsonFlag, collection_name

if TYPE_CHECKING:
    from isometry.workbench import Answer

SHOWN = 300  # characters of a text


def search(
    query: Annotated[str, typer.Argument(help="What you are looking for, in your own words; - reads stdin.")],
    collection: CollectionOption = None,
    k: Annotated[int | None, typer.Option("-k", help="How many answers.")] = None,
    mode: Annotated[str | None, typer.Option(help="hybrid, vector or keyword.")] = None,
    fusion: FusionOption = "scores",
    where: Annotated[str | None, typer.Option(help="Filter, e.g. \"year >= 2020 and kind = 'survey'\".")] = None,
    diverse: Annotated[
        float | None, typer.Option(help="Spread the answers (MMR): 1 relevance only ... 0 diversity only.")
    ] = None,
    rerank: Annotated[str | None, typer.Option(help="Cross-encoder folder or name to rerank with.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show what each stage contributed.")] = False,
    json_: JsonFlag = False,
) -> None:
    """Find documents by meaning and words.

    Example: isometry search "make vectors smaller without losing recall" --where "year >= 2023"
    """
    from isometry.workbench import Searcher, open_collection
    from isometry.workbench.places import settings
    from isometry.workbench.searching import check_query

    text = check_query(sys.stdin.read() if query == "-" else query)
    chosen = settings()
    with remarks(), open_collection(collection_name(collection)) as opened:
        count = chosen.k if k is None else k
        answers = Searcher(opened).search(
            text, k=count, mode=mode or chosen.mode, where=where, fusion=fusion, diverse=diverse, rerank=rerank
        )
        if not explain:
            answers = [type(a)(a.document, a.score) for a in answers]
        name, total = opened.name, opened.count()
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
    for part in answer.explanation:
        place = f", rank {part['rank']}" if part["rank"] else ""
        console.print(Text(f"    {part['stage']}: {part['score']:.4f}{place}", style="green"))
