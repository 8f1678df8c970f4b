"""Statistical depth of texts: how central an embedding is in a corpus (TTE depth).

A distance-based angular depth on the unit sphere: D(x, F) = sup(d) - E over h in F of d(x, h), for d the cosine, chord
or arc distance. Deep texts are typical of the corpus, shallow ones are its outliers. Seegmiller and Preum, EMNLP 2023.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from isometry.diagnostics.sphere import DIAMETER, Array, Distance, check_distance, mean_distances, unit_rows
from isometry.errors import DimensionMismatch, InputError
from isometry.types import IntArray


def cosine_depth(points: Any, reference: Any, *, in_sample: bool) -> Array:
    """Cosine depth in closed form, O((m + n) d): 1 + <u(x), mean of u(h)>.

    Equal to `angular_depth` with the cosine distance; the order is that of the dot product with the mean direction.

    Parameters
    ----------
    points
        ``[m, d]``.
    reference
        ``[n, d]``.
    in_sample
        True if row i of ``points`` is row i of ``reference``: an item is then measured against the other n - 1. It is
        never guessed from the shapes.

    Returns
    -------
    NDArray
        float64 ``[m]`` in [0, 2].

    Examples
    --------
    >>> corpus = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    >>> cosine_depth(corpus, corpus, in_sample=True).tolist()
    [1.5, 1.5, 1.0]
    >>> cosine_depth([[-1.0, 0.0]], corpus, in_sample=False).round(4).tolist()
    [0.3333]
    """
    unit, corpus = _prepare(points, reference, in_sample)
    dots = unit @ corpus.sum(axis=0)
    mean = (dots - 1.0) / (len(corpus) - 1) if in_sample else dots / len(corpus)
    return np.asarray(np.clip(1.0 + mean, 0.0, 2.0), np.float64)


def angular_depth(points: Any, reference: Any, *, in_sample: bool, distance: Distance = "cosine") -> Array:
    """Angular distance-based depth of ``points`` in ``reference``, float64 ``[m]`` in [0, sup of the distance].

    Parameters are those of `cosine_depth`, with the distance: ``"cosine"`` (closed form), ``"chord"`` or ``"arc"``
    (blocked, O(m n d) time, constant memory).

    Raises
    ------
    InputError
        If ``in_sample`` is set and the two are not the same rows, or a vector is zero (named by row).
    """
    check_distance(distance)
    if distance == "cosine":
        return cosine_depth(points, reference, in_sample=in_sample)
    unit, corpus = _prepare(points, reference, in_sample)
    return DIAMETER[distance] - mean_distances(unit, corpus, distance, in_sample=in_sample)


def _prepare(points: Any, reference: Any, in_sample: bool) -> tuple[Array, Array]:
    corpus = unit_rows(reference, "reference")
    if points is reference:
        unit = corpus
    else:
        unit = unit_rows(points, "points")
        if unit.shape[1] != corpus.shape[1]:
            raise DimensionMismatch(f"points must be {corpus.shape[1]} wide like the reference, got {unit.shape[1]}.")
    if in_sample and unit is not corpus and not np.array_equal(unit, corpus):
        raise InputError("in_sample=True needs the points to be the rows of the reference, in order; they differ.")
    if in_sample and len(corpus) < 2:
        raise InputError("in-sample depth compares a text with the others and needs at least two.")
    return unit, corpus


@dataclass(frozen=True, eq=False)
class DepthProfile:
    """Centre-outward order of a corpus.

    ``depths`` float64 ``[n]``; ``ranks`` float64 ``[n]``, 1 = deepest, ties share the mean rank; ``order`` int64
    ``[n]``, rows deepest first, ties by row.
    """

    depths: Array
    ranks: Array
    order: IntArray

    @property
    def median(self) -> int:
        """Row of the deepest text, the corpus's spatial median among its own texts."""
        return int(self.order[0])

    def outliers(self, count: int) -> IntArray:
        """Rows of the ``count`` shallowest texts, shallowest first."""
        return self.order[::-1][:count]

    def contour(self, share: float) -> float:
        """Depth that encloses the deepest ``share`` of the corpus (0 < share <= 1)."""
        if not 0.0 < share <= 1.0:
            raise InputError(f"share must lie in (0, 1], got {share}.")
        return float(np.quantile(self.depths, 1.0 - share))


def depth_profile(vectors: Any, distance: Distance = "cosine") -> DepthProfile:
    """Depth of every text in its own corpus, each left out of its own mean."""
    depths = angular_depth(vectors, vectors, in_sample=True, distance=distance)
    return DepthProfile(depths, np.asarray(rankdata(-depths), np.float64), np.argsort(-depths, kind="stable"))


def cluster_depth(vectors: Any, labels: Sequence[Hashable] | NDArray[Any], distance: Distance = "cosine") -> Array:
    """Depth of every text within its own cluster, float64 ``[n]``; NaN for the only text of a cluster.

    In a corpus of several topics the globally deep texts lie between the topics; these are deep in their own.
    """
    unit = unit_rows(vectors)
    depths = np.full(len(unit), np.nan)
    for rows in _rows_by_label(labels, len(unit)).values():
        if len(rows) > 1:
            members = unit[rows]
            depths[rows] = angular_depth(members, members, in_sample=True, distance=distance)
    return depths


def select_deepest(
    vectors: Any, labels: Sequence[Hashable] | NDArray[Any], k: int, distance: Distance = "cosine"
) -> dict[Any, IntArray]:
    """Depth-based example selection: rows of the k deepest texts of every class, deepest first.

    A class of fewer than k gives all it has. Classes come in order of first appearance.

    Raises
    ------
    InputError
        If k < 1 or labels and vectors differ in number.
    """
    if k < 1:
        raise InputError(f"k must be at least 1, got {k}.")
    depths = cluster_depth(vectors, labels, distance)
    groups = _rows_by_label(labels, len(depths))
    return {label: rows[np.argsort(-depths[rows], kind="stable")[:k]] for label, rows in groups.items()}


def _rows_by_label(labels: Sequence[Hashable] | NDArray[Any], n: int) -> dict[Any, IntArray]:
    values = labels.tolist() if isinstance(labels, np.ndarray) else list(labels)
    if len(values) != n:
        raise InputError(f"{n} vectors need {n} labels, got {len(values)}.")
    groups: dict[Any, list[int]] = {}
    for row, label in enumerate(values):
        groups.setdefault(label, []).append(row)
    return {label: np.asarray(rows, np.int64) for label, rows in groups.items()}
