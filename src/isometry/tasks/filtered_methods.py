"""Every method of filtered search over one collection, and the filters its attributes allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from isometry.indexes.filtered import (
    UNG,
    Acorn,
    Attributes,
    Everything,
    FilteredIndex,
    FilteredVamana,
    InlineHNSW,
    IVFBitmap,
    Planned,
    PostFilter,
    PreFilter,
    SeRF,
    StitchedVamana,
    Vamana,
)
from isometry.tasks.filtered import Field, FilteredQueries, FilterKind, draw_predicates
from isometry.types import FloatArray, Json

Build = Callable[[int], FilteredIndex]


def fields_of(attributes: Attributes) -> list[Field]:
    """For each type of filter, the field that tells items apart best: with most values that several items share.

    An ordered field counts its distinct values.
    """
    best: dict[FilterKind, tuple[int, Field]] = {}
    kinds: dict[str, FilterKind] = {"categorical": "EM", "ordered": "R", "set": "EMIS"}
    for name, type_ in attributes.kinds.items():
        if type_ == "ordered":
            values = len(np.unique(attributes.ordered(name).rising))
        else:
            values = int((np.diff(attributes.labels(name).offsets) > 1).sum())
        kind = kinds[type_]
        if values > 1 and (kind not in best or values > best[kind][0]):
            best[kind] = values, Field(kind, name)
    return [best[kind][1] for kind in kinds.values() if kind in best]


def methods_of(
    inline: InlineHNSW,
    records: Sequence[Mapping[str, Json]],
    fields: Sequence[Field],
    *,
    m: int = 16,
    construction: int = 100,
    degree: int = 64,
    crossover: int = 1000,
) -> dict[str, Build]:
    """How to build each method over the first n items; those made for one type of filter once for each field.

    Parameters
    ----------
    inline
        Holds vectors and attributes; post-filtering and the planner search its graph.
    records
        What the attributes were made of, to build over fewer items.
    m, construction, degree
        Links of HNSW graphs (ACORN, SeRF); width of every building search; links of Vamana graphs.
    crossover
        Matches up to which the planner searches exactly.
    """
    x = inline.vectors
    graph = {"m": m, "ef_construction": construction}
    vamana = {"degree": degree, "width": construction}

    def make(method: Any, *field: str, **options: Any) -> Build:
        def build(n: int) -> FilteredIndex:
            attributes = inline.attributes if n == len(x) else Attributes(records[:n])
            built: FilteredIndex = method.build(x[:n], attributes, *field, **options)
            return built

        return build

    methods = {
        "pre-filter": make(PreFilter),
        "post-filter": lambda n: PostFilter(inline.graph, inline.attributes),
        "inline HNSW": make(InlineHNSW, **graph),
        "planner": lambda n: Planned(inline, crossover=crossover),
        "IVF + bitmap": make(IVFBitmap),
        "ACORN-1": make(Acorn, gamma=1, **graph),
        "ACORN-12": make(Acorn, gamma=12, **graph),
        "Vamana, inline": make(Vamana, **vamana),
    }
    for field in fields:
        if field.kind == "R":
            methods[f"SeRF ({field.name})"] = make(SeRF, field.name, **graph)
            continue
        small = {"degree": degree, "small": max(1, degree // 2), "width": construction}
        methods[f"FilteredVamana ({field.name})"] = make(FilteredVamana, field.name, **vamana)
        methods[f"StitchedVamana ({field.name})"] = make(StitchedVamana, field.name, **small)
        if field.kind == "EMIS":
            methods[f"UNG ({field.name})"] = make(UNG, field.name, **vamana)
    return methods


@dataclass(frozen=True, eq=False)
class Cell:
    """One line of the benchmark: queries under filters of one type and selectivity."""

    name: str
    kind: FilterKind | Literal["all"]
    share: float
    queries: FilteredQueries

    def suits(self, index: FilteredIndex) -> bool:
        """Whether there are filters of that selectivity, and the index can answer all of them."""
        return len(self.queries.predicates) > 0 and all(index.supports(p) for p in self.queries.predicates)


def cells_of(
    index: FilteredIndex, queries: FloatArray, fields: Sequence[Field], shares: Sequence[float], k: int
) -> list[Cell]:
    """One cell per field and share of items that pass, empty where no value is so common, and one for no filter."""
    cells = []
    for field in fields:
        for share in shares:
            drawn = draw_predicates(index.attributes, field.kind, field.name, len(queries), selectivity=share)
            asked = FilteredQueries.of(index, queries[: len(drawn or ())], drawn or (), k)
            cells.append(Cell(f"{field.kind} {field.name}, {share:.1%}", field.kind, share, asked))
    plain = FilteredQueries.of(index, queries, [Everything()] * len(queries), k)
    return [*cells, Cell("no filter", "all", 1.0, plain)]
