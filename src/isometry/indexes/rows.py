"""Vectors with ids as an index keeps them: float32, float16 or int8 rows that can be added, replaced and removed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from isometry.errors import DimensionMismatch, InputError, UnknownName
from isometry.indexes.folder import Folder, Writer, array, text
from isometry.types import Embeddings, FloatArray, IntArray, Space, id_array

DType = Literal["float32", "float16", "int8"]
Floats = NDArray[np.floating[Any]]

DECODED: Final = 1 << 22  # numbers decoded or gathered at once


def blocks(n: int, size: int) -> Iterator[slice]:
    """Slices of at most ``size`` that cover ``range(n)``."""
    return (slice(start, min(start + size, n)) for start in range(0, n, max(1, size)))


def require_single(emb: Embeddings) -> None:
    """Raise `InputError` if an item has several vectors."""
    if emb.multi:
        raise InputError("This index holds one vector per id; pool multi-vector embeddings first.")


def require_comparable(space: Space) -> None:
    """Raise `InputError` if a space compares by anything but cosine, dot product or distance."""
    if space.similarity not in ("cosine", "dot", "euclidean"):
        raise InputError(
            f"This index compares by cosine, dot or euclidean, not by {space.similarity}; "
            "use one made for that kind of vectors."
        )


def check_search(space: Space, n: int, queries: Embeddings, k: Any, where: Any) -> NDArray[np.bool_] | None:
    """Check the arguments of a search among n rows and return the mask, None where all rows pass.

    Raises
    ------
    InputError
        If ``k`` is smaller than 1, ``where`` does not fit or a query has several vectors.
    SpaceMismatch
        If the queries are of another space.
    """
    space.check(queries.space)
    require_single(queries)
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise InputError(f"k must be a whole number of at least 1 (how many neighbours to return), got {k!r}.")
    if where is None:
        return None
    mask = np.asarray(where)
    if mask.dtype != bool or mask.shape != (n,):
        raise InputError(
            f"where must be a boolean mask of shape ({n},), one entry per row of the index, "
            f"got {mask.dtype} of shape {mask.shape}."
        )
    return None if mask.all() else mask


def find_rows(position: Mapping[str, int], ids: Sequence[str]) -> IntArray:
    """Row numbers of the ids that have a ``position``, each once, in the order given.

    Raises
    ------
    InputError
        If ``ids`` is a single text.
    """
    if isinstance(ids, str):
        raise InputError(f"A list of ids is needed, got the single text {ids!r}; write [{ids!r}].")
    return np.asarray([position[i] for i in dict.fromkeys(ids) if i in position], np.int64)


def in_turn(emb: Embeddings, order: Any) -> IntArray:
    """Rows of ``emb`` in the order given, int64; of several with one id only the last of ``emb``, whose vector counts.

    Raises
    ------
    InputError
        If ``order`` is not a permutation of the rows.
    """
    n, turns = len(emb), np.asarray(order)
    whole = turns.dtype.kind in "iu" or not turns.size
    if turns.shape != (n,) or not whole or not np.array_equal(np.sort(turns), np.arange(n)):
        raise InputError(
            f"order must hold each row number of the {n} embeddings once (0 to n - 1, whole numbers), "
            f"got {turns.dtype} of shape {turns.shape} that does not."
        )
    counts = np.zeros(n, bool)
    counts[list({identity: i for i, identity in enumerate(emb.ids.tolist())}.values())] = True
    found: IntArray = turns[counts[turns.astype(np.int64)]].astype(np.int64)
    return found


class Rows:
    """A growing table of vectors: row i stands for ``scale[i] * codes[i]``, of norm ``norm[i]``.

    The scale is there for int8, and for cosine similarity of vectors that are not normalised (`scaled`).

    Parameters
    ----------
    space
        Space of the vectors.
    dtype
        How the codes are kept: see `isometry.indexes.Exact`.
    """

    def __init__(self, space: Space, dtype: DType) -> None:
        if dtype not in get_args(DType):
            raise UnknownName("dtype", str(dtype), get_args(DType))
        self.space, self.dtype = space, dtype
        self.directions = space.similarity == "cosine" and not space.normalized
        self.scaled = dtype == "int8" or self.directions
        self._codes: NDArray[Any] = np.empty((0, space.dim), dtype)
        self._scale: Floats = np.empty(0, np.float64)
        self._norm: Floats = np.empty(0, np.float64)
        self._ids = id_array([])
        self._n, self._owned = 0, True
        self._position: dict[str, int] | None = {}

    def adopt(self, emb: Embeddings) -> None:
        """Take over the vectors and ids of ``emb`` (distinct ids, float32 rows) without copying them."""
        self._set(emb.vectors, *self._measure(emb.vectors), emb.ids, owned=False)

    def _set(self, codes: Any, scale: Floats, norm: Floats, ids: NDArray[np.object_], *, owned: bool) -> None:
        self._codes, self._scale, self._norm, self._ids = codes, scale, norm, ids
        self._n, self._owned, self._position = len(ids), owned, None

    def __len__(self) -> int:
        return self._n

    @property
    def ids(self) -> NDArray[np.object_]:
        """Ids, object ``[n]``."""
        return self._ids[: self._n]

    @property
    def codes(self) -> NDArray[Any]:
        """What is kept of the vectors, ``[n, d]``."""
        return self._codes[: self._n]

    @property
    def scale(self) -> Floats:
        """Float64 ``[n]``; empty unless `scaled`."""
        return self._scale[: self._n]

    @property
    def norm(self) -> Floats:
        """Norms of the vectors the rows stand for, float64 ``[n]``."""
        return self._norm[: self._n]

    @property
    def position(self) -> dict[str, int]:
        """Row number of each id."""
        if self._position is None:
            self._position = {identity: i for i, identity in enumerate(self.ids.tolist())}
        return self._position

    def find(self, ids: Sequence[str]) -> IntArray:
        """Row numbers of the ids that are there, each once, in the order given."""
        return find_rows(self.position, ids)

    def put(self, emb: Embeddings) -> None:
        """Add vectors; an id that is there keeps its row and gets the new vector, the last of several counts."""
        self.space.check(emb.space)
        require_single(emb)
        last = {identity: i for i, identity in enumerate(emb.ids.tolist())}
        take = slice(None) if len(last) == len(emb) else np.fromiter(last.values(), np.int64, len(last))
        codes, scale, norm = self._encode(emb.vectors[take])
        known, total = self.position, self._n
        rows = np.empty(len(codes), np.int64)
        for i, identity in enumerate(last):
            rows[i] = row = known.get(identity, total)
            total += row == total
        self._reserve(total)
        self._codes[rows], self._norm[rows], self._ids[rows] = codes, norm, id_array(last)
        if self.scaled:
            self._scale[rows] = scale
        known.update(zip(last, rows.tolist(), strict=True))
        self._n = total

    def remove(self, rows: IntArray) -> None:
        """Remove rows; those behind them move up."""
        keep = np.ones(self._n, bool)
        keep[rows] = False
        scale = self.scale[keep] if self.scaled else self._scale
        self._set(self.codes[keep], scale, self.norm[keep], self.ids[keep], owned=True)

    def _reserve(self, n: int) -> None:
        """Make room for n rows in memory of our own; half as much again, so that many small adds stay linear."""
        if self._owned and len(self._ids) >= n:
            return
        room = max(n, self._n + self._n // 2) if n > self._n else n

        def grown(old: NDArray[Any]) -> NDArray[Any]:
            new = np.empty((room, *old.shape[1:]), old.dtype)
            new[: self._n] = old[: self._n]
            return new

        self._codes, self._norm, self._ids = grown(self._codes), grown(self._norm), grown(self._ids)
        self._scale = grown(self._scale) if self.scaled else self._scale
        self._owned = True

    def _encode(self, x: FloatArray) -> tuple[NDArray[Any], Floats, Floats]:
        """Codes ``[n, d]``, scale ``[n]`` and norm ``[n]``."""
        if self.dtype == "int8":
            step = np.abs(x).max(axis=1, initial=0).astype(np.float64) / 127
            codes = np.rint(x / np.where(step > 0, step, 1)[:, None]).astype(np.int8)
            return codes, *self._measure(codes, step)
        with np.errstate(over="ignore"):
            codes = x.astype(self.dtype, copy=False)
        if self.dtype == "float16" and not np.isfinite(codes).all():
            raise DimensionMismatch("vectors hold numbers beyond 65504, too large for float16; use float32 or int8.")
        return codes, *self._measure(codes)

    def _measure(self, codes: NDArray[Any], step: Floats | None = None) -> tuple[Floats, Floats]:
        """Scale and norm of rows; where directions are compared, the scale makes unit vectors."""
        norm = np.empty(len(codes), np.float64)
        for part in blocks(len(codes), DECODED // self.space.dim):
            rows = codes[part].astype(np.float64)
            norm[part] = np.sqrt(np.einsum("nd,nd->n", rows, rows))
        if self.directions:
            there = norm > 0
            return np.divide(1, norm, out=np.zeros_like(norm), where=there), there.astype(np.float64)
        return (np.empty(0, np.float64), norm) if step is None else (step, norm * step)

    def decode(self, rows: IntArray, dtype: Any = np.float32) -> Any:
        """Vectors that rows stand for, ``[r, d]``."""
        values = self._codes[rows].astype(dtype)
        return values * self._scale[rows, None].astype(dtype) if self.scaled else values

    def files(self) -> dict[str, Writer]:
        """Writers of the files that hold these rows."""
        ids = json.dumps(self.ids.tolist(), ensure_ascii=False)
        files = {"vectors.npy": array(self.codes), "norm.npy": array(self.norm), "ids.json": text(ids)}
        return files | ({"scale.npy": array(self.scale)} if self.scaled else {})

    def restore(self, folder: Folder, *, mmap: bool) -> None:
        """Read what `files` wrote; with ``mmap`` the codes stay on disk."""
        scale = folder.array("scale.npy") if self.scaled else self._scale
        ids = id_array(json.loads(folder.text("ids.json")))
        codes = folder.array("vectors.npy", mmap=mmap)
        self._set(codes, cast(Floats, scale), folder.array("norm.npy"), ids, owned=not mmap)
