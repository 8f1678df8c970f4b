"""Search over learned binary codes: blocked scan, inverted lists, float rerank, and which encoders may meet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isometry.codes.code import Bytes, directions
from isometry.codes.product import kmeans, nearest
from isometry.codes.recurrent_binary.transform import RecurrentBinaryCode, coded_cosines
from isometry.errors import DimensionMismatch, EmptyInput, InputError, SpaceMismatch
from isometry.types import FloatArray, IntArray, check_vectors

_ROWS = 16384  # codes compared at once


class CodeSearch:
    """Ranked rows by cosine of codes: a flat scan, or inverted lists (IVF) under k-means centroids of the codes.

    Codes of several encoders may lie side by side (an index that is being refreshed) as long as every query's code
    accepts all of them: its own, and those it was trained to be compatible with.

    Examples
    --------
    >>> x = np.eye(16, dtype=np.float32)
    >>> code = RecurrentBinaryCode(64, training={"epochs": 0}).fit(x)
    >>> index = CodeSearch().add(code, code.transform(x))
    >>> index.search(code, code.transform(x[:3]), 1)[0].ravel().tolist()
    [0, 1, 2]
    """

    def __init__(self) -> None:
        self.codes: Bytes = np.zeros((0, 0), np.uint8)
        self.owners: NDArray[np.str_] = np.zeros(0, np.str_)  # of each row, its encoder's fingerprint
        self.shape: tuple[int, int] | None = None
        self.lists: tuple[FloatArray, IntArray, IntArray] | None = None

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def encoders(self) -> dict[str, int]:
        """Rows held by the fingerprint of their encoder."""
        names, counts = np.unique(self.owners, return_counts=True)
        return dict(zip(names.tolist(), counts.tolist(), strict=True))

    def add(self, code: RecurrentBinaryCode, codes: Any) -> CodeSearch:
        """Append codes ``[n, code_bytes]`` that ``code`` made; inverted lists have to be built again.

        Raises
        ------
        SpaceMismatch
            If the index holds codes of other bits or rounds, or of an encoder neither of the two declares compatible.
        """
        codes = code._checked(codes)
        _check(code, self.encoders)
        self.shape, self.lists = (code.bits, code.rounds), None
        self.codes = codes if not len(self.codes) else np.vstack([self.codes, codes])
        self.owners = np.concatenate([self.owners, np.full(len(codes), code.fingerprint)])
        return self

    def replace(self, code: RecurrentBinaryCode, rows: slice, codes: Any) -> CodeSearch:
        """Return an index in which the codes of ``rows`` are new ones (a step of a refresh)."""
        fresh = CodeSearch()
        fresh.shape, fresh.codes, fresh.owners = self.shape, self.codes.copy(), self.owners.copy()
        fresh.codes[rows], fresh.owners[rows] = code._checked(codes), code.fingerprint
        _check(code, fresh.encoders)
        return fresh

    def build_lists(self, code: RecurrentBinaryCode, lists: int, *, iterations: int = 10, seed: int = 0) -> CodeSearch:
        """Cluster the codes (k-means of their unit values) into inverted lists."""
        if not 1 <= lists <= len(self):
            raise InputError(f"lists must be 1 to the {len(self)} codes held, got {lists}.")
        unit = directions(code.values(self.codes))
        sample = np.random.default_rng(seed).permutation(len(unit))[: max(lists, 64 * lists)]
        centroids = unit[sample[:lists]].copy()
        kmeans(unit[sample], centroids, iterations)
        owner = nearest(unit, centroids)
        order = np.argsort(owner, kind="stable")
        self.lists = centroids, order, np.searchsorted(owner[order], np.arange(lists + 1))
        return self

    def search(
        self, code: RecurrentBinaryCode, queries: Any, k: int, *, probes: int | None = None,
        rerank: tuple[Any, Any] | None = None, shortlist: int = 100,
    ) -> tuple[IntArray, FloatArray]:  # fmt: skip
        """Return the rows int64 ``[q, k]`` and their cosines float32, best first, smaller row first among equals.

        Parameters
        ----------
        code, queries
            The encoder of the queries and their codes ``[q, code_bytes]``.
        k
            Rows wanted, at most as many as there are; where the probed lists hold fewer, -1 and -inf fill up.
        probes
            Inverted lists looked into; None: all codes.
        rerank, shortlist
            Second stage: float vectors of (queries ``[q, d]``, rows held ``[n, d]``); the best ``shortlist`` rows by
            code are ranked again by cosine of the floats.

        Raises
        ------
        SpaceMismatch
            If the index holds codes the query encoder does not accept.
        """
        if not len(self) or k < 1:
            raise EmptyInput(f"Searching needs codes and k >= 1; there are {len(self)} codes and k = {k}.")
        _check(code, self.encoders)
        queries = code._checked(queries)
        depth = min(k if rerank is None else max(k, shortlist), len(self))
        rows, scores = self._scan(queries, depth) if probes is None else self._probe(code, queries, depth, probes)
        if rerank is None:
            return rows, scores
        if [len(part) for part in rerank] != [len(queries), len(self)]:
            raise DimensionMismatch(
                f"The rerank needs vectors of the {len(queries)} queries and {len(self)} rows, "
                f"got {len(rerank[0])} and {len(rerank[1])}."
            )
        return _rerank(rows, *rerank, min(k, len(self)))

    def _scan(self, queries: Bytes, k: int) -> tuple[IntArray, FloatArray]:
        assert self.shape is not None
        rows, scores = np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0), np.float32)
        for start in range(0, len(self), _ROWS):
            found = coded_cosines(queries, self.codes[start : start + _ROWS], self.shape[1])
            at = np.broadcast_to(np.arange(start, start + found.shape[1]), found.shape)
            rows, scores = _best(np.hstack([rows, at]), np.hstack([scores, found]), k)
        return rows, scores

    def _probe(self, code: RecurrentBinaryCode, queries: Bytes, k: int, probes: int) -> tuple[IntArray, FloatArray]:
        if self.lists is None or probes < 1:
            raise InputError(f"Probing needs inverted lists (build_lists) and probes >= 1, got {probes}.")
        centroids, order, starts = self.lists
        near = np.argsort(
            (centroids * centroids).sum(axis=1) - 2 * directions(code.values(queries)) @ centroids.T, axis=1
        )[:, :probes]
        rows, scores = np.full((len(queries), k), -1), np.full((len(queries), k), -np.inf, np.float32)
        for i, lists in enumerate(near):
            at = np.sort(np.concatenate([order[starts[c] : starts[c + 1]] for c in lists]))
            found = coded_cosines(queries[i : i + 1], self.codes[at], code.rounds)
            best, values = _best(at[None], found, min(k, len(at)))
            rows[i, : best.shape[1]], scores[i, : best.shape[1]] = best[0], values[0]
        return rows, scores


def _check(code: RecurrentBinaryCode, held: Iterable[str]) -> None:
    """Raise `SpaceMismatch` if ``code`` does not accept codes of every fingerprint in ``held``."""
    if refused := sorted(f for f in held if not code.accepts(f)):
        raise SpaceMismatch(
            f"{code.fingerprint} does not declare itself compatible with the codes of {refused}; train it with "
            "fit_pairs(old=...), or code everything anew."
        )


def _best(rows: IntArray, scores: FloatArray, k: int) -> tuple[IntArray, FloatArray]:
    """The k best columns of each row, rows given in ascending order among equal scores."""
    if scores.shape[1] > k:
        cut = np.partition(scores, -k, axis=1)[:, -k][:, None]
        place = (scores <= cut).astype(np.int8) + (scores < cut)  # 0 above the k-th score, 1 equal to it, 2 below
        keep = np.argsort(place, axis=1, kind="stable")[:, :k]
        rows, scores = np.take_along_axis(rows, keep, 1), np.take_along_axis(scores, keep, 1)
    order = np.lexsort((rows, -scores), axis=1)
    return np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)


def _rerank(rows: IntArray, queries: Any, vectors: Any, k: int) -> tuple[IntArray, FloatArray]:
    """Rank candidates by cosine of the floats; -1 stays last."""
    q = directions(check_vectors(queries, what="queries of the rerank"))
    x = check_vectors(vectors, dim=q.shape[1], what="vectors of the rerank")
    found = np.empty(rows.shape, np.float32)
    for i, candidates in enumerate(rows):
        kept = candidates >= 0
        found[i] = -np.inf
        found[i, kept] = directions(x[candidates[kept]]) @ q[i]
    return _best(rows, found, k)
