"""Exact nearest neighbours by blocked matrix products, over float32, float16 or int8 storage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from isometry.errors import InputError, UnknownName
from isometry.indexes.folder import Folder, Writer, write_folder
from isometry.indexes.rows import (
    DECODED,
    DType,
    Floats,
    Rows,
    blocks,
    check_search,
    require_comparable,
    require_single,
)
from isometry.indexes.scan import CELLS, ranks, rounding, top
from isometry.indexes.scan import above as scan_above
from isometry.protocols import Mask
from isometry.types import Embeddings, FloatArray, Hits, IntArray, Space, check_vectors, unit

Lookup = Callable[[Sequence[str]], Any]
Ranked = tuple[IntArray, IntArray, FloatArray]

QUERIES: Final = 512  # queries at once: from here on the matrix product runs at full speed
FEW: Final = 16  # up to so many queries the compiled dot products are faster than a matrix product
COMPILED: Final = 1 << 23  # numbers in an index from which loading the compiled products (half a second) is worth it


class Exact:
    """Exact k-nearest-neighbour search (brute force, "flat" index): equals a float64 brute force, ties included.

    Parameters
    ----------
    space
        Space of the vectors; its similarity (cosine, dot or euclidean) ranks. The score is the cosine, the dot
        product, or the negative distance.
    dtype
        How vectors are kept. ``"float16"`` halves the memory (relative error 2^-11 per number). ``"int8"`` quarters
        it: ``round(x / s)`` with ``s = max|x| / 127`` per row, so ``|q . v - q . x| <= |q|_1 s / 2``.
        Search is exact with respect to what is kept.
    source
        ``ids -> [n, d]`` original vectors; the ``oversample * k`` best by what is kept are then ranked by these.
    oversample
        Candidates per answer when there is a ``source``.

    Raises
    ------
    InputError
        If the space compares by another similarity, or an argument is out of range.
    """

    exact: ClassVar[bool] = True

    def __init__(
        self, space: Space, *, dtype: DType = "float32", source: Lookup | None = None, oversample: int = 4
    ) -> None:
        require_comparable(space)
        if oversample < 1:
            raise InputError(f"oversample must be at least 1, got {oversample}.")
        self.space, self.dtype, self.source, self.oversample = space, dtype, source, oversample
        self._rows = Rows(space, dtype)

    @classmethod
    def of(cls, embeddings: Embeddings) -> Self:
        """Index float32 embeddings without copying them (do not change them afterwards)."""
        index = cls(embeddings.space)
        require_single(embeddings)
        if len(set(embeddings.ids.tolist())) == len(embeddings):
            index._rows.adopt(embeddings)
        else:
            index._rows.put(embeddings)
        return index

    @property
    def ids(self) -> NDArray[np.object_]:
        """Ids held, ``[n]``, in the order that ``where`` masks refer to."""
        return self._rows.ids

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, emb: Embeddings) -> None:
        """Add vectors; an id that is there keeps its row and gets the new vector.

        Raises
        ------
        SpaceMismatch
            If the embeddings are of another space.
        DimensionMismatch
            If a number is too large for the dtype.
        """
        self._rows.put(emb)

    def remove(self, ids: Sequence[str]) -> int:
        """Remove ids and return how many were there; the rows behind them move up."""
        rows = self.find(ids)
        if len(rows):
            self._rows.remove(rows)
        return len(rows)

    def find(self, ids: Sequence[str]) -> IntArray:
        """Row numbers of the ids that are there, each once, in the order given."""
        return self._rows.find(ids)

    def vectors(self, ids: Sequence[str]) -> FloatArray:
        """Vectors of ids as kept (unit vectors where directions are compared), float32 ``[n, d]``.

        Raises
        ------
        UnknownName
            If an id is not there.
        """
        position = self._rows.position
        for identity in ids:
            if identity not in position:
                raise UnknownName("id", str(identity))
        found: FloatArray = self._rows.decode(np.asarray([position[i] for i in ids], np.int64))
        return found

    def search(self, queries: Embeddings, k: int, where: Mask | None = None) -> Hits:
        """Return the k nearest of each query among the rows that ``where`` (bool ``[n]``) allows.

        Raises
        ------
        InputError
            If ``k`` is smaller than 1 or ``where`` does not fit.
        SpaceMismatch
            If the queries are of another space.
        """
        allowed, q = self.check_search(queries, k, where), self.prepare(queries)
        n = len(self) if allowed is None else len(allowed)
        k = min(k, n)
        if not n or not len(q):
            return Hits.build(queries.ids, [[]] * len(q))
        depth = k if self.source is None else min(n, k * self.oversample)
        parts = [(part.start, *self._scan(q[part], depth, allowed)) for part in blocks(len(q), QUERIES)]
        query = np.concatenate([start + query for start, query, _, _ in parts])
        row, score = np.concatenate([p[2] for p in parts]), np.concatenate([p[3] for p in parts])
        if self.source is not None:
            query, row, score = self.settle(q, query, row, k, source=self.source)
        return self.hits(queries.ids, query, row, score)

    def check_search(self, queries: Embeddings, k: int, where: Mask | None) -> IntArray | None:
        """Check the arguments of a search and return the rows allowed, None for all."""
        mask = check_search(self.space, len(self), queries, k, where)
        return None if mask is None else np.flatnonzero(mask)

    def prepare(self, queries: Embeddings) -> NDArray[np.float64]:
        """Query vectors in double precision, as directions where the space compares those."""
        q = queries.vectors.astype(np.float64)
        return unit(q) if self._rows.directions else q

    def _scan(self, q: NDArray[np.float64], k: int, allowed: IntArray | None) -> Ranked:
        """The k best of each query by what is kept: sorted (query, row, score)."""
        codes, scale, norm = self._rows.codes, self._rows.scale, self._rows.norm
        reach = float(norm.max())
        work = np.float32 if reach * (reach + np.abs(q).max()) < 1e30 else np.float64  # beyond, products overflow
        right: Floats = np.ascontiguousarray(q.T, dtype=work)
        euclidean = self.space.similarity == "euclidean"
        product, in_place = _product(codes, len(self) * self.space.dim, right)

        def score(part: slice) -> Floats:
            rows: Any = part if allowed is None else allowed[part]
            scores = product(rows)
            if self._rows.scaled:
                scores *= scale[rows, None].astype(work)
            if euclidean:  # ranks as the distance does: |q - v|^2 = |q|^2 - 2 (q . v - |v|^2 / 2)
                scores -= (norm[rows, None] ** 2 / 2).astype(work)
            return scores

        def settle(query: IntArray, place: IntArray) -> Ranked:
            if allowed is None:
                return self.settle(q, query, place, k)
            query, row, best = self.settle(q, query, allowed[place], k)
            return query, np.searchsorted(allowed, row), best

        n = len(self) if allowed is None else len(allowed)
        block = min(CELLS // len(q), CELLS if in_place and allowed is None else DECODED // self.space.dim)
        find = _finder(work, len(self) * self.space.dim)
        query, place, best = top(score, n, k, rounding(self.space.dim, reach, q), settle, max(1, block), find)
        return query, place if allowed is None else allowed[place], best

    def settle(
        self, q: NDArray[np.float64], query: IntArray, row: IntArray, k: int, *, source: Lookup | None = None
    ) -> Ranked:
        """Score pairs (query, row) in double precision and keep each query's k best, sorted; ties by id.

        Parameters
        ----------
        q
            float64 ``[q, d]`` from `prepare`.
        query, row
            int64 ``[c]``.
        source
            Where the vectors come from, when not from this index.
        """
        unique, place = np.unique(row, return_inverse=True)
        originals = None if source is None else self._originals(source(self.ids[unique].tolist()), len(unique))
        score = np.empty(len(row), np.float64)
        for part in blocks(len(row), DECODED // self.space.dim):
            v = self._rows.decode(row[part], np.float64) if originals is None else originals[place[part]]
            if self.space.similarity == "euclidean":
                v = q[query[part]] - v
                score[part] = -np.sqrt(np.einsum("nd,nd->n", v, v))
            else:
                score[part] = np.einsum("nd,nd->n", q[query[part]], v)
        with np.errstate(over="ignore"):
            return self.ranked(query, row, score.astype(np.float32), k)

    def ranked(self, query: IntArray, row: IntArray, score: FloatArray, k: int) -> Ranked:
        """Keep each query's k best of scored pairs, sorted by query, falling score, rising id."""
        unique, place = np.unique(row, return_inverse=True)
        by_id = np.empty(len(unique), np.int64)
        by_id[np.argsort(self.ids[unique], kind="stable")] = np.arange(len(unique))
        order = np.lexsort((by_id[place], -score, query))
        order = order[ranks(query[order]) < k]
        return query[order], row[order], score[order]

    def _originals(self, values: Any, n: int) -> NDArray[np.float64]:
        x = check_vectors(values, dim=self.space.dim, what="source vectors").astype(np.float64)
        if len(x) != n:
            raise InputError(f"source must return one vector per id, got {len(x)} for {n} ids.")
        return unit(x) if self._rows.directions else x

    def hits(self, query_ids: NDArray[np.object_], query: IntArray, row: IntArray, score: FloatArray) -> Hits:
        """Hits of sorted (query, row, score)."""
        offsets = np.searchsorted(query, np.arange(len(query_ids) + 1)).astype(np.int64)
        return Hits(query_ids, offsets, self.ids[row], score)

    def files(self) -> dict[str, Writer]:
        """Writers of the files that hold this index."""
        return self._rows.files()

    def save(self, path: str | Path) -> None:
        """Write to a folder, whole or not at all; a ``source`` is not saved."""
        write_folder(path, "exact", {"space": self.space.to_json(), "dtype": self.dtype}, self.files())

    @classmethod
    def load(cls, path: str | Path, *, mmap: bool = False, source: Lookup | None = None, oversample: int = 4) -> Self:
        """Read what `save` wrote; with ``mmap`` the vectors stay on disk until they are needed.

        Raises
        ------
        StoreError
            If there is no such index; `CorruptStore` if a checksum does not fit.
        """
        folder = Folder.open(path, "exact")
        space = Space.from_json(folder.facts["space"])
        index = cls(space, dtype=folder.facts["dtype"], source=source, oversample=oversample)
        index.restore(folder, mmap=mmap)
        return index

    def restore(self, folder: Folder, *, mmap: bool) -> None:
        """Take over the vectors and ids of an opened folder."""
        self._rows.restore(folder, mmap=mmap)


