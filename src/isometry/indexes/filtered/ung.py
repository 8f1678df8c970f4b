"""UNG, the unified navigating graph: one graph per label set, joined along set inclusion.

Cai et al., Navigating Labels and Vectors: A Unified Approach to Filtered Approximate Nearest Neighbor Search,
SIGMOD 2024.
"""

from __future__ import annotations

from typing import Self

import numpy as np

from isometry.errors import InputError
from isometry.indexes.filtered.attributes import Attributes
from isometry.indexes.filtered.beam import Links, Matching, best_first
from isometry.indexes.filtered.filtered_index import FilteredIndex, Found, Mask
from isometry.indexes.filtered.predicates import And, Contains, Equals, Predicate
from isometry.indexes.filtered.vamana import Pruning, one_start_graph
from isometry.types import FloatArray, IntArray

MOST_SETS = 20_000  # distinct label sets; inclusion among them is looked up pairwise


class LabelSets:
    """Distinct label sets and the inclusion between them (the label navigating graph).

    >>> sets = LabelSets([(0,), (0, 1), (0, 1, 2), (0, 2)])
    >>> sets.minimal_supersets((0,)), sets.minimal_supersets((0,), proper=True)
    ([0], [1, 3])
    """

    def __init__(self, sets: list[tuple[int, ...]]) -> None:
        self.sets = [frozenset(codes) for codes in sets]
        self._holding: dict[int, set[int]] = {}
        for number, codes in enumerate(sets):
            for code in codes:
                self._holding.setdefault(code, set()).add(number)

    def minimal_supersets(self, codes: tuple[int, ...], *, proper: bool = False) -> list[int]:
        """Numbers of the supersets that hold no other superset; ``proper`` leaves out the set itself."""
        wanted = frozenset(codes)
        inverted = sorted((self._holding.get(code, set()) for code in wanted), key=len)
        above = set.intersection(*inverted) if inverted else set(range(len(self.sets)))
        minimal: list[int] = []
        for number in sorted(above, key=lambda i: (len(self.sets[i]), i)):
            candidate = self.sets[number]
            if proper and candidate == wanted:
                continue
            if not any(self.sets[i] <= candidate for i in minimal):
                minimal.append(number)
        return sorted(minimal)


class UNG(FilteredIndex):
    """UNG: items of one label set form a Vamana graph; edges lead from a set to its minimal supersets.

    A search starts in the minimal supersets of the labels asked for, so that whatever it reaches has them all: one
    label (exact match in set) or several (label subset).

    Edges lead from sets to supersets only: where labels form a hierarchy, groups of one parent meet nowhere but above,
    and a walk that must cross from one to the other needs a wide beam.

    Differs from the paper: the nearest neighbours in the superset groups are found exactly, by matrix product.
    """

    def __init__(self, vectors: FloatArray, attributes: Attributes, field: str) -> None:
        super().__init__(vectors, attributes)
        self.field, self.labels = field, attributes.labels(field)
        members: dict[tuple[int, ...], list[int]] = {}
        for row, codes in enumerate(self.labels.sets()):
            if codes:
                members.setdefault(codes, []).append(row)
        if len(members) > MOST_SETS:
            raise InputError(f"{field!r} has {len(members)} distinct label sets; UNG takes {MOST_SETS} at most.")
        self.groups = [np.array(rows, np.int64) for rows in members.values()]
        self.inclusion = LabelSets(list(members))
        self.starts = np.empty(len(self.groups), np.int32)
        self.links: Links = np.empty((0, 0), np.int32)
        self.counts: Links = np.empty(0, np.int32)

    @classmethod
    def build(
        cls,
        vectors: FloatArray,
        attributes: Attributes,
        field: str,
        *,
        degree: int = 32,
        width: int = 100,
        alpha: float = 1.2,
        cross: int = 6,
        seed: int = 0,
    ) -> Self:
        """Build over the label sets of ``field``, with ``cross`` edges from each item to its minimal supersets.

        Raises
        ------
        InputError
            If there are more than 20,000 distinct label sets, or ``cross`` is not positive.
        """
        if cross < 1:
            raise InputError(f"UNG needs at least one edge between groups, got cross={cross}.")
        index = cls(vectors, attributes, field)
        pruning = Pruning(degree, width, alpha)
        neighbours: list[set[int]] = [set() for _ in index.vectors]
        for number, rows in enumerate(index.groups):
            links, counts, start, computed = one_start_graph(index.vectors[rows], pruning, seed=seed)
            index.starts[number] = rows[start]
            index.build_distances += computed
            for row, mine, count in zip(rows.tolist(), links, counts, strict=True):
                neighbours[row].update(rows[mine[:count]].tolist())
            index._join(number, cross, neighbours)
        index.counts = np.array([len(mine) for mine in neighbours], np.int32)
        index.links = np.full((len(neighbours), max(1, int(index.counts.max(initial=0)))), -1, np.int32)
        for row, targets in enumerate(neighbours):
            index.links[row, : len(targets)] = sorted(targets)
        return index

    def _join(self, number: int, cross: int, neighbours: list[set[int]]) -> None:
        """Link a group's items to their nearest in its minimal supersets, and at least ``cross`` times to each."""
        above = self.inclusion.minimal_supersets(tuple(self.inclusion.sets[number]), proper=True)
        if not above:
            return
        rows, beyond = self.groups[number], np.concatenate([self.groups[i] for i in above])
        owner = np.repeat(np.arange(len(above)), [len(self.groups[i]) for i in above])
        near = self.vectors[rows] @ self.vectors[beyond].T
        self.build_distances += near.size
        take = min(cross, len(beyond))
        best = np.argpartition(-near, take - 1, axis=1)[:, :take]
        reached = np.bincount(owner[best.ravel()], minlength=len(above))
        for row, targets in zip(rows.tolist(), beyond[best].tolist(), strict=True):
            neighbours[row].update(targets)
        for child in np.flatnonzero(reached < cross):
            columns = np.flatnonzero(owner == child)
            part = near[:, columns].ravel()
            for pair in np.argsort(-part, kind="stable")[:cross]:
                row, column = divmod(int(pair), len(columns))
                neighbours[int(rows[row])].add(int(beyond[columns[column]]))

    @property
    def size_bytes(self) -> int:
        """Links that are there, 4 bytes each, their counts, and the starts."""
        return 4 * int(self.counts.sum()) + self.counts.nbytes + self.starts.nbytes

    def _asked(self, predicate: Predicate) -> list[int | None] | None:
        if isinstance(predicate, Equals | Contains):
            return [self.labels.code(predicate.value)] if predicate.field == self.field else None
        if isinstance(predicate, And):
            found = [self._asked(part) for part in predicate.parts]
            return None if any(codes is None for codes in found) else [c for codes in found if codes for c in codes]
        return None

    def supports(self, predicate: Predicate) -> bool:
        """One label of the field, or all of several."""
        return self._asked(predicate) is not None

    def entries(self, predicate: Predicate) -> IntArray:
        """Rows where a search for these labels starts: one for each minimal superset."""
        codes = [code for code in self._asked(predicate) or () if code is not None]
        return self.starts[self.inclusion.minimal_supersets(tuple(codes))].astype(np.int64)

    def _walk(self, query: FloatArray, predicate: Predicate, mask: Mask, k: int, ef: int) -> Found:
        starts = self.entries(predicate).astype(np.int32)
        ids, distances, computed, _, _ = best_first(
            self.vectors, Matching(self.links, self.counts), query, starts, mask, ef, False
        )
        return Found(ids[:k].astype(np.int64), distances[:k], int(computed))
