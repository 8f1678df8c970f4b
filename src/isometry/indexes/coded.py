"""A flat index over the codes of any `isometry.codes.Code`, ranked again by original vectors where there are any."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from isometry.codes import Code
from isometry.errors import InputError, NotFitted
from isometry.indexes.exact import Lookup
from isometry.indexes.folder import Folder, array, text, write_folder
from isometry.indexes.recall import Approximate
from isometry.indexes.rows import blocks, check_search, find_rows, require_comparable, require_single
from isometry.protocols import Mask
from isometry.types import Embeddings, FloatArray, Hits, IntArray, Space, check_vectors, id_array, unit

SCORED = 1 << 22  # scores held at once


class Coded(Approximate):
    """Flat scan of packed codes by asymmetric scores: float queries against coded vectors.

    Parameters
    ----------
    space
        Space of the vectors: cosine, dot or euclidean.
    code
        A fitted code of that width; vectors added later are coded by it as it is.
    source
        ``ids -> [n, d]`` original vectors (of a file, a database): the ``oversample * k`` best by codes are then ranked
        by these.
    oversample
        Candidates per answer when there is a ``source``.

    Raises
    ------
    NotFitted
        If the code is not fitted.
    InputError
        If the space compares by another similarity, or an argument is out of range.
    """

    exact: ClassVar[bool] = False

    def __init__(self, space: Space, code: Code, *, source: Lookup | None = None, oversample: int = 4) -> None:
        require_comparable(space)
        if code.dim_ is None:
            raise NotFitted(f"The {type(code).__name__} of this index is not fitted; fit it with training vectors.")
        if code.dim != space.dim or oversample < 1:
            raise InputError(
                f"The code is for {code.dim}-d vectors, the space has {space.dim} dimensions; fit one for this space."
                if code.dim != space.dim
                else f"oversample must be at least 1, got {oversample}."
            )
        self.space, self.code, self.source, self.oversample = space, code, source, oversample
        self._ids: NDArray[np.object_] = id_array([])
        self._position: dict[str, int] = {}
        self._codes = np.empty((0, code.code_bytes), np.uint8)
        self._squares: FloatArray = np.empty(0, np.float32)

    @property
    def ids(self) -> NDArray[np.object_]:
        """Ids held, ``[n]``, in the order that ``where`` masks refer to."""
        return self._ids

    @property
    def nbytes(self) -> int:
        """Bytes resident: codes and what they share; ids not counted."""
        return self._codes.nbytes + self._squares.nbytes + self.code.overhead_bytes

    def __len__(self) -> int:
        return len(self._ids)

    def _shaped(self, x: FloatArray) -> FloatArray:
        directions = self.space.similarity == "cosine" and not self.space.normalized
        return unit(x.astype(np.float64)).astype(np.float32) if directions else x

    def add(self, emb: Embeddings) -> None:
        """Add vectors; an id that is there keeps its row and gets the new vector.

        Raises
        ------
        SpaceMismatch
            If the embeddings are of another space.
        """
        self.space.check(emb.space)
        require_single(emb)
        last = {identity: i for i, identity in enumerate(emb.ids.tolist())}
        if not last:
            return
        codes = self.code.transform(self._shaped(emb.vectors[np.fromiter(last.values(), np.int64, len(last))]))
        ids, known = id_array(last), np.asarray([identity in self._position for identity in last])
        if known.any():
            self._codes = np.array(self._codes)
            self._codes[[self._position[i] for i in ids[known].tolist()]] = codes[known]
        self._set(np.concatenate([self._codes, codes[~known]]), np.concatenate([self._ids, ids[~known]]))

    def remove(self, ids: Sequence[str]) -> int:
        """Remove ids and return how many were there; the rows behind them move up."""
        keep = np.ones(len(self), bool)
        keep[find_rows(self._position, ids)] = False
        gone = int((~keep).sum())
        if gone:
            self._set(self._codes[keep], self._ids[keep])
        return gone

    def _set(self, codes: NDArray[np.uint8], ids: NDArray[np.object_]) -> None:
        self._codes, self._ids = codes, ids
        self._position = {identity: i for i, identity in enumerate(ids.tolist())}
        euclidean = self.space.similarity == "euclidean"
        self._squares = self.code.norms(codes) ** 2 if euclidean and len(ids) else np.empty(0, np.float32)

    def search(self, queries: Embeddings, k: int, where: Mask | None = None) -> Hits:
        """Return the k nearest of each query among the rows that ``where`` (bool ``[n]``) allows.

        Raises
        ------
        InputError
            If ``k`` is smaller than 1 or ``where`` does not fit.
        SpaceMismatch
            If the queries are of another space.
        """
        mask = check_search(self.space, len(self), queries, k, where)
        allowed = None if mask is None else np.flatnonzero(mask)
        q, n = self._shaped(queries.vectors), len(self) if allowed is None else len(allowed)
        depth = min(n, k if self.source is None else k * self.oversample)
        rows: list[list[tuple[str, float]]] = []
        for part in blocks(len(q), max(1, SCORED // max(1, n))) if depth else ():
            for query, place in zip(q[part], self._nearest(q[part], allowed, depth), strict=True):
                rows.append(self._settled(query, place))
        return Hits.build(queries.ids, rows if depth else [[]] * len(q), k=k)

    def _nearest(self, q: FloatArray, allowed: IntArray | None, depth: int) -> list[IntArray]:
        scores = self.code.score(q, self._codes if allowed is None else self._codes[allowed])
        if self.space.similarity == "euclidean":
            squares = self._squares if allowed is None else self._squares[allowed]
            asked = np.einsum("qd,qd->q", q, q)[:, None]
            scores = -np.sqrt(np.maximum(asked + squares - 2 * scores, 0)).astype(np.float32)
        found = []
        for row in scores:
            bar = np.partition(row, len(row) - depth)[len(row) - depth]
            place = np.flatnonzero(row >= bar)  # with all that tie at the bar
            found.append(place if allowed is None else allowed[place])
        return found

    def _settled(self, query: FloatArray, place: IntArray) -> list[tuple[str, float]]:
        """Score rows one by one in double precision, so that no score depends on what else is in the batch."""
        ids = self._ids[place].tolist()
        if self.source is None:
            x = self.code.inverse_transform(self._codes[place]).astype(np.float64)
        else:
            x = check_vectors(self.source(ids), dim=self.space.dim, what="source vectors").astype(np.float64)
            if len(x) != len(ids):
                raise InputError(f"source must return one vector per id, got {len(x)} for {len(ids)} ids.")
            x = unit(x) if self.space.similarity == "cosine" and not self.space.normalized else x
        if self.space.similarity == "euclidean":
            scores = -np.linalg.norm(x - query, axis=1)
        else:
            scores = np.einsum("nd,d->n", x, query.astype(np.float64))
        return list(zip(ids, scores.tolist(), strict=True))

    def exhaustive(self, queries: Embeddings, k: int, where: Mask | None = None) -> Hits:
        """Return the k nearest of each query by the ``source`` of every row (by its code without one): slow."""
        twin = copy.copy(self)
        twin.oversample = max(1, len(self))
        return twin.search(queries, k, where)

    def save(self, path: str | Path) -> None:
        """Write codes and code to a folder, whole or not at all; a ``source`` is not saved."""
        ids = json.dumps(self._ids.tolist(), ensure_ascii=False)
        files: dict[str, Any] = {
            "codes.npy": array(self._codes),
            "ids.json": text(ids),
            "code.safetensors": self.code.save,
        }
        write_folder(path, "coded", {"space": self.space.to_json(), "code": self.code.fingerprint}, files)

    @classmethod
    def load(cls, path: str | Path, *, mmap: bool = False, source: Lookup | None = None, oversample: int = 4) -> Self:
        """Read what `save` wrote; with ``mmap`` the codes stay on disk until they are needed.

        Raises
        ------
        StoreError
            If there is no such index; `CorruptStore` if a checksum does not fit.
        """
        folder = Folder.open(path, "coded")
        code = Code.load(folder.files["code.safetensors"])
        index = cls(Space.from_json(folder.facts["space"]), code, source=source, oversample=oversample)
        index._set(folder.array("codes.npy", mmap=mmap), id_array(json.loads(folder.text("ids.json"))))
        return index