def _blocked(codes: NDArray[Any], right: Floats) -> Callable[[Any], Floats]:
    """Matrix products of rows with queries ``[d, q]``, each written over the one before: fresh memory costs a tenth."""
    out: list[Floats] = []

    def product(rows: Any) -> Floats:
        left = codes[rows].astype(right.dtype, copy=False)
        if not out or len(out[0]) < len(left):
            out[:] = [np.empty((len(left), right.shape[1]), right.dtype)]
        return np.matmul(left, right, out=out[0][: len(left)])

    return product


def _finder(work: Any, size: int) -> Callable[[Floats, Floats], tuple[IntArray, IntArray]]:
    """How to find the scores that reach a bar: compiled where the index is large enough to load that for."""
    if work is not np.float32 or size < COMPILED:
        return scan_above
    from isometry.indexes.kernels import above

    return above


def _product(codes: NDArray[Any], size: int, right: Floats) -> tuple[Callable[[Any], Floats], bool]:
    """How to multiply rows (a slice or positions) with queries ``[d, q]``, and whether a slice is read in place."""
    halves, in_place = codes.dtype == np.float16, codes.dtype == right.dtype
    if size < COMPILED or right.dtype != np.float32 or (right.shape[1] > FEW and not halves):
        return _blocked(codes, right), in_place
    from isometry.indexes.kernels import dots, widen

    if halves:
        return (lambda rows: widen(codes, rows) @ right), False
    queries = np.ascontiguousarray(right.T)
    return (lambda rows: dots(codes, rows, queries)), True
