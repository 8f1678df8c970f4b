"""Sets of token vectors with ids as an index keeps them: added, replaced and removed, in few bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from isometry.errors import CorruptStore, DimensionMismatch, UnknownName
from isometry.indexes.folder import Folder, Writer, array, text
from isometry.indexes.rows import DECODED, DType, blocks, find_rows
from isometry.types import Embeddings, FloatArray, IntArray, Space, id_array


@dataclass(frozen=True, eq=False)
class Coded:
    """Items ready to be kept: distinct ids, tokens per item, codes ``[t, d]`` and their scale ``[t]`` (int8 only)."""

    ids: NDArray[np.object_]
    counts: IntArray
    codes: NDArray[Any]
    scale: FloatArray


class RaggedRows:
    """A growing table of token sets: item i stands for ``counts[i]`` rows of ``codes`` from ``starts[i]`` on.

    Replaced and removed items leave their rows behind until those are more than a half; then the rest moves together.

    Parameters
    ----------
    space
        Space of the tokens.
    dtype
        ``"float32"``, ``"float16"``, or ``"int8"``: ``round(x / s)`` with ``s = max|x| / 127`` per token.
    """

    def __init__(self, space: Space, dtype: DType) -> None:
        if dtype not in get_args(DType):
            raise UnknownName("dtype", str(dtype), get_args(DType))
        self.space, self.dtype = space, dtype
        self._codes: NDArray[Any] = np.empty((0, space.dim), dtype)
        self._scale: FloatArray = np.empty(0, np.float32)
        self._starts: IntArray = np.empty(0, np.int64)
        self._counts: IntArray = np.empty(0, np.int64)
        self._ids = id_array(())
        self._n = self._used = 0
        self._position: dict[str, int] = {}

    def __len__(self) -> int:
        return self._n

    @property
    def ids(self) -> NDArray[np.object_]:
        """Ids, object ``[n]``."""
        return self._ids[: self._n]

    @property
    def starts(self) -> IntArray:
        """First row of each item, ``[n]``."""
        return self._starts[: self._n]

    @property
    def counts(self) -> IntArray:
        """Rows of each item, ``[n]``."""
        return self._counts[: self._n]

    @property
    def codes(self) -> NDArray[Any]:
        """What is kept of the tokens, those left behind included, ``[t, d]``."""
        return self._codes[: self._used]

    @property
    def scale(self) -> FloatArray:
        """Float32 ``[t]``; empty unless int8."""
        return self._scale[: self._used]

    @property
    def position(self) -> dict[str, int]:
        """Row number of each id."""
        return self._position

    def find(self, ids: Sequence[str]) -> IntArray:
        """Positions of the ids that are there, each once, in the order given."""
        return find_rows(self._position, ids)

    def encode(self, emb: Embeddings) -> Coded:
        """Make items ready for `put`, the last of several with one id; nothing is kept yet.

        Raises
        ------
        DimensionMismatch
            If a number is too large for float16.
        """
        last = {identity: i for i, identity in enumerate(emb.ids.tolist())}
        if len(last) < len(emb):
            emb = emb.take(list(last.values()))
        counts = np.diff(emb.offsets) if emb.offsets is not None else np.ones(len(emb), np.int64)
        if self.dtype != "int8":
            with np.errstate(over="ignore"):
                codes = emb.vectors.astype(self.dtype)
            if self.dtype == "float16" and not np.isfinite(codes).all():
                raise DimensionMismatch("tokens hold numbers beyond 65504, too large for float16; use another dtype.")
            return Coded(emb.ids, counts, codes, np.empty(0, np.float32))
        scale, codes = np.empty(len(emb.vectors), np.float32), np.empty(emb.vectors.shape, np.int8)
        for part in blocks(len(codes), DECODED // self.space.dim):
            scale[part] = step = np.abs(emb.vectors[part]).max(axis=1, initial=0) / np.float32(127)
            codes[part] = np.rint(emb.vectors[part] / np.where(step > 0, step, 1)[:, None])
        return Coded(emb.ids, counts, codes, scale)

    def put(self, new: Coded) -> None:
        """Keep items; an id that is there keeps its position and gets the new tokens."""
        total = self._n
        rows = np.empty(len(new.ids), np.int64)
        for i, identity in enumerate(new.ids.tolist()):
            rows[i] = row = self._position.setdefault(identity, total)
            total += row == total
        end = self._used + len(new.codes)
        self._codes = _grown(self._codes, self._used, end)
        self._codes[self._used : end] = new.codes
        if self.dtype == "int8":
            self._scale = _grown(self._scale, self._used, end)
            self._scale[self._used : end] = new.scale
        self._ids, self._starts, self._counts = (
            _grown(old, self._n, total) for old in (self._ids, self._starts, self._counts)
        )
        self._starts[rows] = self._used + np.cumsum(new.counts) - new.counts
        self._ids[rows], self._counts[rows] = new.ids, new.counts
        self._n, self._used = total, end
        self._tidy()

    def remove(self, rows: IntArray) -> None:
        """Remove items; those behind them move up."""
        keep = np.ones(self._n, bool)
        keep[rows] = False
        self._ids, self._starts, self._counts = self.ids[keep], self.starts[keep], self.counts[keep]
        self._n = len(self._ids)
        self._position = {identity: i for i, identity in enumerate(self._ids.tolist())}
        self._tidy()

    def _tidy(self) -> None:
        if self._used > 2 * self.counts.sum():
            self._codes, self._scale, self._starts = self._packed()
            self._used = len(self._codes)

    def _packed(self) -> tuple[NDArray[Any], FloatArray, IntArray]:
        """Codes, scale and starts without rows that were left behind."""
        first = np.cumsum(self.counts) - self.counts
        rows = np.arange(self.counts.sum()) + np.repeat(self.starts - first, self.counts)
        return self.codes[rows], self.scale[rows] if self.dtype == "int8" else self._scale, first

    def files(self) -> dict[str, Writer]:
        """Writers of the files that hold these items."""
        codes, scale, _ = self._packed()
        names = text(json.dumps(self.ids.tolist(), ensure_ascii=False))
        arrays = {"tokens.npy": codes, "scales.npy": scale, "counts.npy": self.counts}
        return {name: array(value) for name, value in arrays.items()} | {"ids.json": names}

    def restore(self, folder: Folder) -> None:
        """Read what `files` wrote.

        Raises
        ------
        CorruptStore
            If the files do not fit each other.
        """
        codes, scale, counts = (folder.array(f"{name}.npy") for name in ("tokens", "scales", "counts"))
        ids = id_array(json.loads(folder.text("ids.json")))
        scales = len(codes) if self.dtype == "int8" else 0
        if codes.shape != (counts.sum(), self.space.dim) or len(scale) != scales or len(ids) != len(counts):
            raise CorruptStore(f"The files of the index in {folder.root} do not fit each other; rebuild the index.")
        self._codes, self._scale, self._counts, self._ids = codes, scale, counts, ids
        self._starts = np.cumsum(counts) - counts
        self._n, self._used = len(ids), len(codes)
        self._position = {identity: i for i, identity in enumerate(ids.tolist())}


def _grown(old: NDArray[Any], used: int, need: int) -> NDArray[Any]:
    """``old`` with room for ``need`` rows; half as much again, so that many small additions stay linear."""
    if len(old) >= need:
        return old
    new = np.empty((max(need, used + used // 2) if used else need, *old.shape[1:]), old.dtype)
    new[:used] = old[:used]
    return new
