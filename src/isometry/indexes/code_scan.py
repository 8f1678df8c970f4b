"""A quantised flat index: signs find candidates, 4 bits narrow them, 8 bits rank them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from isometry.errors import InputError
from isometry.indexes.code_kernels import Asked, narrow, scan_rows, scan_signs
from isometry.indexes.code_rows import CodeRows, Results, take
from isometry.indexes.folder import Folder, write_folder
from isometry.indexes.recall import Approximate
from isometry.indexes.rows import blocks
from isometry.protocols import Mask
from isometry.types import Embeddings, Hits, Space

TOGETHER: Final = 256  # queries that share one pass over the signs
# A row costs this many times as much by its 4 bits as by its sign bits (10 ns and 0.6 ns at 384 dimensions).
PER_ROW: Final = 16


class CodeScan(Approximate):
    """Flat scan of nested codes in three steps: nothing to build, 3.6 times smaller than float32 vectors.

    Every row's sign bits are compared (Hamming distance); the ``oversample[0] * k`` nearest are scored by 4 bits a
    dimension, the ``oversample[1] * k`` best of those by 8 bits and the query in full precision. Scores are those of
    the 8-bit codes. See `isometry.codes.RotatedCode` for the codes.

    Parameters
    ----------
    space
        Space of the vectors: cosine, dot or euclidean.
    oversample
        Candidates per answer after the first and after the second step.
    seed
        Of the codes' rotation.

    Raises
    ------
    InputError
        If the space compares by another similarity, or an argument is out of range.
    """

    exact: ClassVar[bool] = False

    def __init__(self, space: Space, *, oversample: tuple[int, int] = (32, 3), seed: int = 0) -> None:
        if not isinstance(oversample, Sequence) or len(oversample) != 2 or not oversample[0] >= oversample[1] >= 1:
            raise InputError(f"oversample must be two falling numbers of at least 1, got {oversample!r}.")
        self.space, self.oversample, self.seed = space, tuple(oversample), seed
        self._rows = CodeRows(space, seed=seed, signs=True)
        self._blocks: NDArray[np.uint64] | None = None

    @property
    def ids(self) -> NDArray[np.object_]:
        """Ids held, ``[n]``, in the order that ``where`` masks refer to."""
        return self._rows.ids

    @property
    def nbytes(self) -> int:
        """Bytes resident, ids not counted."""
        return self._rows.nbytes + (0 if self._blocks is None else self._blocks.nbytes)

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, emb: Embeddings) -> None:
        """Add vectors; an id that is there is replaced.

        Raises
        ------
        SpaceMismatch
            If the embeddings are of another space.
        """
        self._rows.check_add(emb)
        self._rows.put(emb)
        self._blocks = None

    def remove(self, ids: Sequence[str]) -> int:
        """Remove ids and return how many were there; the rows behind them move up."""
        rows = self._rows.find(ids)
        if len(rows):
            self._rows.remove(rows)
            self._blocks = None
        return len(rows)

    def search(self, queries: Embeddings, k: int, where: Mask | None = None) -> Hits:
        """Return the k nearest of each query among the rows that ``where`` (bool ``[n]``) allows.

        Raises
        ------
        InputError
            If ``k`` is smaller than 1 or ``where`` does not fit.
        SpaceMismatch
            If the queries are of another space.
        """
        return self._rows.answer(queries, k, where, self._fill)

    def _fill(self, asked: Asked, mask: Mask | None, matches: int, k: int, out: Results) -> None:
        """Write the k best rows of each query, the signs read once for `TOGETHER` queries."""
        keep = min(matches, max(k * self.oversample[1], 20))
        want = min(matches, max(k * self.oversample[0], 64))
        few = min(matches, want) == matches or matches * PER_ROW < len(self)
        for part in blocks(len(asked.bytes), TOGETHER):
            some, best = take(asked, part), (out[0][part], out[1][part], out[2][part])
            if few:
                self._scan(some, mask, keep, k, best)
            else:
                self._cascade(some, mask, want, keep, k, best)

    def _scan(self, asked: Asked, mask: Mask | None, keep: int, k: int, out: Results) -> None:
        picked = np.empty(0, np.int64) if mask is None else np.flatnonzero(mask)
        scan_rows(self._rows.coded, asked, picked, keep, k, *out)

    def _cascade(self, asked: Asked, mask: Mask | None, want: int, keep: int, k: int, out: Results) -> None:
        if self._blocks is None:
            self._blocks = self._rows.blocks_of_signs()
        q, width = asked.bytes.shape
        near, found = np.empty((q, 2 * want + 128), np.uint16), np.empty((q, 2 * want + 128), np.int32)
        held, bar = np.zeros(q, np.int64), np.full(q, width, np.int64)
        allowed = np.empty(0, np.uint8) if mask is None else mask.view(np.uint8)
        histogram = np.zeros((q, width + 2), np.int32)
        scan_signs(self._blocks, len(self), asked, allowed, want, near, found, held, bar, histogram)
        narrow(self._rows.coded, asked, found, held, keep, k, *out)

    def exhaustive(self, queries: Embeddings, k: int, where: Mask | None = None) -> Hits:
        """Return the k nearest of each query by all 8 bits of every row: slow, and all that `search` could find."""
        return self._rows.exhaustive(queries, k, where)

    def save(self, path: str | Path) -> None:
        """Write to a folder, whole or not at all."""
        facts = {"space": self.space.to_json(), "oversample": list(self.oversample), "seed": self.seed}
        write_folder(path, "code-scan", facts, self._rows.files())

    @classmethod
    def load(cls, path: str | Path, *, mmap: bool = False) -> Self:
        """Read what `save` wrote; with ``mmap`` the codes stay on disk until they are needed.

        Raises
        ------
        StoreError
            If there is no such index; `CorruptStore` if a checksum does not fit.
        """
        folder = Folder.open(path, "code-scan")
        facts = folder.facts
        first, second = facts["oversample"]
        index = cls(Space.from_json(facts["space"]), oversample=(first, second), seed=facts["seed"])
        index._rows.restore(folder, mmap=mmap)
        return index
