"""Late-interaction search: candidates from fixed dimensional encodings, ranked by exact MaxSim."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Final, Self, cast

import numpy as np
from numpy.typing import NDArray

from isometry.errors import CorruptStore, InputError, StoreError
from isometry.indexes.exact import Exact
from isometry.indexes.folder import MANIFEST, Folder, array, write_folder
from isometry.indexes.ragged_rows import RaggedRows
from isometry.indexes.rows import DType
from isometry.protocols import Index, Mask
from isometry.spaces import FDE, carve_queries
from isometry.types import Embeddings, FloatArray, Hits, IntArray, Space, id_array

First = Callable[[Space], Index]

SCORES: Final = 1 << 22  # MaxSim scores held at once: 16 MiB
ENCODED: Final = 1 << 24  # numbers of encodings held at once while adding
SMALL: Final = 1000  # items up to which scoring all of them costs less than finding candidates
CANDIDATES: Final = 200  # candidates a search ranks at least, unless told how many
PER_ANSWER: Final = 20  # candidates per answer


def coarse(space: Space) -> Index:
    """The first stage there is unless another is asked for: exact search over int8 encodings."""
    return Exact(space, dtype="int8")


class MultiVectorIndex:
    """Two-stage multi-vector search: fixed dimensional encodings, then exact MaxSim (MUVERA, arXiv:2405.19504).

    Parameters
    ----------
    space
        Space of the tokens; compared by ``"maxsim"``.
    fde
        How an item becomes one vector; fitted here unless it is already. None: every search scores every item.
    first
        ``space -> index`` of the encodings; any single-vector index that compares by dot product.
    dtype
        How tokens are kept for MaxSim: ``"float32"``, ``"float16"`` or ``"int8"`` (a scale per token).
    carve
        Dot product from which query tokens are merged before MaxSim (ball carving; the paper's is 0.7). None: never.

    Raises
    ------
    InputError
        If the space is not compared by MaxSim, or the encoding centres and is not fitted.
    SpaceMismatch
        If the encoding was fitted to another space.

    Examples
    --------
    >>> from isometry.types import id_array
    >>> tokens = np.array([[1, 0], [0, 1], [1, 0], [-1, 0]], np.float32)
    >>> emb = Embeddings(tokens, id_array("abc"), Space("toy", 2, similarity="maxsim"), offsets=np.array([0, 2, 3, 4]))
    >>> index = MultiVectorIndex(emb.space, fde=FDE(repetitions=4, k_sim=1))
    >>> index.add(emb)
    >>> index.search(emb.take([0]), k=2).row(0)
    [('a', 2.0), ('b', 1.0)]
    """

    exact: ClassVar[bool] = False

    def __init__(
        self,
        space: Space,
        *,
        fde: FDE | None = None,
        first: First = coarse,
        dtype: DType = "float32",
        carve: float | None = None,
    ) -> None:
        if space.similarity != "maxsim":
            raise InputError(f"This index compares sets of tokens by maxsim, not by {space.similarity}; use Exact.")
        if fde is not None and not fde.fitted:
            if fde.center:
                raise InputError("An encoding that centres must be fitted to token embeddings first: fde.fit(emb).")
            none = Embeddings(np.empty((0, space.dim), np.float32), id_array(()), space, offsets=np.zeros(1, np.int64))
            fde = replace(fde).fit(none)
        if fde is not None:
            fde.source.check(space)
        self.space, self.fde, self.dtype, self.carve = space, fde, dtype, carve
        self._tokens = RaggedRows(space, dtype)
        self._first = None if fde is None else first(fde.space)
        self._order: IntArray | None = None

    @property
    def ids(self) -> NDArray[np.object_]:
        """Ids held, ``[n]``, in the order that ``where`` masks refer to."""
        return self._tokens.ids

    def __len__(self) -> int:
        return len(self._tokens)

    def add(self, emb: Embeddings) -> None:
        """Add items; an id that is there keeps its position and gets the new tokens.

        Raises
        ------
        SpaceMismatch
            If the embeddings are of another space.
        InputError
            If they are not multi-vector, or an item has no token.
        """
        self._check(emb, "documents")
        coded = self._tokens.encode(emb)
        if self.fde is not None and self._first is not None:
            size = max(1, ENCODED // self.fde.dim)
            for encodings in [self.fde.transform(emb)] if len(emb) <= size else self.fde.shards(emb, size):
                self._first.add(encodings)
        self._tokens.put(coded)
        self._order = None

    def remove(self, ids: Sequence[str]) -> int:
        """Remove ids and return how many were there; the items behind them move up."""
        rows = self._tokens.find(ids)
        if len(rows):
            if self._first is not None:
                self._first.remove(self.ids[rows].tolist())
            self._tokens.remove(rows)
            self._order = None
        return len(rows)

    def search(self, queries: Embeddings, k: int, where: Mask | None = None, *, candidates: int | None = None) -> Hits:
        """Return the k best of each query by MaxSim, among the candidates that its encoding finds.

        Parameters
        ----------
        queries
            Multi-vector queries of this index's space.
        k
            How many answers; fewer come only where fewer items are allowed.
        where
            bool ``[n]``: items allowed, in the order of `ids`.
        candidates
            How many items of each query's encoding are scored, at least k. None: 20 per answer and at least 200, and
            all where that costs less. As many as there are: exact.

        Raises
        ------
        InputError
            If an argument is out of range, or a query has no token.
        SpaceMismatch
            If the queries are of another space.
        """
        allowed = self._allowed(queries, k, where, candidates)
        asked = queries if self.carve is None else carve_queries(queries, self.carve)
        n = len(allowed)
        wanted = max(CANDIDATES, PER_ANSWER * k) if candidates is None else max(candidates, k)
        everything = n <= wanted or (candidates is None and n <= SMALL)
        if self.fde is None or self._first is None or everything:
            return self._answer(queries, self._all(asked, allowed, k))
        encoded = self.fde.transform_query(queries)
        found = self._first.search(encoded, wanted, None if where is None else self._mask(where))
        return self._answer(queries, self._among(asked, found, k))

    def _check(self, emb: Embeddings, what: str) -> IntArray:
        from isometry.indexes.maxsim import ragged

        self.space.check(emb.space)
        return ragged(emb, what)

    def _allowed(self, queries: Embeddings, k: int, where: Mask | None, candidates: int | None) -> IntArray:
        """Check the arguments of a search and return the positions allowed."""
        self._check(queries, "queries")
        for name, value in (("k", k), ("candidates", k if candidates is None else candidates)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise InputError(f"{name} must be a whole number of at least 1, got {value!r}.")
        if where is None:
            return np.arange(len(self))
        mask = np.asarray(where)
        if mask.dtype != bool or mask.shape != (len(self),):
            raise InputError(
                f"where must be a boolean mask of shape ({len(self)},), one entry per item of the index, "
                f"got {mask.dtype} of shape {mask.shape}."
            )
        return np.flatnonzero(mask)

    def _mask(self, where: Mask) -> Mask:
        """``where`` in the order of the first stage's rows."""
        if self._order is None:
            position, first = self._tokens.position, cast(Index, self._first)
            self._order = np.asarray([position[i] for i in first.ids.tolist()], np.int64)
        return np.asarray(where)[self._order]

    def scores(self, queries: Embeddings, rows: IntArray) -> FloatArray:
        """MaxSim of queries with the items at positions ``rows``, float32 ``[q, r]``, by what is kept of them."""
        from isometry.indexes.maxsim import scan

        t = self._tokens
        return scan(t.codes, t.scale, t.starts[rows], t.counts[rows], queries.vectors, self._check(queries, "queries"))

    def _all(self, queries: Embeddings, allowed: IntArray, k: int) -> list[tuple[IntArray, FloatArray]]:
        size = max(1, SCORES // max(1, len(allowed)))
        best = []
        for start in range(0, len(queries), size):
            batch = queries if size >= len(queries) else queries.take(np.arange(start, min(start + size, len(queries))))
            best += [self._best(allowed, row, k) for row in self.scores(batch, allowed)]
        return best

    def _among(self, queries: Embeddings, found: Hits, k: int) -> list[tuple[IntArray, FloatArray]]:
        position, best = self._tokens.position, []
        for i in range(len(queries)):
            rows = np.asarray([position[identity] for identity in found.ids[found.span(i)].tolist()], np.int64)
            rows.sort()  # read the tokens in the order they lie
            query = queries if len(queries) == 1 else queries.take([i])
            best.append(self._best(rows, self.scores(query, rows)[0], k))
        return best

    def _best(self, rows: IntArray, scores: FloatArray, k: int) -> tuple[IntArray, FloatArray]:
        """The k best rows and their scores, falling, ties by rising id."""
        if len(rows) > k:
            keep = scores >= np.partition(scores, len(scores) - k)[len(scores) - k]
            rows, scores = rows[keep], scores[keep]
        by_id = np.argsort(self.ids[rows], kind="stable")
        order = by_id[np.argsort(-scores[by_id], kind="stable")][:k]
        return rows[order], scores[order]

    def _answer(self, queries: Embeddings, best: list[tuple[IntArray, FloatArray]]) -> Hits:
        rows = np.concatenate([np.empty(0, np.int64), *(row for row, _ in best)])
        scores = np.concatenate([np.empty(0, np.float32), *(score for _, score in best)])
        offsets = np.concatenate([[0], np.cumsum([len(row) for row, _ in best])]).astype(np.int64)
        return Hits(queries.ids, offsets, self.ids[rows], scores)

    def save(self, path: str | Path) -> None:
        """Write tokens, random maps and first stage to a folder, whole or not at all."""
        root = Path(path)
        facts: dict[str, Any] = {"space": self.space.to_json(), "dtype": self.dtype, "carve": self.carve}
        files = self._tokens.files()
        if self.fde is not None and self._first is not None:
            facts["fde"] = {"config": self.fde.config(), "source": self.fde.source.to_json()}
            files |= {f"fde_{name}.npy": array(value) for name, value in self.fde.state().items()}
            facts["first"] = self._save_first(root, self._first)
        write_folder(root, "multi_vector", facts, files)
        kept = facts.get("first", {}).get("folder")
        for old in root.glob("first-*"):
            if old.name != kept:
                shutil.rmtree(old, ignore_errors=True)

    @staticmethod
    def _save_first(root: Path, first: Index) -> dict[str, str]:
        """Save the first stage in a folder named by its content, and return what finds it again."""
        draft = root / "first-draft"
        shutil.rmtree(draft, ignore_errors=True)
        first.save(draft)
        digest = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(draft.glob(MANIFEST)))).hexdigest()
        target = root / f"first-{digest[:16]}"
        if target.exists():
            shutil.rmtree(draft)
        else:
            draft.replace(target)
        return {"folder": target.name, "sha256": digest, "class": f"{type(first).__module__}:{type(first).__name__}"}

    @classmethod
    def load(cls, path: str | Path, *, first: Callable[[Path], Index] | None = None) -> Self:
        """Read what `save` wrote.

        Parameters
        ----------
        path
            The folder.
        first
            Reader of the first stage, for an index class from outside this package.

        Raises
        ------
        StoreError
            If there is no such index; `CorruptStore` if a checksum does not fit.
        """
        folder = Folder.open(path, "multi_vector")
        space, facts = Space.from_json(folder.facts["space"]), folder.facts
        if "fde" not in facts:
            index = cls(space, dtype=facts["dtype"], carve=facts["carve"])
        else:
            state = {name[4:-4]: folder.array(name) for name in folder.files if name.startswith("fde_")}
            fde = FDE.restore(facts["fde"]["config"], Space.from_json(facts["fde"]["source"]), state)
            stage = _load_first(folder.root, facts["first"], first)
            index = cls(space, fde=fde, first=lambda _: stage, dtype=facts["dtype"], carve=facts["carve"])
        index._tokens.restore(folder)
        if index._first is not None and set(index._first.ids.tolist()) != set(index.ids.tolist()):
            raise CorruptStore(f"The first stage of the index in {path} holds other ids; rebuild the index.")
        return index


def _load_first(root: Path, facts: dict[str, str], read: Callable[[Path], Index] | None) -> Index:
    folder = root / facts["folder"]
    manifest = folder / MANIFEST
    if manifest.is_file() and hashlib.sha256(manifest.read_bytes()).hexdigest() != facts["sha256"]:
        raise CorruptStore(f"The first stage in {folder} does not fit its checksum; rebuild the index.")
    module, _, name = facts["class"].partition(":")
    if read is None:
        if not module.startswith("isometry.indexes."):
            raise StoreError(
                f"The first stage in {folder} is a {module}.{name}; pass its reader: load(path, first=...)."
            )
        read = getattr(import_module(module), name).load
    if not folder.is_dir():
        raise CorruptStore(f"The first stage {folder} is missing; rebuild the index.")
    return cast(Index, read(folder))
