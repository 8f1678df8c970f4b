"""An inspection as one self-contained page: figures, findings, a map and charts, without any outside request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from isometry.diagnostics import svg
from isometry.diagnostics.inspection import Inspection, Item
from isometry.diagnostics.sphere import Array, unit_rows
from isometry.errors import InputError
from isometry.files import write_whole

_MAP_POINTS = 2000
_HOVER = 200  # characters of a text shown on hovering


def write_html(inspection: Inspection, vectors: Any, texts: Sequence[str] | None, path: str | Path) -> None:
    """Write one HTML file that shows an inspection: whole or not at all.

    Parameters
    ----------
    inspection
        What `inspect_vectors` returned for these vectors.
    vectors
        ``[n, d]``, the vectors that were inspected.
    texts
        Their texts, shown on hovering over the map; None shows row numbers.
    path
        The file; it is replaced if it exists.

    Raises
    ------
    InputError
        If vectors or texts are not as many as were inspected, or the folder does not exist.
    """
    values = np.asarray(vectors)
    if values.shape != (inspection.size, inspection.dim):
        expected = (inspection.size, inspection.dim)
        raise InputError(f"the inspection is of vectors of shape {expected}, got {values.shape}; inspect these first.")
    if texts is not None and len(texts) != len(values):
        raise InputError(f"{len(values)} vectors need {len(values)} texts, got {len(texts)}.")
    target = Path(path)
    if not target.parent.is_dir() or target.is_dir():
        raise InputError(f"cannot write a report to {str(target)!r}: name a file in a folder that exists.")
    # A lone surrogate cannot be written as UTF-8; it becomes a question mark.
    content = _page(inspection, values, texts).encode("utf-8", errors="replace")
    write_whole(target, content)


def _page(seen: Inspection, values: Any, texts: Sequence[str] | None) -> str:
    series = seen.series
    charts = (
        ("Norms", svg.histogram(series["norms"], "norms"), "Euclidean length of the vectors"),
        ("Cosine of random pairs", svg.histogram(series["cosines"], "pairwise cosine"), "20,000 pairs"),
        (
            "How often a vector is a neighbour",
            svg.histogram(series["occurrences"], "k-occurrence"),
            f"among the {seen.hub_k} nearest of another; a long tail to the right means hubs",
        ),
        ("Spectrum", svg.curve(series["spectrum"], "spectrum"), "variance along each principal direction, log scale"),
    )
    drawn = "".join(
        f"<figure><h3>{escape(title)}</h3>{chart}<figcaption>{escape(note)}</figcaption></figure>"
        for title, chart, note in charts
    )
    scope = f"Pairwise figures are taken on {seen.sample:,} of them." if seen.sampled else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>Vectors at a glance</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>Vectors at a glance</h1><p class=lead>{seen.size:,} vectors, {seen.dim} wide, {escape(seen.dtype)}; "
        f"{seen.usable:,} usable. {scope}</p>"
        f"<h2>Findings</h2>{_findings(seen)}<h2>Figures</h2>{_figures(seen)}"
        f"<h2>Map</h2>{_map(seen, values, texts)}<h2>Distributions</h2><div class=charts>{drawn}</div>"
        f"<h2>At the centre, at the edge</h2><div class=lists>{_items('Most central', seen.central)}"
        f"{_items('Most outlying', seen.outliers)}</div></main></body></html>\n"
    )


def _findings(seen: Inspection) -> str:
    if not seen.findings:
        return "<p>Nothing stands out.</p>"
    rows = (f"<li class={f.level}><b>{f.level}</b> {escape(f.text)}</li>" for f in seen.findings)
    return f"<ul class=findings>{''.join(rows)}</ul>"


def _figures(seen: Inspection) -> str:
    figures = (
        ("Mean cosine", seen.mean_cosine),
        ("IsoScore", seen.isoscore),
        ("Partition isotropy", seen.partition_isotropy),
        ("Effective rank", seen.effective_rank),
        ("Dimensions with 95% of variance", seen.dims95),
        ("Intrinsic dimension (likelihood)", seen.lid),
        ("Intrinsic dimension (TwoNN)", seen.two_nn),
        ("Hub skewness", seen.hub_skewness),
        ("Nobody's neighbour", seen.anti_hub_share),
        ("Exact duplicates", seen.exact_duplicates),
        ("Near duplicates", seen.near_duplicates),
        ("Length effect (Spearman)", seen.length_rho),
    )
    return "<dl>" + "".join(f"<div><dt>{escape(n)}</dt><dd>{_number(v)}</dd></div>" for n, v in figures) + "</dl>"


def _number(value: float | None) -> str:
    if value is None:
        return "&ndash;"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def _map(seen: Inspection, values: Any, texts: Sequence[str] | None) -> str:
    rows, depths = seen.series["rows"], seen.series["depths"]
    if len(rows) > _MAP_POINTS:
        kept = np.sort(np.random.default_rng(seen.seed).choice(len(rows), _MAP_POINTS, replace=False))
        rows, depths = rows[kept], depths[kept]
    points = _plane(unit_rows(values[rows]))
    shades = np.searchsorted(np.quantile(depths, [0.2, 0.4, 0.6, 0.8]), depths, side="right").tolist()
    titles = [f"row {row}" if texts is None else texts[row][:_HOVER] for row in rows.tolist()]
    legend = "".join(f"<i class=s{shade}></i>" for shade in range(5))
    return (
        f"<figure>{svg.scatter(points, shades, titles, 'map of the vectors')}<figcaption>{len(rows):,} vectors on "
        "their two main directions; hover to read. "
        f"<span class=legend>outlying {legend} central</span></figcaption></figure>"
    )


def _plane(unit: Array) -> Array:
    """Principal component scores ``[n, 2]``; the sign makes the largest loading positive, so that a map is stable."""
    centred = unit - unit.mean(axis=0)
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :2]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), range(axes.shape[1])])
    scores = centred @ axes
    return scores if scores.shape[1] == 2 else np.column_stack([scores, np.zeros(len(scores))])


def _items(title: str, items: Iterable[Item]) -> str:
    rows = "".join(
        f"<li><code>{escape(item.id)}</code> <small>{item.depth:.3f}</small>"
        + (f"<p>{escape(item.text)}</p>" if item.text else "")
        + "</li>"
        for item in items
    )
    return f"<section><h3>{escape(title)}</h3><ol>{rows}</ol></section>"


_STYLE = """
:root{color-scheme:light dark;--ink:#1d2126;--soft:#667079;--rule:#dfe3e6;--paper:#fcfcfa;--card:#fff;--accent:#2a6f97;
--problem:#b3261e;--warning:#a15c00;--note:#2a6f97;--s0:#b5381f;--s1:#e08e45;--s2:#8fa3ad;--s3:#4a90b8;--s4:#1b4f72}
@media (prefers-color-scheme:dark){:root{--ink:#e7e9ea;--soft:#98a2a9;--rule:#2f363b;--paper:#14171a;--card:#1b1f23;
--accent:#7ab8da;--problem:#ff8a80;--warning:#f2b35e;--note:#7ab8da;--s0:#ff7a5c;--s1:#f0a96b;--s2:#76868f;--s3:#5fa8d3;
--s4:#a9d6f2}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 ui-sans-serif,system-ui,"Segoe UI",sans-serif}
main{max-width:62rem;margin:0 auto;padding:3rem 1.25rem 5rem}
h1{font:600 2.1rem/1.15 ui-serif,Georgia,serif;letter-spacing:-.01em;margin:0 0 .4rem}
h2{font:600 1.25rem/1.3 ui-serif,Georgia,serif;margin:2.6rem 0 .8rem;padding-top:1rem;border-top:1px solid var(--rule)}
h3{font-size:.95rem;margin:0 0 .4rem}
.lead,figcaption,dt,small,.none{color:var(--soft)}
.findings{list-style:none;margin:0;padding:0;display:grid;gap:.5rem}
.findings li{background:var(--card);border:1px solid var(--rule);border-left:4px solid var(--c);border-radius:6px;
padding:.6rem .9rem}
.findings b{color:var(--c);font-size:.75rem;text-transform:uppercase;letter-spacing:.06em;margin-right:.5rem}
.problem{--c:var(--problem)}.warning{--c:var(--warning)}.note{--c:var(--note)}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(13rem,1fr));gap:.9rem 1.5rem;margin:0}
dt{font-size:.85rem}dd{margin:0;font-size:1.35rem;font-variant-numeric:tabular-nums}
figure{margin:0}figcaption{font-size:.85rem;margin-top:.4rem}
svg{display:block;width:100%;height:auto;background:var(--card);border:1px solid var(--rule);border-radius:8px}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(20rem,1fr));gap:1.6rem}
.lists{display:grid;grid-template-columns:repeat(auto-fit,minmax(20rem,1fr));gap:2rem}
.bars rect{fill:var(--accent)}.curve{fill:none;stroke:var(--accent);stroke-width:2}
.axis{fill:none;stroke:var(--rule)}.ticks text{fill:var(--soft);font-size:11px}
circle{fill-opacity:.75}circle:hover{fill-opacity:1;stroke:var(--ink);stroke-width:1.5}
.s0{fill:var(--s0);background:var(--s0)}.s1{fill:var(--s1);background:var(--s1)}.s2{fill:var(--s2);background:var(--s2)}
.s3{fill:var(--s3);background:var(--s3)}.s4{fill:var(--s4);background:var(--s4)}
.legend{white-space:nowrap}.legend i{display:inline-block;width:.7rem;height:.7rem;border-radius:50%;margin:0 .1rem}
ol{padding-left:1.4rem;margin:0}li p{margin:.1rem 0 .6rem;overflow-wrap:anywhere}
code{font:.85rem ui-monospace,Menlo,monospace;overflow-wrap:anywhere}
"""
