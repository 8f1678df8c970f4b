"""``isometry inspect``: what is wrong with these vectors?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isometry.cli.console import emit, out
from isometry.cli.options import CollectionOption, JsonFlag, collection_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from isometry.diagnostics import Inspection
    from isometry.diagnostics.limit import Capacity
    from isometry.types import Embeddings


def inspect(
    target: Annotated[str | None, typer.Argument(help="A collection, or an embeddings file (.parquet).")] = None,
    collection: CollectionOption = None,
    html: Annotated[Path | None, typer.Option(help="Also write a report with plots, one file.")] = None,
    sample: Annotated[int, typer.Option(help="Look at no more than this many vectors.")] = 5000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sample.")] = 0,
    check_recall: Annotated[bool, typer.Option(help="Build a small HNSW graph and measure its recall.")] = False,
    limit: Annotated[bool, typer.Option(help="Ask whether vectors this wide can rank the judged queries.")] = False,
    judgments: Annotated[Path | None, typer.Option(help="BEIR folder with judgments, for --limit.")] = None,
    json_: JsonFlag = False,
) -> None:
    """Diagnose vectors: size, duplicates, isotropy, intrinsic dimension, hubs, length effect, outliers.

    Example: isometry inspect notes --html notes.html
    """
    from isometry.diagnostics import inspect_vectors, write_html
    from isometry.diagnostics.inspect_recall import measure_recall
    from isometry.errors import InputError

    if sample < 10:
        raise InputError(f"--sample must be at least 10 vectors, got {sample}.")
    emb, texts, name, judged = _vectors(target or collection_name(collection))
    capacity = _capacity(name, judged, judgments, emb.vectors.shape[1]) if limit or judgments else None
    result = inspect_vectors(emb.vectors, ids=emb.ids.tolist(), texts=texts, sample=sample, seed=seed)
    if html is not None:
        write_html(result, emb.vectors, texts or emb.ids.tolist(), html)
    recall = measure_recall(emb.vectors, seed=seed) if check_recall else None
    if json_:
        extra = {"recall_measured": recall, "limit": capacity and capacity.to_dict()}
        emit({"name": name, **result.to_dict(), **{key: value for key, value in extra.items() if value}})
        return
    console = out()
    for key, value in _rows(result):
        console.print(f"{key:>20}  {value}", markup=False)
    if recall is not None:
        shown = ", ".join(f"{value:.1%} at ef {ef}" for ef, value in recall.items())
        console.print(f"{'recall, measured':>20}  {shown}", markup=False)
    if result.findings:
        console.print()
    for finding in result.findings:
        style = {"problem": "bold red", "warning": "yellow", "note": "cyan"}[finding.level]
        console.print(f"- {finding.text}", style=style, markup=False)
    for text in ("", *capacity.statements()) if capacity is not None else ():
        console.print(f"- {text}" if text else "", markup=False)
    if html is not None:
        console.print(f"\nReport: {html}", markup=False)


def _rows(r: Inspection) -> Iterator[tuple[str, str]]:
    """Figures worth a line, in words; those that could not be measured are left out."""

    def number(value: float | None, digits: int = 2) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    looked = f" (figures from a sample of {r.sample:,})" if r.sampled else ""
    yield "vectors", f"{r.size:,} x {r.dim}, {r.dtype}{looked}"
    yield "norms", f"mean {r.norm_mean:.3f}, {r.norm_min:.3f} to {r.norm_max:.3f}"
    yield "duplicates", f"{r.exact_duplicates:,} exact, {r.near_duplicates:,} at cosine {r.near_threshold} or more"
    yield "mean cosine", number(r.mean_cosine, 3)
    yield "isotropy", f"IsoScore {number(r.isoscore, 3)}, partition {number(r.partition_isotropy, 3)} (1 is isotropic)"
    if r.effective_rank is not None:
        yield "effective rank", f"{r.effective_rank:.0f} of {r.dim}; 95 % of the variance in {r.dims95} directions"
    if r.lid is not None:
        yield "intrinsic dimension", f"{number(r.lid, 1)} (maximum likelihood), {number(r.two_nn, 1)} (TwoNN)"
    if r.lid_quartiles is not None:
        low, middle, high = r.lid_quartiles
        yield "local dimension", f"half of the vectors between {low:.1f} and {high:.1f}, median {middle:.1f}"
    if r.recall_forecast:
        shown = ", ".join(f"{f.low:.0%} to {f.high:.0%} at ef {f.ef}" for f in r.recall_forecast if f.ef <= 128)
        yield "recall of HNSW", f"{shown}: foretold from the dimension; --check-recall measures it"
    if r.hub_skewness is not None:
        share = f"{r.anti_hub_share:.0%}" if r.anti_hub_share is not None else "?"
        yield "hubness", f"skewness {r.hub_skewness:.2f} (k = {r.hub_k}), {share} are nobody's neighbour"
    if r.length_rho is not None and r.length_ci95 is not None:
        low, high = r.length_ci95
        yield "length effect", f"{r.length_rho:+.2f} ({low:+.2f} to {high:+.2f}), text length with similarity"
    yield "most central", ", ".join(item.id for item in r.central[:3])
    yield "outliers", f"{r.outlier_count:,}; farthest: {', '.join(item.id for item in r.outliers[:3])}"


def _vectors(target: str) -> tuple[Embeddings, list[str] | None, str, dict[str, dict[str, int]] | None]:
    """Return embeddings, their texts where known, a name, and the collection's own judgments if it has any."""
    from isometry.errors import EmptyInput
    from isometry.types import Embeddings
    from isometry.workbench import open_collection

    if target.endswith(".parquet"):
        if not Path(target).is_file():
            raise EmptyInput(f"{target} does not exist; give an embeddings file or the name of a collection.")
        return Embeddings.from_parquet(target), None, Path(target).name, None
    with open_collection(target) as opened:
        emb = opened.embeddings()
        texts = [d.content for d in opened.get(emb.ids.tolist())]
        return emb, texts, opened.name, (opened.meta.get("judgments") or {}).get("qrels")


def _capacity(name: str, qrels: dict[str, dict[str, int]] | None, judgments: Path | None, width: int) -> Capacity:
    """Ask what width the judgments need: those of the folder given, or the collection's own."""
    from isometry.data import load_set
    from isometry.diagnostics.limit import rank_capacity
    from isometry.errors import InputError

    if judgments is not None:
        return rank_capacity(load_set(judgments, kind="retrieval").qrels, dim=width)
    if not qrels:
        raise InputError(f"{name!r} has no judged queries to look at; give --judgments FOLDER (BEIR).")
    return rank_capacity(qrels, dim=width)
