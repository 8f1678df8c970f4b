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
    from isometry.types import Embeddings


def inspect(
    target: Annotated[str | None, typer.Argument(help="A collection, or an embeddings file (.parquet).")] = None,
    collection: CollectionOption = None,
    html: Annotated[Path | None, typer.Option(help="Also write a report with plots, one file.")] = None,
    sample: Annotated[int, typer.Option(help="Look at no more than this many vectors.")] = 5000,
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0,
    json_: JsonFlag = False,
) -> None:
    """Diagnose vectors: size, duplicates, isotropy, intrinsic dimension, hubs, length effect, outliers.

    Example: isometry inspect notes --html notes.html
    """
    from isometry.diagnostics import inspect_vectors, write_html
    from isometry.errors import InputError

    if sample < 10:
        raise InputError(f"--sample must be at least 10 vectors, got {sample}.")
    emb, texts, name = _vectors(target or collection_name(collection))
    result = inspect_vectors(emb.vectors, ids=emb.ids.tolist(), texts=texts, sample=sample, seed=seed)
    if html is not None:
        write_html(result, emb.vectors, texts or emb.ids.tolist(), html)
    if json_:
        emit({"name": name, **result.to_dict()})
        return
    console = out()
    for key, value in _rows(result):
        console.print(f"{key:>20}  {value}", markup=False)
    if result.findings:
        console.print()
    for finding in result.findings:
        style = {"problem": "bold red", "warning": "yellow", "note": "cyan"}[finding.level]
        console.print(f"- {finding.text}", style=style, markup=False)
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
    if r.hub_skewness is not None:
        share = f"{r.anti_hub_share:.0%}" if r.anti_hub_share is not None else "?"
        yield "hubness", f"skewness {r.hub_skewness:.2f} (k = {r.hub_k}), {share} are nobody's neighbour"
    if r.length_rho is not None and r.length_ci95 is not None:
        low, high = r.length_ci95
        yield "length effect", f"{r.length_rho:+.2f} ({low:+.2f} to {high:+.2f}), text length with similarity"
    yield "most central", ", ".join(item.id for item in r.central[:3])
    yield "outliers", f"{r.outlier_count:,}; farthest: {', '.join(item.id for item in r.outliers[:3])}"


def _vectors(target: str) -> tuple[Embeddings, list[str] | None, str]:
    """Return embeddings, their texts where known, and a name."""
    from isometry.errors import EmptyInput
    from isometry.types import Embeddings
    from isometry.workbench import open_collection

    if target.endswith(".parquet"):
        if not Path(target).is_file():
            raise EmptyInput(f"{target} does not exist; give an embeddings file or the name of a collection.")
        return Embeddings.from_parquet(target), None, Path(target).name
    with open_collection(target) as opened:
        emb = opened.embeddings()
        texts = [d.content for d in opened.get(emb.ids.tolist())]
        return emb, texts, opened.name
