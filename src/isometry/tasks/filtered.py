"""The protocol of filtered search: filters by type, selectivity and correlation; recall, speed and cost per query.

Benchmarking Filtered Approximate Nearest Neighbor Search Algorithms on Transformer-based Embedding Vectors, 2025
(arXiv:2507.21989).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from isometry.errors import InputError
from isometry.indexes.filtered import Attributes, Between, Contains, Equals, FilteredIndex, Predicate
from isometry.types import FloatArray, Json, Scores, check_vectors, unit

FilterKind = Literal["EM", "R", "EMIS"]
Correlation = Literal["positive", "random", "negative"]
TIE = 1e-6  # single-precision rounding of a distance around 1
WITHIN = 2.0  # factor by which a label's share may miss the selectivity asked for


@dataclass(frozen=True)
class Field:
    """An attribute and the type of filter it is asked by."""

    kind: FilterKind
    name: str


@dataclass(frozen=True, eq=False)
class FilteredQueries:
    """Queries, each with its predicate, and what is exactly true of them.

    Parameters
    ----------
    vectors
        float32 ``[q, d]``.
    predicates
        One per query.
    kth
        float64 ``[q]``: distance of the k-th nearest matching item (of the last, where fewer match).
    matches
        int64 ``[q]``: how many items match.
    k
        Depth.
    """

    vectors: FloatArray
    predicates: Sequence[Predicate]
    kth: NDArray[np.float64]
    matches: NDArray[np.int64]
    k: int

    @classmethod
    def of(cls, index: FilteredIndex, vectors: FloatArray, predicates: Sequence[Predicate], k: int) -> FilteredQueries:
        """Find the truth by brute force over the vectors and attributes of any index.

        Raises
        ------
        InputError
            If there is not one predicate per query, or one cannot be evaluated; names the query.
        """
        x = check_vectors(vectors, dim=index.vectors.shape[1], what="queries")
        if len(predicates) != len(x):
            raise InputError(f"{len(x)} queries need as many predicates, got {len(predicates)}.")
        x = unit(x)
        kth, matches = np.full(len(x), np.nan), np.zeros(len(x), np.int64)
        for i, predicate in enumerate(predicates):
            try:
                mask = index.attributes.mask(predicate)
            except InputError as error:
                raise InputError(f"Query {i}: {error}") from error
            many = 4 * np.count_nonzero(mask) > len(mask)  # then one pass over all rows is cheaper than copying some
            distances = 1 - ((index.vectors @ x[i])[mask] if many else index.vectors[mask] @ x[i])
            matches[i] = len(distances)
            if len(distances):
                kth[i] = np.partition(distances, min(k, len(distances)) - 1)[min(k, len(distances)) - 1]
        return cls(x, predicates, kth, matches, k)

    def histogram(self, n: int) -> dict[str, int]:
        """Number of queries by decade of the share of ``n`` items that match: filters of items favour common values."""
        names = Counter(_decade(int(m) / n) for m in self.matches)
        return {name: names[name] for name in (*_DECADES, "none") if names[name]}


_DECADES = ("10-100 %", "1-10 %", "0.1-1 %", "< 0.1 %")


def _decade(share: float) -> str:
    return "none" if not share else _DECADES[0] if share >= 0.1 else _DECADES[1] if share >= 0.01 else (
        _DECADES[2] if share >= 0.001 else _DECADES[3])  # fmt: skip


@dataclass(frozen=True, eq=False)
class Measured:
    """One index at one width, per query.

    Parameters
    ----------
    ef
        The width.
    recall
        See `measure`.
    whole
        Whether the answer was as long as it could be.
    seconds
        CPU time of the one thread that searches, the evaluation of the predicate included; what other programs do on
        the machine does not count.
    computed, restarts
        See `isometry.indexes.filtered.Found`.
    """

    ef: int
    recall: NDArray[np.float64]
    whole: NDArray[np.bool_]
    seconds: NDArray[np.float64]
    computed: NDArray[np.int64]
    restarts: NDArray[np.int64]

    @property
    def qps(self) -> float:
        """Queries a second, one thread."""
        return float(1 / max(self.seconds.mean(), 1e-12))

    @property
    def summary(self) -> dict[str, Json]:
        """Means, and the percentiles 50, 95 and 99 of the latency in milliseconds."""
        latency = (1e3 * np.percentile(self.seconds, [50, 95, 99])).round(3).tolist()
        return {"recall": round(float(self.recall.mean()), 4), "qps": round(self.qps, 1),
                "distances": round(float(self.computed.mean()), 1), "ef": self.ef, "latency ms": latency,
                "restarts": round(float(self.restarts.mean()), 3)}  # fmt: skip

    def scores(self, what: Literal["recall", "seconds", "computed"], task: str, system: str) -> Scores:
        """One quantity per query, in order."""
        values: NDArray[np.float64] = getattr(self, what).astype(np.float64)
        return Scores.of(task, system, {what: {str(i): float(v) for i, v in enumerate(values)}})


def measure(index: FilteredIndex, queries: FilteredQueries, ef: int) -> Measured:
    """Search every query once on one thread; recall counts answers at most 1e-6 farther than the k-th exact one.

    The denominator is ``min(k, matches)``; a query that nothing matches has recall 1 if nothing is returned.
    """
    q = len(queries.vectors)
    recall, seconds, whole = np.ones(q), np.zeros(q), np.ones(q, bool)
    computed, restarts = np.zeros(q, np.int64), np.zeros(q, np.int64)
    with threadpool_limits(1):  # one thread, so that its CPU time is the time the search takes
        if q:
            index.search(queries.vectors[0], queries.predicates[0], queries.k, ef)  # compile, and warm the caches
        for i, predicate in enumerate(queries.predicates):
            started = time.thread_time()
            found = index.search(queries.vectors[i], predicate, queries.k, ef)
            seconds[i] = time.thread_time() - started
            computed[i], restarts[i] = found.computed, found.restarts
            whole[i] = len(found.ids) == min(queries.k, queries.matches[i])
            if queries.matches[i]:
                distances = 1 - index.vectors[found.ids] @ queries.vectors[i]
                recall[i] = (distances <= queries.kth[i] + TIE).sum() / min(queries.k, queries.matches[i])
            else:
                recall[i] = float(len(found.ids) == 0)
    return Measured(ef, recall, whole, seconds, computed, restarts)


def sweep(
    index: FilteredIndex, queries: FilteredQueries, efs: Iterable[int], *, until: float | None = None
) -> list[Measured]:
    """Measure at rising widths, up to the first whose mean recall is ``until``, or that finds nothing more to do."""
    rows: list[Measured] = []
    for ef in sorted(efs):
        rows.append(measure(index, queries, ef))
        reached = until is not None and rows[-1].recall.mean() >= until
        if reached or (len(rows) > 1 and bool((rows[-1].computed == rows[-2].computed).all())):
            break
    return rows


def at_recall(rows: Sequence[Measured], target: float) -> Measured | None:
    """Return the cheapest of some measurements whose mean recall reaches ``target``; None where none does."""
    good = [row for row in rows if row.recall.mean() >= target]
    return min(good, key=lambda row: float(row.computed.mean())) if good else None


def pareto(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points (recall, queries a second) that no other point beats in both, by rising recall.

    >>> pareto([(0.5, 100), (0.9, 10), (0.6, 5)])
    [(0.5, 100), (0.9, 10)]
    """
    front: list[tuple[float, float]] = []
    for recall, qps in sorted(points, reverse=True):
        if not front or qps > front[-1][1]:
            front.append((recall, qps))
    return front[::-1]


