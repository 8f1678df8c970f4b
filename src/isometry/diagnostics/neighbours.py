"""Exact nearest neighbours, shared by every diagnosis that needs distances."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from isometry.diagnostics.sphere import Array, blocks
from isometry.errors import DimensionMismatch, InputError
from isometry.types import IntArray, check_vectors

# Candidates beyond k that the float32 pass hands to the exact float64 pass.
_SPARE = 8


def knn(vectors: Any, k: int, *, queries: Any = None) -> tuple[Array, IntArray]:
    """Exact k nearest neighbours under Euclidean distance.

    A float32 product proposes k + 8 candidates, which are measured again in float64. A row whose candidates are not
    separated from the rest by more than the rounding error of the product is searched again in float64, so the result
    equals brute force. On unit rows the order is that of cosine similarity.

    Parameters
    ----------
    vectors
        ``[n, d]``.
    k
        Neighbours per row.
    queries
        ``[m, d]``; None searches the neighbours of the vectors themselves, each without itself.

    Returns
    -------
    tuple
        Distances float64 ``[m, k]`` in ascending order and rows int64 ``[m, k]``; equal distances
        among the candidates come by row.

    Raises
    ------
    InputError
        If there are fewer than k neighbours to find.

    Examples
    --------
    >>> knn([[0.0], [1.0], [3.0]], 1)[1].ravel().tolist()
    [1, 0, 1]
    """
    check_vectors(vectors)
    points = np.asarray(vectors, np.float64)
    own = queries is None
    asked = points if own else np.asarray(queries, np.float64)
    if not own:
        check_vectors(asked, dim=points.shape[1], what="queries")
    if not 1 <= k <= len(points) - own:
        raise InputError(f"k must lie between 1 and {len(points) - own} for {len(points)} vectors, got {k}.")
    # Centring keeps the distances and takes away the digits a common offset would cost.
    centre = points.mean(axis=0)
    points, asked = points - centre, asked - centre
    search = _Search(points, k, own)
    found = [search(asked[start:stop], start) for start, stop in blocks(len(asked), max(len(points), _cost(k, points)))]
    if not found:
        return np.empty((0, k)), np.empty((0, k), np.int64)
    return np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found])


def _cost(k: int, points: Array) -> int:
    return (k + _SPARE) * int(points.shape[1])


class _Search:
    """Brute force over centred points, one block of queries at a time."""

    def __init__(self, points: Array, k: int, own: bool) -> None:
        self.points, self.k, self.own = points, k, own
        self.single = points.astype(np.float32)
        self.squares = np.einsum("ij,ij->i", points, points)
        self.width = min(k + _SPARE + own, len(points))
        if not np.isfinite(self.squares).all():
            raise DimensionMismatch("vectors are too large for squared distances; scale them down.")

    def __call__(self, asked: Array, start: int) -> tuple[Array, IntArray]:
        scores = self.squares.astype(np.float32) - 2.0 * (asked.astype(np.float32) @ self.single.T)
        if self.own:
            scores[np.arange(len(asked)), np.arange(start, start + len(asked))] = np.inf
        if self.width == len(self.points):
            candidates = np.broadcast_to(np.arange(self.width), (len(asked), self.width))
            unsure = np.zeros(len(asked), bool)
        else:
            candidates = np.argpartition(scores, self.width - 1, axis=1)[:, : self.width]
            kept = np.take_along_axis(scores, candidates, axis=1)
            kth = np.partition(kept, self.k - 1, axis=1)[:, self.k - 1]
            unsure = kept.max(axis=1) - kth <= 2.0 * self._rounding(asked, np.float32)
        distance, rows = self._measure(asked, candidates, np.arange(start, start + len(asked)))
        if unsure.any():
            again = np.flatnonzero(unsure)
            distance[again], rows[again] = self._doubly(asked[again], start + again)
        return distance, rows

    def _doubly(self, asked: Array, own: IntArray) -> tuple[Array, IntArray]:
        """Candidates from a float64 product, for rows whose float32 scores are too close to call."""
        scores = self.squares - 2.0 * (asked @ self.points.T)
        if self.own:
            scores[np.arange(len(asked)), own] = np.inf
        candidates = np.argsort(scores, axis=1, kind="stable")[:, : self.width]
        distance, rows = self._measure(asked, candidates, own)
        kept = np.take_along_axis(scores, candidates, axis=1)
        unsure = kept[:, -1] - kept[:, self.k - 1] <= 2.0 * self._rounding(asked, np.float64)
        # Copies at distance 0 cannot be beaten; anything else this close is measured against every point.
        for i in np.flatnonzero(unsure & (distance[:, -1] > 0)):
            everything = np.arange(len(self.points))[None]
            distance[i], rows[i] = (part[0] for part in self._measure(asked[i : i + 1], everything, own[i : i + 1]))
        return distance, rows

    def _rounding(self, asked: Array, precision: type[np.floating[Any]]) -> Array:
        """Bound on the error of a score: d terms of a dot product, the squares and the casts."""
        largest = np.sqrt(self.squares.max())
        size = largest * (2.0 * np.linalg.norm(asked, axis=1) + largest)
        return np.asarray((asked.shape[1] + 4) * float(np.finfo(precision).eps) * size, np.float64)

    def _measure(self, asked: Array, candidates: NDArray[np.int64], own: IntArray) -> tuple[Array, IntArray]:
        difference = self.points[candidates] - asked[:, None, :]
        distance = np.sqrt(np.einsum("qcd,qcd->qc", difference, difference))
        if self.own:
            distance[candidates == own[:, None]] = np.inf
        order = np.lexsort((candidates, distance), axis=1)[:, : self.k]
        return np.take_along_axis(distance, order, axis=1), np.take_along_axis(candidates, order, axis=1)
