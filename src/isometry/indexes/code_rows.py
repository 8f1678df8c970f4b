"""Rows kept as nested codes: ids, planes, and queries brought into their space."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from isometry.codes.rotated import Planes, RotatedCode, unpack_nibbles
from isometry.indexes.code_kernels import Asked, Coded, quantise_queries, rerank
from isometry.indexes.folder import Folder, Writer, array, text
from isometry.indexes.rows import blocks, check_search, find_rows, require_comparable, require_single
from isometry.protocols import Mask
from isometry.types import Embeddings, FloatArray, Hits, IntArray, Space, check_reach, id_array, unit

CENTRE_FROM: Final = 256  # rows in a first `add` from which their mean is worth subtracting
ENCODED: Final = 1 << 15  # rows encoded at once
Fill = Callable[[Asked, "Mask | None", int, int, "Results"], None]
Results = tuple[IntArray, FloatArray, IntArray]  # rows and scores [q, k], and how many of each query are filled


class CodeRows:
    """A table of coded vectors that rows can be added to and removed from.

    The rotation and the mean are those of the first rows added: later rows may lie elsewhere, their codes are then
    less sharp and still unbiased.
    """

    def __init__(self, space: Space, *, seed: int, signs: bool) -> None:
        require_comparable(space)
        self.space, self.seed, self.signs = space, seed, signs
        self.directions = space.similarity == "cosine" and not space.normalized
        self.code: RotatedCode | None = None
        self.planes = _none(space.dim)
        self.ids: NDArray[np.object_] = id_array([])
        self.position: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def find(self, ids: Sequence[str]) -> IntArray:
        """Row numbers of the ids that are there, each once, in the order given."""
        return find_rows(self.position, ids)

    def put(self, emb: Embeddings) -> IntArray:
        """Write the last vector of each id, over its row where it is known, else behind the others; return the rows."""
        last = {identity: i for i, identity in enumerate(emb.ids.tolist())}
        if not last:
            return np.empty(0, np.int64)
        vectors = check_reach(self.shaped(emb.vectors[np.fromiter(last.values(), np.int64, len(last))]))
        if self.code is None:
            self.code = RotatedCode(8, seed=self.seed, centre=len(last) >= CENTRE_FROM).fit(vectors)
        parts = [self.code.planes(vectors[part]) for part in blocks(len(last), ENCODED)]
        planes: list[NDArray[Any]] = [np.concatenate(plane) for plane in zip(*parts, strict=True)]
        new = np.asarray([identity not in self.position for identity in last])
        ids = id_array(last)
        rows = np.empty(len(last), np.int64)
        rows[new] = len(self) + np.arange(new.sum())
        rows[~new] = [self.position[identity] for identity in ids[~new].tolist()]
        held: list[NDArray[Any]] = list(self.planes)
        for old, plane in zip(held, planes, strict=True):
            if len(old) and not new.all():
                old[rows[~new]] = plane[~new]
        grown = [np.concatenate([old, plane[new]]) for old, plane in zip(held, planes, strict=True)]
        self._set(grown, np.concatenate([self.ids, ids[new]]))
        return rows

    def check_add(self, emb: Embeddings) -> None:
        """Raise unless the embeddings are of this space, one vector an id."""
        self.space.check(emb.space)
        require_single(emb)

    def shaped(self, x: FloatArray) -> FloatArray:
        """Vectors as they are coded: unit vectors where directions are compared."""
        return unit(x.astype(np.float64)).astype(np.float32) if self.directions else x

    def remove(self, rows: IntArray) -> None:
        """Remove rows; those behind them move up."""
        keep = np.ones(len(self), bool)
        keep[rows] = False
        self._set([plane[keep] if len(plane) else plane for plane in self.planes], self.ids[keep])

    def _set(self, planes: Sequence[Any], ids: NDArray[np.object_]) -> None:
        self.planes = Planes(*planes)
        if not self.signs:
            self.planes = self.planes._replace(signs=self.planes.signs[:0])
        self.ids, self.position = ids, {identity: i for i, identity in enumerate(ids.tolist())}

    @property
    def coded(self) -> Coded:
        """The planes as kernels take them."""
        return Coded(*self.planes[1:])

    @property
    def nbytes(self) -> int:
        """Bytes resident: planes, rotation and mean; ids not counted."""
        return sum(p.nbytes for p in self.planes) + (0 if self.code is None else self.code.overhead_bytes)

    def blocks_of_signs(self) -> NDArray[np.uint64]:
        """Signs 64 rows side by side, uint64 ``[ceil(n / 64), D / 64, 64]``."""
        signs = self.planes.signs
        padded = np.zeros((-(-len(signs) // 64) * 64, signs.shape[1]), np.uint64)
        padded[: len(signs)] = signs
        return np.ascontiguousarray(padded.reshape(-1, 64, signs.shape[1]).transpose(0, 2, 1))

    def signed(self, rows: slice | IntArray) -> NDArray[np.int8]:
        """8-bit levels less 128, int8 ``[r, D]``: rows as queries of their own kind."""
        levels = unpack_nibbles(self.planes.high[rows]) << 4 | unpack_nibbles(self.planes.low[rows])
        return (levels ^ 128).view(np.int8)

    def decode(self, rows: slice | IntArray) -> FloatArray:
        """Vectors that the 8-bit codes of rows stand for, float32 ``[r, d]``."""
        assert self.code is not None
        residual = (self.signed(rows).astype(np.float32) + np.float32(0.5)) * self.planes.factor8[rows, None]
        return self.code.rotation.undo(residual) + self.code.mean_

    def check_search(self, queries: Embeddings, k: int, where: Mask | None) -> NDArray[np.bool_] | None:
        """Check the arguments of a search and return the mask, None for all rows."""
        return check_search(self.space, len(self), queries, k, where)

    def ask(self, vectors: FloatArray) -> tuple[Asked, FloatArray]:
        """Queries as kernels take them, and what to add to their scores, float32 ``[q]``."""
        assert self.code is not None
        x = check_reach(self.shaped(vectors), "queries")
        euclidean = self.space.similarity == "euclidean"
        if euclidean:
            x = x - self.code.mean_
        full = self.code.rotation.apply(x)
        q, width = full.shape
        coarse, fine = np.empty((q, width), np.int8), np.empty((q, width), np.int8)
        step, total, fine_total = np.empty(q, np.float32), np.empty(q, np.int64), np.empty(q, np.int64)
        quantise_queries(full, coarse, fine, step, total, fine_total)
        signs = np.empty((q, 0), np.uint64)
        if self.signs:
            centred = full if euclidean else full - self.code.rotation.apply(self.code.mean_[None])
            signs = np.packbits(centred > 0, axis=1, bitorder="little").view("<u8")
        offset = np.einsum("qd,qd->q", x, x) if euclidean else np.einsum("qd,d->q", x, self.code.mean_)
        return Asked(coarse, step, total, fine, fine_total, signs, np.float32(0.5 if euclidean else 0)), offset

    def best(self, vectors: FloatArray, picked: IntArray, k: int) -> tuple[Results, FloatArray]:
        """The k best of the rows ``picked`` (at least k) by 8 bits, and what to add to their scores."""
        asked, offset = self.ask(vectors)
        rows, scores = np.zeros((len(vectors), k), np.int64), np.empty((len(vectors), k), np.float32)
        counts = [rerank(self.coded, asked, a, picked, len(picked), k, rows[a], scores[a]) for a in range(len(vectors))]
        return (rows, scores, np.asarray(counts, np.int64)), offset

    def exhaustive(self, queries: Embeddings, k: int, where: Mask | None) -> Hits:
        """The k best of each query among all rows allowed, every one scored by 8 bits."""
        mask = self.check_search(queries, k, where)
        picked = np.arange(len(self)) if mask is None else np.flatnonzero(mask)
        k = min(k, len(picked))
        if not k or not len(queries):
            return Hits.build(queries.ids, [[]] * len(queries))
        out, offset = self.best(queries.vectors, picked, k)
        return self.hits(queries, *out, offset)

    def answer(self, queries: Embeddings, k: int, where: Mask | None, fill: Fill) -> Hits:
        """Check a search, let ``fill(asked, mask, matches, k, out)`` write what it finds, and return the hits."""
        mask = self.check_search(queries, k, where)
        matches = len(self) if mask is None else int(mask.sum())
        k, q = min(k, matches), len(queries)
        if not k or not q:
            return Hits.build(queries.ids, [[]] * q)
        asked, offset = self.ask(queries.vectors)
        out = np.zeros((q, k), np.int64), np.empty((q, k), np.float32), np.full(q, -1, np.int64)
        fill(asked, mask, matches, k, out)
        return self.hits(queries, *out, offset)

    def hits(
        self, queries: Embeddings, rows: IntArray, scores: FloatArray, counts: IntArray, offset: FloatArray
    ) -> Hits:
        """Hits of each query's rows ``[q, k]``, the first ``counts`` of them valid; ties by id."""
        there = np.arange(rows.shape[1]) < counts[:, None]
        if self.space.similarity == "euclidean":
            shown = -np.sqrt(np.maximum(offset[:, None] - 2 * scores, 0))
        else:
            shown = scores + offset[:, None]
        ids = self.ids[np.where(there, rows, 0)] if len(self) else np.empty(rows.shape, object)
        tied = (shown[:, 1:] == shown[:, :-1]) & there[:, 1:]
        for a in np.flatnonzero(tied.any(axis=1)):
            c = int(counts[a])
            order = np.lexsort((ids[a, :c].astype(str), -shown[a, :c]))
            ids[a, :c], shown[a, :c] = ids[a, :c][order], shown[a, :c][order]
        offsets = np.r_[0, np.cumsum(counts)].astype(np.int64)
        return Hits(queries.ids, offsets, ids[there], shown[there].astype(np.float32))

    def files(self) -> dict[str, Writer]:
        """Writers of the files that hold these rows."""
        files = {f"{name}.npy": array(plane) for name, plane in self.planes._asdict().items()}
        if self.code is not None:
            files["mean.npy"] = array(self.code.mean_)
        return files | {"ids.json": text(json.dumps(self.ids.tolist(), ensure_ascii=False))}

    def restore(self, folder: Folder, *, mmap: bool) -> None:
        """Read what `files` wrote; with ``mmap`` the planes stay on disk until they are needed."""
        if "mean.npy" in folder.files:
            self.code = RotatedCode(8, seed=self.seed)
            self.code.dim_ = self.space.dim
            self.code.mean_ = folder.array("mean.npy")
        mode: Literal["c"] | None = (
            "c" if mmap else None
        )  # private pages: a replaced row stays in memory until it is saved
        planes = [np.load(folder.files[f"{name}.npy"], mmap_mode=mode, allow_pickle=False) for name in Planes._fields]
        self._set(planes, id_array(json.loads(folder.text("ids.json"))))


def take(asked: Asked, rows: Any) -> Asked:
    """Some of the queries."""
    return Asked(*(part[rows] if isinstance(part, np.ndarray) and len(part) else part for part in asked))


def _none(dim: int) -> Planes:
    width = -(-dim // 128) * 128
    return Planes(
        np.empty((0, width // 64), np.uint64), np.empty((0, width // 2), np.uint8),
        np.empty((0, width // 2), np.uint8), *(np.empty(0, np.float32) for _ in range(3)),
    )  # fmt: skip
