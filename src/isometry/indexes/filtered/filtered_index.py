"""What every method of filtered search shares: the question, the answer, and that the answer is never cut short."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isometry.errors import DimensionMismatch, InputError
from isometry.indexes.filtered.attributes import Attributes
from isometry.indexes.filtered.predicates import Predicate
from isometry.types import FloatArray, IntArray, check_vectors, unit

Mask = NDArray[np.bool_]


class Found(NamedTuple):
    """An answer: rows ``ids`` int64 and cosine ``distances`` float32, nearest first, and what it took.

    ``computed`` counts distance computations over all ``restarts``.
    """

    ids: IntArray
    distances: FloatArray
    computed: int
    restarts: int = 0


class FilteredIndex(ABC):
    """Unit vectors with attributes, searched under a predicate by cosine distance.

    Parameters
    ----------
    vectors
        float32 ``[n, d]``, normalised here.
    attributes
        Of the same n items.

    Raises
    ------
    InputError
        If there are more or fewer attributes than vectors.
    """

    exact: ClassVar[bool] = False
    widen: ClassVar[int] = 4  # factor by which a search that found too little is repeated
    once = False  # whether to return what one search found, however little

    def __init__(self, vectors: FloatArray, attributes: Attributes) -> None:
        x = check_vectors(vectors)
        if len(x) != len(attributes):
            raise InputError(f"{len(x)} vectors need as many attribute records, got {len(attributes)}.")
        self.vectors = unit(x)
        self.attributes = attributes
        self.build_distances = 0

    def supports(self, predicate: Predicate) -> bool:
        """Whether the method can answer this predicate at all."""
        return True

    @property
    def size_bytes(self) -> int:
        """Bytes of the structure beside the vectors and attributes."""
        return 0

    @abstractmethod
    def _walk(self, query: FloatArray, predicate: Predicate, mask: Mask, k: int, ef: int) -> Found:
        """Search once; every id returned lies in ``mask``."""

    def search(self, query: FloatArray, predicate: Predicate, k: int, ef: int = 100) -> Found:
        """Return the k nearest matching items, or all where fewer match.

        A search that dies among items that do not match is repeated four times as wide, at last exactly: an answer is
        never shorter than it could be, and never padded.

        Parameters
        ----------
        query
            float32 ``[d]``, normalised here.
        predicate
            What an item must satisfy.
        k
            How many, at least 1.
        ef
            Width of the search; raised to k where smaller.

        Raises
        ------
        InputError
            If the method cannot answer this kind of predicate (`supports`), or k is not positive.
        DimensionMismatch
            If the query has another width.
        """
        q, mask = self._question(query, predicate, k)
        wanted, most = min(k, int(np.count_nonzero(mask))), self._widest()
        computed, restarts, ef = 0, 0, min(self._width(predicate, k, ef), most)
        while wanted:
            found = self._walk(q, predicate, mask, k, ef)
            computed += found.computed
            if self.once or len(found.ids) >= wanted:
                assert mask[found.ids].all(), f"{type(self).__name__} returned an item that does not match."
                return found._replace(computed=computed, restarts=restarts)
            restarts += 1
            if ef >= most:
                found = scan(self.vectors, q, np.flatnonzero(mask), k)
                return found._replace(computed=computed + found.computed, restarts=restarts)
            ef = min(self.widen * ef, most)
        return Found(np.empty(0, np.int64), np.empty(0, np.float32), 0)

    def _width(self, predicate: Predicate, k: int, ef: int) -> int:
        """Width of the first search."""
        return max(ef, k)

    def _widest(self) -> int:
        """Width beyond which a search cannot find more."""
        return len(self.vectors)

    def _question(self, query: FloatArray, predicate: Predicate, k: int) -> tuple[FloatArray, Mask]:
        if k < 1:
            raise InputError(f"k must be at least 1, got {k}.")
        q = np.asarray(query, np.float32)
        if q.shape != self.vectors.shape[1:]:
            raise DimensionMismatch(f"The query must be [{self.vectors.shape[1]}], got {list(q.shape)}.")
        if not self.supports(predicate):
            raise InputError(f"{type(self).__name__} cannot answer {predicate!r}; ask `supports` before.")
        q = check_vectors(q[None], what="the query")
        return unit(q)[0], self.attributes.mask(predicate)


def scan(x: FloatArray, q: FloatArray, rows: IntArray, k: int) -> Found:
    """Exact search among some rows: gather, multiply, keep the k nearest (ties by row)."""
    distances, computed = 1 - (x[rows] @ q if len(rows) < len(x) else x @ q), len(rows)
    if k < len(rows):
        kth = np.partition(distances, k - 1)[k - 1]
        rows, distances = rows[distances <= kth], distances[distances <= kth]
    order = np.argsort(distances, kind="stable")[:k]
    return Found(rows[order], distances[order].astype(np.float32), computed)
