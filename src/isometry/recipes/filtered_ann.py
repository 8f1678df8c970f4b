"""Filtered nearest-neighbour search: which method to use for which filter, how selective, and at what cost."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.errors import RecipeError
from isometry.indexes.filtered import (
    Acorn,
    Attributes,
    InlineHNSW,
    Planned,
    PostFilter,
    PreFilter,
    Rows,
)
from isometry.indexes.filtered.baselines import spherical_kmeans
from isometry.lab import Card, Claim, Lab, Outcome, Plot
from isometry.tasks.filtered import (
    FilteredQueries,
    at_recall,
    build_within,
    correlated_rows,
    measure,
    pareto,
    popularity,
    sweep,
)
from isometry.tasks.filtered_methods import cells_of, fields_of, methods_of
from isometry.types import Scores

if TYPE_CHECKING:
    from isometry.indexes.filtered import FilteredIndex
    from isometry.tasks.filtered import Field, Measured
    from isometry.tasks.filtered_methods import Cell
    from isometry.types import FloatArray

CARD = Card(
    slug="filtered-ann",
    title="Benchmarking Filtered Approximate Nearest Neighbor Search Algorithms on Transformer-based Embedding Vectors",
    arxiv="2507.21989",
    year=2025,
    kind="survey",
    summary=(
        "Searches vectors among the items that pass a filter, by every kind of method there is: filter before, after "
        "or during the search, or an index built around the filter's attribute. Measures recall, speed and cost by "
        "type of filter and by how many items pass it. Run on your own documents, it says which method suits the "
        "fields they carry."
    ),
    mechanism=(
        "isometry.indexes.filtered.acorn:Acorn",
        "isometry.indexes.filtered.baselines:IVFBitmap",
        "isometry.indexes.filtered.baselines:InlineHNSW",
        "isometry.indexes.filtered.baselines:Planned",
        "isometry.indexes.filtered.baselines:PostFilter",
        "isometry.indexes.filtered.baselines:PreFilter",
        "isometry.indexes.filtered.filtered_vamana:FilteredVamana",
        "isometry.indexes.filtered.filtered_vamana:StitchedVamana",
        "isometry.indexes.filtered.serf:SeRF",
        "isometry.indexes.filtered.ung:UNG",
        "isometry.indexes.filtered.vamana:Vamana",
    ),
    parts=(
        "isometry.indexes.filtered.attributes:Attributes",
        "isometry.tasks.filtered:correlated_rows",
        "isometry.tasks.filtered:draw_predicates",
        "isometry.tasks.filtered:measure",
        "isometry.tasks.filtered_methods:methods_of",
    ),
    needs=("documents",),
    aliases=("filtered search", "FANNS", "metadata filtering", "ACORN", "Filtered-DiskANN", "SeRF", "UNG"),
    aspects={
        "task": "nearest neighbour search under a filter on attributes",
        "method": "pre-, post- and inline filtering, ACORN, Filtered-DiskANN, UNG, SeRF",
        "data": "text embeddings with categorical, ordered and set-valued attributes",
    },
    headline="no method wins everywhere; ACORN answers every filter, specialists are faster on their own",
    claims=(
        Claim("Post-filtering at a fixed width of 100 finds more than 90 % where half of the items pass",
              key="post-wide", task="random filters", metric="recall@10", baseline="0.9", seeds=3),
        Claim("Post-filtering at a fixed width of 100 finds less than 30 % where one item in a hundred passes",
              key="post-narrow", task="random filters", metric="recall@10", baseline="0.3", sign="<", seeds=3),
        Claim("Inline filtering finds more than 80 % where one item in a hundred passes",
              key="inline", task="random filters", metric="recall@10", baseline="0.8", seeds=3),
        Claim("Brute force over the matches is faster than inline HNSW where one item in two hundred passes",
              key="brute-narrow", task="random filters", metric="seconds per query", baseline="inline HNSW, recall .9",
              sign="<", seeds=3),
        Claim("Brute force over the matches is slower than inline HNSW where one item in five passes",
              key="brute-wide", task="random filters", metric="seconds per query", baseline="inline HNSW, recall .9",
              seeds=3),
        Claim("ACORN-1 computes fewer distances than inline HNSW at recall .9 where 2 to 20 % of the items pass",
              key="acorn-1", task="random filters", metric="distance computations", baseline="inline HNSW, recall .9",
              sign="<", seeds=3),
        Claim("Matches far from the query cost inline HNSW more distances than random ones, equally many",
              key="negative", task="correlated filters", metric="distance computations", baseline="random filter",
              seeds=3),
        Claim("Matches near the query cost inline HNSW fewer distances than random ones, equally many",
              key="positive", task="correlated filters", metric="distance computations", baseline="random filter",
              sign="<", seeds=3),
        Claim("No answer of any method is shorter than it could be", key="whole", invariant=True),
        Claim("Pre-filtering, and the planner where k items or fewer pass, find everything", key="exact",
              invariant=True),
    ),
    presets={
        "smoke": {"seeds": 1, "n": 1200, "queries": 30, "table_queries": 10, "k": 10, "m": 8, "degree": 16,
                  "construction": 40, "topics": 24, "shares": [0.01, 0.1, 0.5], "widths": [10, 40, 160],
                  "budget": 60},
        "laptop": {"seeds": 3, "n": 20000, "queries": 300, "table_queries": 100, "k": 10, "m": 16, "degree": 48,
                   "construction": 100, "topics": 100, "shares": [0.001, 0.01, 0.1, 0.5],
                   "widths": [10, 20, 40, 80, 160, 320], "budget": 90},
        "paper": {"seeds": 3, "n": 115000, "queries": 1000, "table_queries": 1000, "k": 10, "m": 32, "degree": 96,
                  "construction": 200, "topics": 500, "shares": [0.001, 0.01, 0.1, 0.5],
                  "widths": [10, 20, 40, 80, 160, 320, 640, 1280], "budget": 36000},
    },
)  # fmt: skip

PROBES = (1, 4, 16, 64, 256)  # lists that IVF looks into
TARGET = 0.9
FINE = (10, 12, 14, 17, 20, 24, 28, 34, 40, 48, 57, 68, 80, 96, 113, 135, 160, 226, 320, 640)


def run(lab: Lab) -> Outcome:
    """Random filters for the claims, then every method on the data's own attributes."""
    outcome = Outcome()
    texts, records = _items(lab)
    x, held = lab.embed(texts), min(lab.config["queries"], max(1, len(texts) // 5))
    q, x, records = x[:held], x[held:], records[held:]
    attributes = Attributes(records)
    fields = fields_of(attributes)
    if not fields:
        raise RecipeError("No document carries a field that a filter could ask of; give documents with metadata.")
    outcome.fact("vectors", f"{len(x)} x {x.shape[1]}, {len(q)} queries")
    outcome.fact("attributes", attributes.kinds)
    outcome.fact("items without the attribute", attributes.missing())
    inline = InlineHNSW.build(x, attributes, m=lab.config["m"], ef_construction=lab.config["construction"])
    _widths(lab, outcome, inline, q)
    crossover = _costs(lab, outcome, inline, q)
    _correlation(lab, outcome, inline, q)
    _table(lab, outcome, inline, q, records, fields, crossover)
    return outcome


# What is searched ----------------------------------------------------------------------------------------------------


def _items(lab: Lab) -> tuple[list[str], list[dict[str, Any]]]:
    """Texts and their attributes, distinct texts only, shuffled."""
    items: dict[str, dict[str, Any]] = {}
    if lab.user_data is None:
        items = _glosses(lab)
    else:
        for document in lab.documents(""):
            flat = {k: v for k, v in document.payload.items() if not isinstance(v, dict)}
            items.setdefault(document.content, flat)
    texts = sorted(items)
    count = lab.config["n"] + lab.config["queries"]
    texts = [texts[i] for i in np.random.default_rng(0).permutation(len(texts))[:count]]
    return texts, [items[text] for text in texts]


def _glosses(lab: Lab) -> dict[str, dict[str, Any]]:
    """WordNet glosses with the order of their synsets, their length, the topics above them, and their own category."""
    with gzip.open(lab.path("wordnet") / "relations.tsv.gz", "rt", encoding="utf-8", newline="") as file:
        above: dict[str, list[str]] = {}
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            if row["relation"] in ("hypernym", "instance_hypernym"):
                above.setdefault(row["id"], []).append(row["target"])
    with gzip.open(lab.path("wordnet") / "synsets.tsv.gz", "rt", encoding="utf-8", newline="") as file:
        synsets = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    paths = {row["id"]: _ancestors(row["id"], above) for row in synsets}
    common = Counter(topic for path in paths.values() for topic in path).most_common(lab.config["topics"])
    size = dict(common)
    names = {row["id"]: row["lemmas"].split("|")[0] for row in synsets}
    items: dict[str, dict[str, Any]] = {}
    for row in synsets:
        topics = [t for t in paths[row["id"]] if t in size]
        nearest = min(topics, key=lambda t: (size[t], t), default=None)
        items.setdefault(row["definition"], {
            "part_of_speech": row["pos"],
            "category": f"{names[nearest]} {nearest}" if nearest else row["pos"],
            "offset": int(row["id"][1:]),
            "letters": len(row["definition"]),
            "topics": [f"{names[t]} {t}" for t in topics],
        })  # fmt: skip
    return items


def _ancestors(synset: str, above: dict[str, list[str]]) -> list[str]:
    seen: dict[str, None] = {}
    front = [synset]
    while front:
        for target in above.get(front.pop(), ()):
            if target not in seen:
                seen[target] = None
                front.append(target)
    return list(seen)


# Claims: random and correlated filters -------------------------------------------------------------------------------


def _random(lab: Lab, index: FilteredIndex, q: FloatArray, share: float) -> FilteredQueries:
    """Every query once a draw, each time with a range of a random order of the items."""
    n, predicates = len(index.vectors), []
    wanted = max(1, round(share * n))
    for draw in lab.seeds:
        rng = np.random.default_rng([draw, wanted])
        order = rng.permutation(n)
        for first in rng.integers(0, n - wanted + 1, len(q)):
            mask = np.zeros(n, bool)
            mask[order[first : first + wanted]] = True
            predicates.append(Rows(mask))
    return FilteredQueries.of(index, np.tile(q, (len(lab.seeds), 1)), predicates, lab.config["k"])


def _widths(lab: Lab, outcome: Outcome, inline: InlineHNSW, q: FloatArray) -> None:
    """Claim 1: a fixed width of 100."""
    post = PostFilter(inline.graph, inline.attributes, once=True)
    series: dict[str, list[tuple[float, float]]] = {"post-filter": [], "inline HNSW": []}
    for i, share in enumerate((0.5, 0.2, 0.1, 0.05, 0.02, 0.01)):
        lab.progress("fixed width", i, 6)
        queries = _random(lab, inline, q, share)
        rows = {"post-filter": measure(post, queries, 100), "inline HNSW": measure(inline, queries, 100)}
        for name, row in rows.items():
            series[name].append((share, float(row.recall.mean())))
        if share == 0.5:
            outcome.compare("post-wide", rows["post-filter"].scores("recall", "random", "post-filter"), 0.9)
        if share == 0.01:
            outcome.compare("post-narrow", rows["post-filter"].scores("recall", "random", "post-filter"), 0.3)
            outcome.compare("inline", rows["inline HNSW"].scores("recall", "random", "inline HNSW"), 0.8)
    outcome.fact("recall@10 by selectivity, width 100, random filters", series)
    title = "A fixed width of 100, random filters"
    outcome.plot("fixed-width", Plot(title, "share of items that pass", "recall@10", series, log_x=True))


def _costs(lab: Lab, outcome: Outcome, inline: InlineHNSW, q: FloatArray) -> int:
    """Claims 2 and 3: inline HNSW, ACORN-1 and brute force at recall .9; return the matches up to which brute wins."""
    acorn = Acorn.build(inline.vectors, inline.attributes, m=lab.config["m"], gamma=1,
                        ef_construction=lab.config["construction"])  # fmt: skip
    brute = PreFilter.build(inline.vectors, inline.attributes)
    distances: dict[str, list[tuple[float, float]]] = {"inline HNSW": [], "ACORN-1": [], "brute force": []}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in distances}
    pooled: dict[str, list[np.ndarray[Any, Any]]] = {"inline HNSW": [], "ACORN-1": []}
    shares = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
    for i, share in enumerate(shares):
        lab.progress("equal recall", i, len(shares))
        queries = _random(lab, inline, q, share)
        rows = {
            "inline HNSW": sweep(inline, queries, FINE, until=TARGET)[-1],
            "ACORN-1": sweep(acorn, queries, FINE, until=TARGET)[-1],
            "brute force": measure(brute, queries, lab.config["k"]),
        }
        for name, row in rows.items():
            distances[name].append((share, float(row.computed.mean())))
            seconds[name].append((share, 1e3 * float(row.seconds.mean())))
        outcome.fact(f"at recall .9, share {share:g}", {name: row.summary for name, row in rows.items()})
        if share in (0.02, 0.05, 0.1, 0.2):
            for name in pooled:
                pooled[name].append(rows[name].computed)
        if share in (0.005, 0.2):
            sides = [rows[name].scores("seconds", "random", name) for name in ("brute force", "inline HNSW")]
            outcome.compare("brute-narrow" if share == 0.005 else "brute-wide", sides[0], sides[1])
    outcome.compare("acorn-1", *(_per_unit(name, pooled[name]) for name in ("ACORN-1", "inline HNSW")))
    crossover = _crossover(seconds)
    outcome.fact("crossover of brute force and inline HNSW, share of items", crossover)
    x_label = "share of items that pass"
    outcome.plot("crossover", Plot("Latency at recall .9", x_label, "ms per query", seconds, log_x=True, log_y=True))
    outcome.plot("distances", Plot("Distance computations at recall .9", x_label, "distances per query", distances,
                                   log_x=True, log_y=True))  # fmt: skip
    return 1000 if crossover is None else round(crossover * len(inline.vectors))


def _per_unit(name: str, columns: list[np.ndarray[Any, Any]]) -> Scores:
    values = np.concatenate(columns)
    return Scores.of("random", name, {"distances": {str(i): float(v) for i, v in enumerate(values)}})


def _crossover(seconds: dict[str, list[tuple[float, float]]]) -> float | None:
    """Share at which brute force stops being faster, by linear interpolation of the logarithms; None without one."""
    share = np.log([s for s, _ in seconds["brute force"]])
    gap = np.log([t for _, t in seconds["brute force"]]) - np.log([t for _, t in seconds["inline HNSW"]])
    for i in range(len(gap) - 1):
        if gap[i] < 0 <= gap[i + 1]:
            return round(float(np.exp(share[i] - gap[i] * (share[i + 1] - share[i]) / (gap[i + 1] - gap[i]))), 4)
    return None


def _correlation(lab: Lab, outcome: Outcome, inline: InlineHNSW, q: FloatArray, share: float = 0.05) -> None:
    """Claim 4: matches near the query, anywhere, far from it."""
    clusters = min(100, max(2, len(inline.vectors) // 50))
    centroids, home = spherical_kmeans(inline.vectors, clusters)
    post = PostFilter(inline.graph, inline.attributes, once=True)
    rows: dict[str, Measured] = {}
    for how in ("positive", "random", "negative"):
        lab.progress("correlated filters", len(rows), 3)
        predicates = [
            Rows(correlated_rows(centroids, home, v, share, how, seed=1000 * draw + i))
            for draw in lab.seeds
            for i, v in enumerate(q)
        ]
        queries = FilteredQueries.of(inline, np.tile(q, (len(lab.seeds), 1)), predicates, lab.config["k"])
        rows[how] = measure(inline, queries, 100)
        after = float(measure(post, queries, 100).recall.mean())
        outcome.fact(f"{how} correlation, share {share:g}, width 100",
                     {"inline HNSW": rows[how].summary, "post-filter recall": round(after, 4)})  # fmt: skip
    for how in ("negative", "positive"):
        outcome.compare(how, rows[how].scores("computed", "correlated", how),
                        rows["random"].scores("computed", "correlated", "random"))  # fmt: skip


# The table: every method on the data's own attributes ----------------------------------------------------------------


def _table(
    lab: Lab, outcome: Outcome, inline: InlineHNSW, q: FloatArray, records: list[dict[str, Any]], fields: list[Field],
    crossover: int,
) -> None:  # fmt: skip
    c, n = lab.config, len(inline.vectors)
    cells = cells_of(inline, q[: c["table_queries"]], fields, c["shares"], c["k"])
    table: dict[str, dict[str, Any]] = {cell.name: {} for cell in cells}
    rows: dict[tuple[str, str], list[Measured]] = {}
    methods = methods_of(inline, records, fields, m=c["m"], construction=c["construction"], degree=c["degree"],
                         crossover=crossover)  # fmt: skip
    for i, (method, build) in enumerate(methods.items()):
        lab.progress("methods", i, len(methods))
        built = build_within(build, n, c["budget"])
        outcome.fact(f"build, {method}", built.summary)
        for cell in cells:
            if built.index is None or not cell.suits(built.index):
                continue
            grid = PROBES if method.startswith("IVF") else c["widths"][:1] if method == "pre-filter" else c["widths"]
            curve = cell.share in (0.1, 1.0)  # the whole curve there, elsewhere up to the target
            found = rows[cell.name, method] = sweep(built.index, cell.queries, grid, until=None if curve else TARGET)
            table[cell.name][method] = (at_recall(found, TARGET) or found[-1]).summary
    for cell in cells:
        outcome.fact(f"methods, {cell.name}", table[cell.name] or "no value of the data passes about so many items")
    drawn = {cell.name: cell.queries.histogram(n) for cell in cells}
    outcome.fact("filters by the share of items that pass", drawn)
    outcome.fact("filters of the items' own values, by share", _popularity(inline, fields))
    outcome.invariant("whole", all(row.whole.all() for found in rows.values() for row in found),
                      f"{len(rows)} pairs of method and filter")  # fmt: skip
    exact = [bool(found[0].recall.min() == 1) for (_, method), found in rows.items() if method == "pre-filter"]
    exact.append(_planned(inline, q, c["k"]))
    outcome.invariant("exact", all(exact), f"{len(exact)} sets of filters")
    _pictures(outcome, cells, rows)


def _popularity(inline: InlineHNSW, fields: list[Field]) -> dict[str, dict[str, int]]:
    """What filters drawn from the items themselves, as the paper draws them, would ask: common values, mostly."""
    return {field.name: popularity(inline.attributes, field) for field in fields if field.kind != "R"}


def _planned(inline: InlineHNSW, q: FloatArray, k: int) -> bool:
    rng, n = np.random.default_rng(0), len(inline.vectors)
    masks = [np.isin(np.arange(n), rng.choice(n, min(k, n), replace=False)) for _ in q]
    queries = FilteredQueries.of(inline, q, [Rows(mask) for mask in masks], k)
    return bool(measure(Planned(inline, crossover=0), queries, k).recall.min() == 1)


def _pictures(outcome: Outcome, cells: list[Cell], rows: dict[tuple[str, str], list[Measured]]) -> None:
    by_kind: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for cell in cells:
        found = {m.partition(" (")[0]: r for (name, m), r in rows.items() if name == cell.name}
        for method, curve in found.items():
            recall = float(curve[0].recall.mean())
            by_kind.setdefault(cell.kind, {}).setdefault(method, []).append((cell.share, recall))
        if cell.share == 0.1 and found:
            fronts = {m: pareto((float(r.recall.mean()), r.qps) for r in curve) for m, curve in found.items()}
            title = f"Speed against recall: {cell.name}"
            outcome.plot(f"pareto-{cell.kind}", Plot(title, "recall@10", "queries a second", fronts, log_y=True))
    for kind, series in by_kind.items():
        if kind != "all":
            title = f"Recall at each method's least width: {kind} filters"
            outcome.plot(f"recall-{kind}", Plot(title, "share of items that pass", "recall@10", series, log_x=True))
