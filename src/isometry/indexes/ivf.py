"""An inverted file over nested codes: lists around centroids, the nearest of them scanned by 4 bits, ranked by 8."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from isometry.codes.product import kmeans, nearest
from isometry.errors import CorruptStore, InputError
from isometry.indexes.code_kernels import Asked
from isometry.indexes.code_rows import CodeRows, Results
from isometry.indexes.folder import Folder, array, write_folder
from isometry.indexes.ivf_kernels import Lists, probe_lists
from isometry.indexes.recall import Approximate
from isometry.indexes.rows import blocks
from isometry.protocols import Mask
from isometry.types import Embeddings, FloatArray, Hits, IntArray, Space

GROWN: Final = 4  # times as many rows as at the last training: train again
SAMPLE: Final = 32  # rows a list to train on
ROUNDS: Final = 8  # of k-means
DECODED: Final = 1 << 14  # rows decoded at once
# The default of ``probes``: this share of the ten nearest of so many rows lies in the lists probed; at least FEWEST.
MEASURED: Final = {"rows": 64, "k": 10, "share": 0.99}
FEWEST: Final = 8


class IVF(Approximate):
    """Inverted file index (Jegou, Douze & Schmid 2011, "IVFADC") over the codes of `isometry.codes.RotatedCode`.

    k-means divides the space; a row is listed under its nearest centroid. The lists of the centroids nearest to a
    query are scanned by 4 bits a dimension, the ``oversample * k`` best of their rows ranked by 8 bits and the query
    in full precision. Quick to build and to change. Always returns ``min(k, matches)`` rows: further lists are probed
    until enough rows are met, under a filter as many as are met without one.

    Centroids are trained by the first `add`, and again when there are four times as many rows as then.

    Parameters
    ----------
    space
        Space of the vectors: cosine, dot or euclidean. Lists are probed by distance; by dot product where vectors of
        any length are compared by it.
    lists
        How many; None: ``4 sqrt(n)`` of the n rows at each training.
    probes
        Lists that a search visits; None: measured at each training, so that they hold 99 % of the ten nearest of 64
        rows, at least 8. Queries unlike the rows may need more: `check` tells.
    seed
        Of the codes' rotation, the training and the rows measured.
    oversample
        Candidates per answer that are ranked by 8 bits.

    Raises
    ------
    InputError
        If the space compares by another similarity, or an argument is out of range.
    """

    exact: ClassVar[bool] = False

    def __init__(
        self, space: Space, *, lists: int | None = None, probes: int | None = None, seed: int = 0, oversample: int = 3
    ) -> None:
        given = [value for value in (lists, probes, oversample) if value is not None]
        if any(not isinstance(value, int) or value < 1 for value in given):
            raise InputError(
                "IVF needs lists >= 1, probes >= 1 (None: chosen from the data) and oversample >= 1, "
                f"got {lists}, {probes} and {oversample}."
            )
        self.space, self.lists, self.probes, self.seed, self.oversample = space, lists, probes, seed, oversample
        self._rows = CodeRows(space, seed=seed, signs=False)
        self._centroids: FloatArray = np.empty((0, space.dim), np.float32)
        self._home: NDArray[np.int32] = np.empty(0, np.int32)  # list of each row
        self._trained = self._measured = 0  # rows at the last training, and the probes they needed
        self._lists: Lists | None = None

    @property
    def ids(self) -> NDArray[np.object_]:
        """Ids held, ``[n]``, in the order that ``where`` masks refer to."""
        return self._rows.ids

    @property
    def nbytes(self) -> int:
        """Bytes resident: codes, centroids and lists; ids not counted."""
        listed = 0 if self._lists is None else sum(int(part.nbytes) for part in self._lists[1:])
        return self._rows.nbytes + self._centroids.nbytes + self._home.nbytes + listed

    @property
    def probed(self) -> int:
        """Lists that a search visits as things are."""
        return min(len(self._centroids), self.probes or max(FEWEST, self._measured))

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, emb: Embeddings) -> None:
        """Add vectors; an id that is there keeps its row and gets the new vector.

        Raises
        ------
        SpaceMismatch
            If the embeddings are of another space.
        InputError
            If ``lists`` are asked for and the first vectors are fewer.
        """
        self._rows.check_add(emb)
        n, least = len(self._rows.position.keys() | set(emb.ids.tolist())), self.lists or 1
        if len(emb) and not len(self._centroids) and n < least:
            raise InputError(f"{least} lists need as many vectors to begin with, got {n}; add more or ask for fewer.")
        rows = self._rows.put(emb)
        if not len(rows):
            return
        self._lists = None
        if n >= max(least, GROWN * self._trained):
            self._train()
        else:
            self._home = np.r_[self._home, np.empty(n - len(self._home), np.int32)]
            self._home[rows] = self._nearest(rows)

    def _train(self) -> None:
        """Place the centroids anew, list every row and measure how many lists to probe."""
        n, rng = len(self), np.random.default_rng(self.seed)
        count = self.lists or min(n, round(4 * math.sqrt(n)))
        sample = self._rows.decode(np.sort(rng.permutation(n)[: SAMPLE * count]))
        self._centroids = sample[np.sort(rng.permutation(len(sample))[:count])]
        kmeans(sample, self._centroids, ROUNDS)
        self._home, self._trained = self._nearest(np.arange(n)), n
        self._measured = self._measure(np.sort(rng.permutation(n)[: MEASURED["rows"]]))

    def _nearest(self, rows: IntArray) -> NDArray[np.int32]:
        """List of each of the rows, as their codes tell."""
        parts = [nearest(self._rows.decode(rows[part]), self._centroids) for part in blocks(len(rows), DECODED)]
        return np.concatenate(parts)

    def _half(self) -> FloatArray:
        """What to take off a query's dot product with each centroid, to order lists as the space compares."""
        if self.space.similarity == "dot" and not self.space.normalized:
            return np.zeros(len(self._centroids), np.float32)
        return np.asarray(0.5 * np.einsum("ld,ld->l", self._centroids, self._centroids), np.float32)

    def _measure(self, rows: IntArray) -> int:
        """Lists to probe so that they hold almost all of the rows' nearest other rows."""
        x = self._rows.decode(rows)
        (found, _, _), _ = self._rows.best(x, np.arange(len(self)), min(len(self), int(MEASURED["k"]) + 1))
        near = x @ self._centroids.T - self._half()
        listed = np.take_along_axis(near, self._home[found].astype(np.int64), axis=1)
        needed = [(row > bar[:, None]).sum(axis=1) + 1 for row, bar in zip(near, listed, strict=True)]
        others = np.asarray(needed)[found != rows[:, None]]
        return int(np.quantile(others, MEASURED["share"], method="higher")) if len(others) else 1

    def _inverted(self) -> Lists:
        if self._lists is None:
            sizes = np.bincount(self._home, minlength=len(self._centroids))
            rows = np.argsort(self._home, kind="stable").astype(np.int32)
            self._lists = Lists(self._centroids, self._half(), np.r_[0, np.cumsum(sizes)].astype(np.int64), rows)
        return self._lists

    def remove(self, ids: Sequence[str]) -> int:
        """Remove ids and return how many were there; the rows behind them move up."""
        rows = self._rows.find(ids)
        if len(rows):
            self._rows.remove(rows)
            self._home, self._lists = np.delete(self._home, rows), None
            self._trained = self._trained if len(self) else 0  # what comes next may lie elsewhere
        return len(rows)

    def search(self, queries: Embeddings, k: int, where: Mask | None = None) -> Hits:
        """Return the k nearest of each query in the lists probed, among the rows that ``where`` (bool ``[n]``) allows.

        Raises
        ------
        InputError
            If ``k`` is smaller than 1 or ``where`` does not fit.
        SpaceMismatch
            If the queries are of another space.
        """

        def fill(asked: Asked, mask: Mask | None, matches: int, k: int, out: Results) -> None:
            keep = min(matches, max(k * self.oversample, 20))
            # A filter's matches lie farther out: looking at as many rows as without it costs no more and keeps recall.
            usual = 0 if mask is None else math.ceil(len(self) * self.probed / len(self._centroids))
            least = min(matches, max(keep, usual))
            allowed = np.empty(0, np.uint8) if mask is None else mask.view(np.uint8)
            inverted, vectors = self._inverted(), self._rows.shaped(queries.vectors)
            probe_lists(self._rows.coded, asked, inverted, vectors, allowed, self.probed, least, keep, k, *out)

        return self._rows.answer(queries, k, where, fill)

    def exhaustive(self, queries: Embeddings, k: int, where: Mask | None = None) -> Hits:
        """Return the k nearest of each query by all 8 bits of every row: slow, and all that `search` could find."""
        return self._rows.exhaustive(queries, k, where)

    def save(self, path: str | Path) -> None:
        """Write codes, lists and settings to a folder, whole or not at all."""
        settings = {name: getattr(self, name) for name in ("lists", "probes", "seed", "oversample")}
        facts = {"space": self.space.to_json(), "settings": settings}
        files = {"centroids.npy": array(self._centroids), "home.npy": array(self._home)}
        counts = {"trained": self._trained, "measured": self._measured}
        write_folder(path, "ivf", facts | counts, self._rows.files() | files)

    @classmethod
    def load(cls, path: str | Path, *, mmap: bool = False) -> Self:
        """Read what `save` wrote; with ``mmap`` the codes stay on disk until they are needed.

        Raises
        ------
        StoreError
            If there is no such index; `CorruptStore` if a checksum does not fit.
        """
        folder = Folder.open(path, "ivf")
        index = cls(Space.from_json(folder.facts["space"]), **folder.facts["settings"])
        index._rows.restore(folder, mmap=mmap)
        index._centroids, index._home = folder.array("centroids.npy"), folder.array("home.npy")
        index._trained, index._measured = folder.facts["trained"], folder.facts["measured"]
        if len(index._home) != len(index):
            raise CorruptStore(f"The lists in {path} hold {len(index._home)} rows, not {len(index)}; rebuild it.")
        return index
