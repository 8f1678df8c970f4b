"""Approximate nearest neighbours on a hierarchical navigable small world graph (usearch), filters included."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from isometry.errors import CorruptStore, InputError, UnknownName
from isometry.indexes.exact import Exact, Ranked
from isometry.indexes.folder import Folder, array, write_folder
from isometry.indexes.recall import Approximate
from isometry.indexes.rows import DType, in_turn
from isometry.protocols import Mask
from isometry.types import Embeddings, Hits, IntArray, Space

GraphDType = Literal["f32", "f16", "bf16", "i8"]
METRICS: Final = {"cosine": "cos", "dot": "ip", "euclidean": "l2sq"}
OVERFETCH: Final = 4  # candidates per answer that are ranked again by the kept vectors
# Rows that an exact scan does in the time of one step of a graph search's width, from so many queries at once on:
# medians measured on 60,000 x 384, one thread. Batches scan faster (matrix products), graphs walk query by query.
STEP_ROWS: Final = {64: 500, 8: 170, 1: 60}


class HNSW(Approximate):
    """Hierarchical navigable small world graph (Malkov & Yashunin 2018, arXiv:1603.09320), on usearch.

    Always returns ``min(k, matches)`` rows. A filter that leaves few rows is answered exactly among them; otherwise
    the graph is asked for more and more until enough pass; what it cannot reach is found exactly.

    Parameters
    ----------
    space
        Space of the vectors: cosine, dot or euclidean.
    connectivity
        Links per node, the paper's M.
    expansion_add, expansion_search
        Width of the search while building and asking, the paper's efConstruction and ef.
    dtype
        Numbers in the graph; ``"bf16"`` was the fastest of usearch's at equal recall, ``"i8"`` (cosine only) loses
        recall that only ``rescore`` gives back.
    rescore
        Rank candidates again by vectors kept beside the graph, True: as float32; scores are then exact for what is
        kept. False: the graph's own scores (float16 vectors are still kept, for filters).
    seed
        Order of insertion within each `add`.
    threads
        1 makes a build reproducible; 0 takes every core, and the graph then depends on their timing.

    Raises
    ------
    InputError
        If the space compares by another similarity, or a number is out of range.
    """

    exact: ClassVar[bool] = False

    def __init__(
        self,
        space: Space,
        *,
        connectivity: int = 16,
        expansion_add: int = 128,
        expansion_search: int = 64,
        dtype: GraphDType = "bf16",
        rescore: bool | DType = True,
        seed: int = 0,
        threads: int = 0,
    ) -> None:
        if dtype not in get_args(GraphDType):
            raise UnknownName("dtype", str(dtype), get_args(GraphDType))
        kept: DType = "float32" if rescore is True else rescore or "float16"
        self._kept = Exact(space, dtype=kept)
        if dtype == "i8" and space.similarity != "cosine":
            raise InputError(f"dtype i8 keeps directions only and cannot rank by {space.similarity}; use bf16 or f32.")
        if connectivity < 2 or expansion_add < 1 or expansion_search < 1 or threads < 0:
            raise InputError(
                "HNSW needs connectivity >= 2, expansion_add >= 1, expansion_search >= 1 and threads >= 0, got "
                f"{connectivity}, {expansion_add}, {expansion_search} and {threads}."
            )
        self.space, self.dtype, self.rescore, self.seed, self.threads = space, dtype, rescore, seed, threads
        self.connectivity, self.expansion_add, self.expansion_search = connectivity, expansion_add, expansion_search
        self._keys = np.empty(0, np.int64)  # the graph's key of each row; a key is never used twice
        self._next = 0
        self._rows: IntArray | None = None
        self._graph = self._empty_graph()

    def _empty_graph(self) -> Any:
        from usearch.index import Index

        return Index(
            ndim=self.space.dim,
            metric=METRICS[self.space.similarity],
            dtype=self.dtype,
            connectivity=self.connectivity,
            expansion_add=self.expansion_add,
            expansion_search=self.expansion_search,
        )

    @property
    def ids(self) -> NDArray[np.object_]:
        """Ids held, ``[n]``, in the order that ``where`` masks refer to."""
        return self._kept.ids

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, emb: Embeddings, order: IntArray | None = None) -> None:
        """Add vectors; an id that is there keeps its row and gets the new vector.

        Parameters
        ----------
        emb
            The vectors.
        order
            Order of insertion, a permutation of the rows of ``emb``, int ``[n]``; None: random by the seed. See
            `isometry.diagnostics.insertion_order`. Kept to the letter with ``threads=1`` only.

        Raises
        ------
        SpaceMismatch
            If the embeddings are of another space.
        InputError
            If ``order`` is not a permutation.
        """
        turns = None if order is None else in_turn(emb, order)
        before = len(self)
        known = self._kept.find(emb.ids.tolist())
        self._kept.add(emb)
        if len(known):
            self._graph.remove(self._keys[known].astype(np.uint64))
        rows = np.r_[known, np.arange(before, len(self))]
        if not len(rows):
            return
        keys = np.arange(self._next, self._next + len(rows))
        self._keys = np.r_[self._keys, np.empty(len(self) - before, np.int64)]
        self._keys[rows] = keys
        self._next += len(rows)
        self._rows = None
        if turns is None:
            last = {identity: i for i, identity in enumerate(emb.ids.tolist())}
            shuffled = self.ids[rows][np.random.default_rng(self.seed).permutation(len(rows))]
            turns = np.asarray([last[identity] for identity in shuffled.tolist()], np.int64)
        inserted = self._keys[self._kept.find(emb.ids[turns].tolist())]
        self._graph.add(inserted.astype(np.uint64), emb.vectors[turns], threads=self.threads)

    def remove(self, ids: Sequence[str]) -> int:
        """Remove ids and return how many were there; the rows behind them move up."""
        rows = self._kept.find(ids)
        if len(rows):
            self._graph.remove(self._keys[rows].astype(np.uint64))
            self._kept.remove(self.ids[rows].tolist())
            self._keys, self._rows = np.delete(self._keys, rows), None
        return len(rows)

    def search(self, queries: Embeddings, k: int, where: Mask | None = None) -> Hits:
        """Return the k nearest of each query, as far as the graph finds them, among the rows ``where`` allows.

        Raises
        ------
        InputError
            If ``k`` is smaller than 1 or ``where`` does not fit.
        SpaceMismatch
            If the queries are of another space.
        """
        allowed = self._kept.check_search(queries, k, where)
        matches = len(self) if allowed is None else len(allowed)
        k = min(k, matches)
        if self._exact_is_cheaper(len(queries), k, matches):
            return self._kept.search(queries, max(k, 1), where)
        mask = None if allowed is None else np.asarray(where)
        want = min(len(self), max(k, min(OVERFETCH * k, self.expansion_search)) if self.rescore else k)
        count = min(len(self), math.ceil(want * len(self) / matches))
        pending, parts = np.arange(len(queries)), []
        # A walk that costs more than twice a scan is not begun: what is pending then is found exactly.
        while len(pending) and count * self._step(len(pending)) <= 2 * max(matches, self.expansion_search):
            query, row, score = self._ask(queries.vectors[pending], count, mask)
            enough = np.bincount(query, minlength=len(pending)) >= k
            done = enough[query]
            parts.append((pending[query[done]], row[done], score[done]))
            pending = pending[~enough]
            if count == len(self):
                break
            count = min(len(self), 2 * count)
        return self._merge(queries, k, where, pending, parts)

    @staticmethod
    def _step(queries: int) -> int:
        return next(rows for least, rows in STEP_ROWS.items() if queries >= least)

    def _exact_is_cheaper(self, queries: int, k: int, matches: int) -> bool:
        """Whether scanning the matches costs less than a graph search wide enough to meet k of them."""
        if not k or not queries:
            return True
        width = max(self.expansion_search, k * len(self) / matches)
        return matches <= self._step(queries) * width

    def _ask(self, vectors: Any, count: int, mask: Mask | None) -> Ranked:
        """What the graph finds, as (query, row, score) of rows that pass."""
        found = self._graph.search(np.ascontiguousarray(vectors), count, threads=self.threads)
        keys, distances = np.atleast_2d(found.keys), np.atleast_2d(found.distances)
        counts = [len(found)] if len(vectors) == 1 else found.counts  # usearch answers one query in another form
        real = np.arange(keys.shape[1]) < np.reshape(counts, (-1, 1))
        row = np.full(keys.shape, -1, np.int64)
        row[real] = self._row_of()[keys[real].astype(np.int64)]
        query, place = np.nonzero((row >= 0) if mask is None else (row >= 0) & mask[row])
        distance = distances[query, place].astype(np.float32)
        euclidean = self.space.similarity == "euclidean"
        score = -np.sqrt(np.maximum(distance, 0)) if euclidean else np.float32(1) - distance
        return query, row[query, place], score

    def _row_of(self) -> IntArray:
        """Row of each key ever used, -1 where it is gone; kept until the next change."""
        if self._rows is None:
            self._rows = np.full(self._next, -1, np.int64)
            self._rows[self._keys] = np.arange(len(self))
        return self._rows

    def _merge(self, queries: Embeddings, k: int, where: Mask | None, pending: IntArray, parts: list[Any]) -> Hits:
        """Rank what the graph found, and find exactly for the queries it found too little for."""
        query, row, score = (np.concatenate([p[i] for p in parts]) if parts else np.empty(0, int) for i in range(3))
        if self.rescore:
            query, row, score = self._kept.settle(self._kept.prepare(queries), query, row, k)
        else:
            query, row, score = self._kept.ranked(query, row, score, k)
        found = self._kept.hits(queries.ids, query, row, score)
        if not len(pending):
            return found
        rest = self._kept.search(queries.take(pending), k, where)
        rows = [found.row(i) for i in range(len(queries))]
        for i, (_, answers) in zip(pending.tolist(), rest, strict=True):
            rows[i] = answers
        return Hits.build(queries.ids, rows, k=k)

    def exhaustive(self, queries: Embeddings, k: int, where: Mask | None = None) -> Hits:
        """Return the k nearest of each query by every vector kept: slow, and all that `search` could find."""
        return self._kept.search(queries, k, where)

    def save(self, path: str | Path) -> None:
        """Write graph, vectors and settings to a folder, whole or not at all."""
        names = ("connectivity", "expansion_add", "expansion_search", "dtype", "rescore", "seed", "threads")
        facts = {"space": self.space.to_json(), "settings": {name: getattr(self, name) for name in names}}
        files = self._kept.files() | {"keys.npy": array(self._keys)}
        files["graph.usearch"] = lambda file: self._graph.save(str(file))
        write_folder(path, "hnsw", facts | {"next": self._next}, files)

    @classmethod
    def load(cls, path: str | Path, *, mmap: bool = False) -> Self:
        """Read what `save` wrote; with ``mmap`` the kept vectors stay on disk until they are needed.

        Raises
        ------
        StoreError
            If there is no such index; `CorruptStore` if a checksum does not fit.
        """
        folder = Folder.open(path, "hnsw")
        index = cls(Space.from_json(folder.facts["space"]), **folder.facts["settings"])
        index._kept.restore(folder, mmap=mmap)
        index._keys, index._next = folder.array("keys.npy"), int(folder.facts["next"])
        index._graph.load(str(folder.files["graph.usearch"]))
        # The file carries neither width, and what loading leaves of them is not documented.
        index._graph.expansion_add, index._graph.expansion_search = index.expansion_add, index.expansion_search
        if len(index._graph) != len(index):
            raise CorruptStore(f"The graph in {path} holds {len(index._graph)} rows, not {len(index)}; rebuild it.")
        return index