def predicates_of(kind: FilterKind, field: str, records: Sequence[Mapping[str, Json]]) -> list[Predicate]:
    """Turn a benchmark's filter records (`isometry.data.vecs.FilteredSet.filters`) into predicates.

    Raises
    ------
    InputError
        If a record lacks its keys or a range is empty; names the query.
    """
    found: list[Predicate] = []
    for i, record in enumerate(records):
        try:
            if kind == "R":
                found.append(Between(field, record["range_start"], record["range_end"]))
            else:
                found.append((Equals if kind == "EM" else Contains)(field, record["label"]))
        except KeyError as error:
            raise InputError(f"Query {i}: a filter of kind {kind} needs the key {error}.") from error
        except InputError as error:
            raise InputError(f"Query {i}: {error}") from error
    return found


def popularity(attributes: Attributes, field: Field) -> dict[str, int]:
    """Histogram of the selectivity of a label filter drawn from the items themselves, which favours common values.

    Counts (item, label) pairs by decade of the share of items that have the label.
    """
    sizes = np.diff(attributes.labels(field.name).offsets)
    names: Counter[str] = Counter()
    for size in sizes.tolist():
        names[_decade(size / len(attributes))] += size
    return {name: names[name] for name in _DECADES if names[name]}


def draw_predicates(
    attributes: Attributes, kind: FilterKind, field: str, count: int, *, selectivity: float, seed: int = 0
) -> list[Predicate] | None:
    """Draw filters that about ``selectivity`` of all items pass; None where the field has none.

    Ranges hold exactly that many ranks, at a random place. Labels are drawn evenly among the values whose share lies
    within a factor of two.
    """
    rng, n = np.random.default_rng(seed), len(attributes)
    if kind == "R":
        column = attributes.ordered(field)
        width = round(selectivity * n)
        if not 0 < width <= len(column.order):
            return None
        first = rng.integers(0, len(column.order) - width + 1, count)
        bounds = zip(column.order[first], column.order[first + width - 1], strict=True)
        return [Between(field, column.bound(int(low)), column.bound(int(high))) for low, high in bounds]
    labels = attributes.labels(field)
    share = np.diff(labels.offsets) / max(n, 1)
    near = np.flatnonzero((share >= selectivity / WITHIN) & (share <= selectivity * WITHIN))
    if not len(near):
        return None
    make = Equals if kind == "EM" else Contains
    return [make(field, labels.value(int(code))) for code in rng.choice(near, count)]


