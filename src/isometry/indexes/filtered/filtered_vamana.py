"""Filtered-DiskANN: two Vamana graphs that know labels, so that the nodes of each label are well connected.

Gollapudi et al., Filtered-DiskANN: Graph Algorithms for Approximate Nearest Neighbor Search with Filters, WWW 2023.
"""

# mypy: allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable
from typing import Self

import numpy as np
from numba import njit

from isometry.indexes.filtered.attributes import Attributes
from isometry.indexes.filtered.beam import Links, Matching, best_first
from isometry.indexes.filtered.filtered_index import FilteredIndex, Found, Mask
from isometry.indexes.filtered.predicates import Contains, Equals, Or, Predicate
from isometry.indexes.filtered.vamana import Bits, Pruning, link_all, medoid, one_start_graph, robust_prune, roomy
from isometry.indexes.hnsw_graph import _distance
from isometry.types import FloatArray, IntArray


def asked_labels(predicate: Predicate, field: str) -> list[Hashable] | None:
    """Labels of ``field`` of which an item must have one; None if the predicate asks for anything else.

    >>> asked_labels(Contains("tags", "a") | Contains("tags", "b"), "tags")
    ['a', 'b']
    """
    if isinstance(predicate, Equals | Contains):
        return [predicate.value] if predicate.field == field else None
    if isinstance(predicate, Or):
        found = [asked_labels(part, field) for part in predicate.parts]
        return None if any(labels is None for labels in found) else [v for labels in found if labels for v in labels]
    return None


class _LabelGraph(FilteredIndex):
    """A graph over the labels of one field, with a start for each."""

    def __init__(self, vectors: FloatArray, attributes: Attributes, field: str) -> None:
        super().__init__(vectors, attributes)
        self.field, self.labels = field, attributes.labels(field)
        column = self.labels
        postings = [column.rows[a:b] for a, b in zip(column.offsets[:-1], column.offsets[1:], strict=True)]
        self.starts = np.array([medoid(self.vectors, rows) for rows in postings], np.int32)
        self._postings = postings
        self.links: Links = np.empty((0, 0), np.int32)
        self.counts: Links = np.empty(0, np.int32)

    @property
    def size_bytes(self) -> int:
        """Links that are there, 4 bytes each, their counts, and the starts."""
        return 4 * int(self.counts.sum()) + self.counts.nbytes + self.starts.nbytes

    def supports(self, predicate: Predicate) -> bool:
        """One label of the field, or any of several."""
        return asked_labels(predicate, self.field) is not None

    @abstractmethod
    def _build(self, pruning: Pruning, seed: int) -> None:
        """Fill ``links`` and ``counts``."""

    def _walk(self, query: FloatArray, predicate: Predicate, mask: Mask, k: int, ef: int) -> Found:
        # One walk a label: two labels may be connected nowhere, and the nearer one would end the other's walk.
        found = [self._of_label(query, value, k, ef) for value in asked_labels(predicate, self.field) or ()]
        ids = np.concatenate([part.ids for part in found])
        ids, first = np.unique(ids, return_index=True)
        distances = np.concatenate([part.distances for part in found])[first]
        order = np.argsort(distances, kind="stable")[:k]
        return Found(ids[order], distances[order], sum(part.computed for part in found))

    def _of_label(self, query: FloatArray, value: Hashable, k: int, ef: int) -> Found:
        code = self.labels.code(value)
        starts = np.array([] if code is None else [self.starts[code]], np.int32)
        graph, mask = Matching(self.links, self.counts), self.labels.equal(value)
        ids, distances, computed, _, _ = best_first(self.vectors, graph, query, starts, mask, ef, False)
        return Found(ids[:k].astype(np.int64), distances[:k], int(computed))


class FilteredVamana(_LabelGraph):
    """FilteredVamana: points enter one by one, see only points that share a label, and keep edges labels need.

    The start of a label is the point nearest to its mean. With one label on every point this is Vamana.

    Differs from the paper: starts are chosen by nearness to the mean, not by spreading load over a random sample.
    """

    @classmethod
    def build(
        cls,
        vectors: FloatArray,
        attributes: Attributes,
        field: str,
        *,
        degree: int = 64,
        width: int = 100,
        alpha: float = 1.2,
        seed: int = 0,
    ) -> Self:
        """Build over the labels of ``field``, categorical or set-valued; points without one stay outside."""
        index = cls(vectors, attributes, field)
        index._build(Pruning(degree, width, alpha), seed)
        return index

    def _build(self, pruning: Pruning, seed: int) -> None:
        n, sets = len(self.vectors), self.labels.sets()
        links, self.counts = roomy(n, pruning.degree)
        offsets = np.concatenate([[0], np.cumsum([len(codes) for codes in sets])]).astype(np.int64)
        starts = self.starts[np.array([code for codes in sets for code in codes], np.int64)]
        order = np.random.default_rng(seed).permutation(n)
        order = order[np.diff(offsets)[order] > 0]
        square = np.float32(pruning.alpha**2)
        self.build_distances = int(
            link_all(self.vectors, self.labels.bits, order, offsets, starts, pruning.width, square, pruning.degree,
                     links, self.counts)
        )  # fmt: skip
        self.links = np.ascontiguousarray(links[:, : pruning.degree])


@njit(cache=True)
def _prune_all(x, bits, offsets, targets, square, links, counts):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    total = 0
    for i in range(x.shape[0]):
        node = targets[offsets[i] : offsets[i + 1]]
        dist = np.empty(len(node), np.float32)
        for j in range(len(node)):
            dist[j] = _distance(x[i], x[node[j]])
        kept, computed = robust_prune(x, bits, i, node, dist, square, links.shape[1], links[i])
        counts[i] = kept
        total += computed + len(node)
    return total


class StitchedVamana(_LabelGraph):
    """StitchedVamana: a small Vamana graph per label, their union, and the filtered pruning rule to bound degrees."""

    @classmethod
    def build(
        cls,
        vectors: FloatArray,
        attributes: Attributes,
        field: str,
        *,
        degree: int = 64,
        small: int = 24,
        width: int = 64,
        alpha: float = 1.2,
        seed: int = 0,
    ) -> Self:
        """Build graphs of ``small`` links a node per label of ``field``, and stitch them to ``degree``."""
        index = cls(vectors, attributes, field)
        index.links = np.full((len(index.vectors), degree), -1, np.int32)
        index._build(Pruning(small, width, alpha), seed)
        return index

    def _build(self, pruning: Pruning, seed: int) -> None:
        n, edges = len(self.vectors), []
        self.counts = np.zeros(n, np.int32)
        for rows in self._postings:
            links, counts, _, computed = one_start_graph(self.vectors[rows], pruning, seed=seed)
            there = np.arange(links.shape[1]) < counts[:, None]
            edges.append(np.repeat(rows, counts) * n + rows[links[there]])
            self.build_distances += computed
        pairs: IntArray = np.unique(np.concatenate(edges)) if edges else np.empty(0, np.int64)
        offsets = np.searchsorted(pairs, np.arange(n + 1) * n)
        bits: Bits = self.labels.bits
        square = np.float32(pruning.alpha**2)
        targets = (pairs % max(n, 1)).astype(np.int32)
        self.build_distances += int(_prune_all(self.vectors, bits, offsets, targets, square, self.links, self.counts))
