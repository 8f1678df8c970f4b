"""A proximity graph over nested codes: walked by 4 bits a dimension, ranked by 8, no float vectors kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from isometry.errors import CorruptStore, InputError
from isometry.indexes import graph_kernels as kernels
from isometry.indexes.code_kernels import Asked, scan_rows
from isometry.indexes.code_rows import CodeRows, Results, take
from isometry.indexes.folder import Folder, array, write_folder
from isometry.indexes.recall import Approximate
from isometry.indexes.rows import blocks, in_turn
from isometry.protocols import Mask
from isometry.types import Embeddings, Hits, IntArray, Space

SLACK: Final = 1.3  # links a row may have while the graph is built, relative to what it keeps
# Rows that a scan scores in the time of one step of a walk (1 us at 384 dimensions; 2 us where a filter makes it look
# two links far): a scan of fewer rows per unit of width is cheaper.
STEP_ROWS: Final = {"all": 80, "filtered": 200}
PIVOTS: Final = (256, 4096)  # fewest and most rows a walk may start from; 2 sqrt(n) between


class CodeGraph(Approximate):
    """Vamana graph (Subramanya et al., DiskANN, NeurIPS 2019) over the codes of `isometry.codes.RotatedCode`.

    A walk reads 4 bits a dimension; what it met is ranked by 8 bits and the query in full precision. Nothing else is
    kept: 384-d vectors take 515 bytes each, a third of their float32 form. Always returns ``min(k, matches)`` rows:
    where a filter leaves few rows, or a walk finds too little, the codes are scanned.

    Parameters
    ----------
    space
        Space of the vectors: cosine, euclidean, or dot of normalised vectors.
    degree
        Most links per row (R).
    expansion_add, expansion_search
        Width of the walk while building and asking (L).
    alpha
        How much nearer a kept neighbour must be to a candidate, to make a link to that candidate needless; at least 1.
    seed
        Of the codes' rotation and the order of insertion within each `add`.
    threads
        Queries walked at once; building is sequential, and so the same on every machine with the same codes.

    Raises
    ------
    InputError
        If the space compares by another similarity, or an argument is out of range.
    """

    exact: ClassVar[bool] = False

    def __init__(
        self, space: Space, *, degree: int = 32, expansion_add: int = 160, expansion_search: int = 64,
        alpha: float = 1.05, seed: int = 0, threads: int = 1,
    ) -> None:  # fmt: skip
        if space.similarity == "dot" and not space.normalized:
            raise InputError(
                "A graph needs a distance, and dot products of vectors of any length are none; "
                "normalise the vectors, or use CodeScan or Exact."
            )
        if degree < 2 or expansion_add < 2 or expansion_search < 1 or alpha < 1 or threads < 1:
            raise InputError(
                "CodeGraph needs degree >= 2, expansion_add >= 2, expansion_search >= 1, alpha >= 1 and threads >= 1, "
                f"got {degree}, {expansion_add}, {expansion_search}, {alpha} and {threads}."
            )
        self.space, self.degree, self.alpha, self.seed, self.threads = space, degree, alpha, seed, threads
        self.expansion_add, self.expansion_search = expansion_add, expansion_search
        self._rows = CodeRows(space, seed=seed, signs=False)
        self._graph = _no_graph(degree)
        self._walks: list[kernels.Walk] = []

    @property
    def ids(self) -> NDArray[np.object_]:
        """Ids held, ``[n]``, in the order that ``where`` masks refer to."""
        return self._rows.ids

    @property
    def nbytes(self) -> int:
        """Bytes resident: codes, links and starting rows; ids not counted."""
        return self._rows.nbytes + sum(int(part.nbytes) for part in self._graph)

    @property
    def unreachable(self) -> int:
        """Rows that no walk can reach: 0, but for a few among hundreds of equal vectors."""
        return int(kernels.unreachable(self._graph).sum())

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, emb: Embeddings, order: IntArray | None = None) -> None:
        """Add vectors; an id that is there keeps its row and gets the new vector.

        Parameters
        ----------
        emb
            The vectors.
        order
            Order of insertion, a permutation of the rows of ``emb``, int ``[n]``; None: random by the seed. See
            `isometry.diagnostics.insertion_order`.

        Raises
        ------
        SpaceMismatch
            If the embeddings are of another space.
        InputError
            If ``order`` is not a permutation.
        """
        self._rows.check_add(emb)
        turns = None if order is None else in_turn(emb, order)
        before, known = len(self), self._rows.find(emb.ids.tolist())
        if len(known):
            self._detach(known)
        rows = self._rows.put(emb)
        if len(rows):
            shuffled = rows[np.random.default_rng(self.seed).permutation(len(rows))]
            self._insert(shuffled if turns is None else self._rows.find(emb.ids[turns].tolist()), before)

    def _insert(self, order: IntArray, before: int) -> None:
        """Link rows in that order, of which those from ``before`` on are new."""
        n, self._walks = len(self), []
        own = self._own()
        bulk = 2 * len(order) > n
        room = int(self.degree * SLACK) if bulk else self.degree
        links, degree = np.zeros((n, room), np.int32), np.zeros(n, np.int32)
        links[:before, : self.degree], degree[:before] = self._graph.links, self._graph.degree
        old = np.setdiff1d(np.arange(before), order)
        old = np.random.default_rng(self.seed).permutation(old)[: _pivots(n)]
        starts = np.concatenate([old, order]).astype(np.int32)[: _pivots(n)]
        graph = kernels.Graph(links, degree, starts, own.signs[starts])
        kernels.grow(self._rows.coded, own, graph, order, len(old), *self._shape(self.expansion_add))
        if bulk:
            kernels.trim(self._rows.coded, own, graph, *self._shape())
            links = np.ascontiguousarray(links[:, : self.degree])
        self._connect(own, graph._replace(links=links))

    def _shape(self, width: int = 0) -> tuple[Any, ...]:
        """Arguments that say how a graph is built: width, squared slope, degree and, with a width, a walk's memory."""
        slope = np.float32(self.alpha**2)
        return (width, slope, self.degree, self._walk(width)) if width else (slope, self.degree)

    def _own(self) -> Asked:
        """Every row as a query, its 8-bit levels for bytes; distances are Euclidean."""
        n, planes = len(self), self._rows.planes
        width = planes.high.shape[1] * 2
        levels, signs = np.empty((n, width), np.int8), np.empty((n, width // 64), np.uint64)
        for part in blocks(n, 1 << 14):
            levels[part] = self._rows.signed(part)
            signs[part] = np.packbits(levels[part] >= 0, axis=1, bitorder="little").view("<u8")
        total = levels.sum(axis=1, dtype=np.int64)
        fine, fine_total = np.empty((0, 0), np.int8), np.empty(0, np.int64)  # only ranking by all bits needs these
        return Asked(levels, planes.factor8, total, fine, fine_total, signs, np.float32(0.5))

    def _connect(self, own: Asked, graph: kernels.Graph) -> None:
        """Sample the starting rows anew, and link rows that no walk reaches."""
        n = len(self)
        starts = np.sort(np.random.default_rng(self.seed + 1).permutation(n)[: _pivots(n)]).astype(np.int32)
        self._graph = graph._replace(pivots=starts, pivot_signs=np.ascontiguousarray(own.signs[starts]))
        for _ in range(8):
            lost = kernels.unreachable(self._graph)
            if not lost.any():
                return
            width = self.expansion_add
            kernels.attach(self._rows.coded, own, self._graph, lost, width, self.degree, self._walk(width))

    def remove(self, ids: Sequence[str]) -> int:
        """Remove ids and return how many were there; the rows behind them move up."""
        rows = self._rows.find(ids)
        if not len(rows):
            return 0
        keep = self._detach(rows)
        place = np.cumsum(keep, dtype=np.int32) - 1
        self._rows.remove(rows)
        links = np.ascontiguousarray(place[self._graph.links[keep]])
        graph = self._graph._replace(links=links, degree=self._graph.degree[keep])
        if len(self):
            self._connect(self._own(), graph)
        else:
            self._graph = _no_graph(self.degree)
        return len(rows)

    def _detach(self, rows: IntArray) -> NDArray[np.bool_]:
        """Lead links past rows and take theirs away; return which rows are left, bool ``[n]``."""
        self._walks = []
        gone = np.zeros(len(self), bool)
        gone[rows] = True
        kernels.bypass(self._rows.coded, self._own(), self._graph, gone, *self._shape())
        self._graph.degree[gone] = 0
        return ~gone

    def search(self, queries: Embeddings, k: int, where: Mask | None = None) -> Hits:
        """Return the k nearest of each query, as far as walks find them, among the rows ``where`` allows.

        Raises
        ------
        InputError
            If ``k`` is smaller than 1 or ``where`` does not fit.
        SpaceMismatch
            If the queries are of another space.
        """
        return self._rows.answer(queries, k, where, self._fill)

    def _fill(self, asked: Asked, mask: Mask | None, matches: int, k: int, out: Results) -> None:
        """Write the k best rows of each query: by walks, and by a scan for those whose walk met too few."""
        width = max(self.expansion_search, k)
        if matches > width * max(1, STEP_ROWS["all" if mask is None else "filtered"]):
            self._in_threads(asked, out, lambda a, o: self._walk_part(a, o, mask, width, k))
        pending = np.flatnonzero(out[2] < k)
        if len(pending):
            some = out[0][pending], out[1][pending], out[2][pending]
            self._in_threads(take(asked, pending), some, lambda a, o: self._scan_part(a, o, mask, k))
            out[0][pending], out[1][pending], out[2][pending] = some

    def _in_threads(self, asked: Asked, out: Results, work: Callable[[Asked, Results], None]) -> None:
        q = len(asked.bytes)
        rows, scores, counts = out
        parts = [(take(asked, p), (rows[p], scores[p], counts[p])) for p in blocks(q, -(-q // self.threads))]
        if len(parts) == 1:
            work(asked, out)
            return
        with ThreadPoolExecutor(len(parts)) as pool:
            list(pool.map(lambda part: work(*part), parts))

    def _walk_part(self, asked: Asked, out: Results, mask: Mask | None, width: int, k: int) -> None:
        walk = self._walk(width)
        asked = asked._replace(signs=np.packbits(asked.bytes > 0, axis=1, bitorder="little").view("<u8"))
        allowed = np.empty(0, np.uint8) if mask is None else mask.view(np.uint8)
        kernels.search_graph(self._rows.coded, asked, self._graph, allowed, width, k, walk, *out)
        self._walks.append(walk)

    def _scan_part(self, asked: Asked, out: Results, mask: Mask | None, k: int) -> None:
        picked = np.empty(0, np.int64) if mask is None else np.flatnonzero(mask)
        scan_rows(self._rows.coded, asked, picked, max(3 * k, 20), k, *out)

    def _walk(self, width: int) -> kernels.Walk:
        """Memory for a walk, used again and again: marking rows costs nothing that way."""
        walk = self._walks.pop() if self._walks else None
        seen = np.zeros(len(self), np.uint8) if walk is None else walk.seen
        epoch = np.zeros(1, np.uint8) if walk is None else walk.epoch
        room = int(self.degree * SLACK) + 1
        scores, items = np.empty(width, np.float32), np.empty(width, np.int64)
        return kernels.Walk(seen, epoch, scores, items, np.empty(room, np.int32))

    def exhaustive(self, queries: Embeddings, k: int, where: Mask | None = None) -> Hits:
        """Return the k nearest of each query by all 8 bits of every row: slow, and all that `search` could find."""
        return self._rows.exhaustive(queries, k, where)

    def save(self, path: str | Path) -> None:
        """Write codes, graph and settings to a folder, whole or not at all."""
        names = ("degree", "expansion_add", "expansion_search", "alpha", "seed", "threads")
        facts = {"space": self.space.to_json(), "settings": {name: getattr(self, name) for name in names}}
        files = self._rows.files() | {f"graph_{name}.npy": array(part) for name, part in self._graph._asdict().items()}
        write_folder(path, "code-graph", facts, files)

    @classmethod
    def load(cls, path: str | Path, *, mmap: bool = False) -> Self:
        """Read what `save` wrote; with ``mmap`` the codes stay on disk until they are needed.

        Raises
        ------
        StoreError
            If there is no such index; `CorruptStore` if a checksum does not fit.
        """
        folder = Folder.open(path, "code-graph")
        index = cls(Space.from_json(folder.facts["space"]), **folder.facts["settings"])
        index._rows.restore(folder, mmap=mmap)
        index._graph = kernels.Graph(*(folder.array(f"graph_{name}.npy") for name in kernels.Graph._fields))
        if len(index._graph.links) != len(index):
            raise CorruptStore(f"The graph in {path} has {len(index._graph.links)} rows, not {len(index)}; rebuild it.")
        return index


def _no_graph(degree: int) -> kernels.Graph:
    none = np.empty(0, np.int32)
    return kernels.Graph(np.empty((0, degree), np.int32), none, none, np.empty((0, 1), np.uint64))


def _pivots(n: int) -> int:
    return min(n, max(PIVOTS[0], min(PIVOTS[1], round(2 * math.sqrt(n)))))
