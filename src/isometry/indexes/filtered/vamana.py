"""Vamana, the graph of DiskANN, and its filtered pruning rule.

Subramanya et al., DiskANN, NeurIPS 2019; Gollapudi et al., Filtered-DiskANN, WWW 2023.
"""

# ruff: noqa: ANN001, ANN201, ANN202, SIM110
# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators
# (numba infers the types of its kernels)

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numba import njit
from numpy.typing import NDArray

from isometry.errors import InputError
from isometry.indexes.filtered.attributes import Attributes
from isometry.indexes.filtered.beam import Everyone, Links, Matching, best_first
from isometry.indexes.filtered.filtered_index import FilteredIndex, Found, Mask
from isometry.indexes.filtered.predicates import Predicate
from isometry.indexes.hnsw_graph import _distance
from isometry.types import FloatArray

Bits = NDArray[np.uint64]
SLACK: Final = 1.3  # lists may outgrow their bound by this factor while building, so that they are pruned less often


@dataclass(frozen=True)
class Pruning:
    """How Vamana builds: at most ``degree`` links (R), searches of width ``width`` (L), slack ``alpha``.

    ``alpha`` compares Euclidean distances, as in the papers; on cosine distances its square does the same.

    Raises
    ------
    InputError
        If a value is out of range.
    """

    degree: int = 32
    width: int = 100
    alpha: float = 1.2

    def __post_init__(self) -> None:
        if self.degree < 1 or self.width < 1 or self.alpha < 1:
            raise InputError(f"Vamana needs degree >= 1, width >= 1 and alpha >= 1, got {self}.")


@njit(cache=True)
def _shares(a, b):
    for w in range(a.shape[0]):
        if a[w] & b[w]:
            return True
    return False


@njit(cache=True)
def _covers(a, b, c):
    """Whether c has every label that a and b share."""
    for w in range(a.shape[0]):
        if a[w] & b[w] & ~c[w]:
            return False
    return True


@njit(cache=True)
def robust_prune(x, bits, p, node, dist, square, most, out):
    """RobustPrune, filtered: write p's neighbours into ``out``; return how many, and the distances taken.

    A candidate is dropped for a nearer neighbour c that is ``alpha`` times nearer to it than p is, provided that c has
    every label that p and the candidate share.
    """
    kept, computed = 0, 0
    for i in np.argsort(dist):
        candidate = node[i]
        good = candidate != p
        for j in range(kept):
            if not good:
                break
            if candidate == out[j]:
                good = False
            elif _covers(bits[p], bits[candidate], bits[out[j]]):
                computed += 1
                good = square * _distance(x[candidate], x[out[j]]) > dist[i]
        if good:
            out[kept] = candidate
            kept += 1
            if kept == most:
                break
    return kept, computed


@njit(cache=True)
def _shrink(x, bits, a, square, degree, links, counts, out):
    """Prune a list to ``degree``."""
    size = counts[a]
    node, dist = links[a, :size].copy(), np.empty(size, np.float32)
    for j in range(size):
        dist[j] = _distance(x[a], x[node[j]])
    kept, computed = robust_prune(x, bits, a, node, dist, square, degree, out)
    links[a, :kept], counts[a] = out[:kept], kept
    return computed + size


@njit(cache=True)
def _relink(x, bits, a, b, square, degree, links, counts, out):
    """Add the link a -> b; a list that is full is pruned."""
    for j in range(counts[a]):
        if links[a, j] == b:
            return 0
    links[a, counts[a]] = b
    counts[a] += 1
    return _shrink(x, bits, a, square, degree, links, counts, out) if counts[a] == links.shape[1] else 0