def correlated_rows(
    centroids: FloatArray,
    home: NDArray[np.int64],
    query: FloatArray,
    selectivity: float,
    how: Correlation,
    *,
    seed: int = 0,
) -> NDArray[np.bool_]:
    """Draw matching rows near a query, far from it, or anywhere: bool ``[n]``, the same number for each.

    Near (far) rows are drawn from the clusters most (least) similar to the query, as many as hold twice the number.

    Parameters
    ----------
    centroids, home
        Clusters float32 ``[c, d]`` and each row's, int64 ``[n]``.
    """
    n, wanted = len(home), max(1, round(selectivity * len(home)))
    pool = np.arange(n)
    if how != "random":
        order = np.argsort(centroids @ query, kind="stable")
        order = order[::-1] if how == "positive" else order
        held = np.cumsum(np.bincount(home, minlength=len(centroids))[order])
        chosen = order[: int(np.searchsorted(held, min(2 * wanted, n))) + 1]
        pool = np.flatnonzero(np.isin(home, chosen))
    mask = np.zeros(n, bool)
    mask[np.random.default_rng(seed).choice(pool, wanted, replace=False)] = True
    return mask


@dataclass(frozen=True, eq=False)
class Built:
    """An index and the wall-clock seconds its build took, or, where these would exceed the budget, the reason."""

    index: FilteredIndex | None
    seconds: float
    reason: str = ""

    @property
    def summary(self) -> Json:
        """Build time, bytes and distance computations; or the reason."""
        if self.index is None:
            return self.reason
        size, distances = self.index.size_bytes, self.index.build_distances
        return {"seconds": round(self.seconds, 2), "bytes": size, "distances": distances}


def build_within(build: Callable[[int], FilteredIndex], n: int, seconds: float, *, pilot: int = 1000) -> Built:
    """Build over the first n rows unless a pilot of fewer foretells that it takes longer than ``seconds``.

    The forecast grows with n log n. What a method refuses (a field without order, too many label sets) is a reason,
    not an error.
    """
    try:
        if n > 2 * pilot:
            build(min(64, pilot))  # compile first: a forecast should not hold that
            started = time.perf_counter()
            build(pilot)
            spent = time.perf_counter() - started
            forecast = spent * n * np.log(n) / (pilot * np.log(pilot))
            if forecast > seconds:
                return Built(None, spent, f"did not finish: about {forecast:.0f} s of {seconds:.0f} s allowed")
        started = time.perf_counter()
        index = build(n)
        return Built(index, time.perf_counter() - started)
    except InputError as error:
        return Built(None, 0.0, f"not applicable: {error}")