@njit(cache=True)
def link_all(x, bits, order, offsets, starts, width, square, degree, links, counts):
    """One pass over all points: search each from its starts, prune what was passed to its neighbours, link both ways.

    ``starts[offsets[i]:offsets[i + 1]]`` are point i's; its search sees only points that share a label with it. Lists
    may outgrow ``degree`` on the way (see `roomy`); in the end none is longer.
    """
    n, total = x.shape[0], 0
    visible = np.empty(n, np.bool_)
    out, spare = np.empty(links.shape[1], np.int32), np.empty(links.shape[1], np.int32)
    for i in order:
        for j in range(n):
            visible[j] = _shares(bits[i], bits[j])
        graph, own = Matching(links, counts), starts[offsets[i] : offsets[i + 1]]
        _, _, computed, trail, trail_d = best_first(x, graph, x[i], own, visible, width, False)
        old = counts[i]
        node, dist = np.empty(len(trail) + old, np.int32), np.empty(len(trail) + old, np.float32)
        node[: len(trail)], dist[: len(trail)] = trail, trail_d
        for j in range(old):
            node[len(trail) + j] = links[i, j]
            dist[len(trail) + j] = _distance(x[i], x[links[i, j]])
        kept, more = robust_prune(x, bits, i, node, dist, square, degree, out)
        links[i, :kept], counts[i] = out[:kept], kept
        total += computed + more + old
        for j in range(kept):
            total += _relink(x, bits, out[j], i, square, degree, links, counts, spare)
    for i in order:
        if counts[i] > degree:
            total += _shrink(x, bits, i, square, degree, links, counts, out)
    return total


def roomy(n: int, degree: int) -> tuple[Links, Links]:
    """Empty lists with room to outgrow ``degree``: links int32 ``[n, room]`` of -1, counts ``[n]`` of 0."""
    return np.full((n, int(SLACK * degree) + 2), -1, np.int32), np.zeros(n, np.int32)


def medoid(x: FloatArray, rows: NDArray[np.int64]) -> int:
    """The row nearest to the mean of some rows."""
    members = x[rows]
    return int(rows[np.argmax(members @ members.mean(0))])


def one_start_graph(
    x: FloatArray, pruning: Pruning, *, seed: int = 0, random_start: bool = True
) -> tuple[Links, Links, int, int]:
    """Build a Vamana graph of unit vectors: links int32 ``[n, degree]``, counts ``[n]``, medoid, distances taken.

    With ``random_start`` the graph begins random and is passed over twice, with ``alpha`` 1 and then its own
    (DiskANN, algorithm 3); without, it begins empty and is passed over once (as Filtered-DiskANN builds).
    """
    n, rng = len(x), np.random.default_rng(seed)
    links, counts = roomy(n, pruning.degree)
    if not n:
        return links, counts, 0, 0
    start, bits = medoid(x, np.arange(n)), np.ones((n, 1), np.uint64)
    degree = min(pruning.degree, n - 1)
    if random_start and degree:
        others = rng.integers(0, n - 1, (n, degree))
        links[:, :degree], counts[:] = others + (others >= np.arange(n)[:, None]), degree
    offsets, starts = np.arange(n + 1, dtype=np.int64), np.full(n, start, np.int32)
    total = 0
    for alpha in (1.0, pruning.alpha) if random_start else (pruning.alpha,):
        order = rng.permutation(n)
        square = np.float32(alpha**2)
        total += link_all(x, bits, order, offsets, starts, pruning.width, square, pruning.degree, links, counts)
    return np.ascontiguousarray(links[:, : pruning.degree]), counts, start, int(total)


class Vamana(FilteredIndex):
    """Vamana with inline filtering: labels play no part in the graph, only matching nodes count as results."""

    def __init__(self, vectors: FloatArray, attributes: Attributes) -> None:
        super().__init__(vectors, attributes)
        self.start = 0
        self.links: Links = np.empty((0, 0), np.int32)
        self.counts: Links = np.empty(0, np.int32)

    @classmethod
    def build(
        cls,
        vectors: FloatArray,
        attributes: Attributes,
        *,
        degree: int = 32,
        width: int = 100,
        alpha: float = 1.2,
        random_start: bool = True,
        seed: int = 0,
    ) -> Self:
        """Build from ``vectors`` ``[n, d]``; see `Pruning` and `one_start_graph`."""
        index = cls(vectors, attributes)
        index.links, index.counts, index.start, index.build_distances = one_start_graph(
            index.vectors, Pruning(degree, width, alpha), seed=seed, random_start=random_start
        )
        return index

    @property
    def size_bytes(self) -> int:
        """Links that are there, 4 bytes each, and their counts."""
        return 4 * int(self.counts.sum()) + self.counts.nbytes

    def _walk(self, query: FloatArray, predicate: Predicate, mask: Mask, k: int, ef: int) -> Found:
        start = np.array([self.start], np.int32)
        ids, distances, computed, _, _ = best_first(
            self.vectors, Everyone(self.links, self.counts), query, start, mask, ef, False
        )
        return Found(ids[:k].astype(np.int64), distances[:k], int(computed))
