"""How far classes lie apart: mean cosines within and between them, and neighbours of one class."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from isometry.errors import DimensionMismatch, InputError
from isometry.types import FloatArray, IntArray, check_vectors

CHUNK = 512


def class_separation(vectors: FloatArray, labels: Sequence[Hashable] | NDArray[np.generic]) -> NDArray[np.float64]:
    """Return each text's mean cosine to its own class less its mean cosine to the others, float64 ``[n]``.

    Parameters
    ----------
    vectors
        float32 ``[n, d]``, of any length but 0.
    labels
        The class of each.

    Returns
    -------
    Between -2 and 2; NaN for a text that is alone in its class.

    Raises
    ------
    InputError
        If there is one class only, or no class of two.

    Examples
    --------
    >>> class_separation(np.float32([[1, 0], [2, 0], [0, 1]]), ["a", "a", "b"])[:2]
    array([1., 1.])
    """
    unit, classes = _unit(vectors), _numbers(labels, len(vectors))
    count = np.bincount(classes)
    if len(count) < 2 or count.max() < 2:
        raise InputError(
            f"Class separation needs two classes, one of them with two texts; got {len(count)} of {len(classes)} texts."
        )
    sums = np.zeros((len(count), unit.shape[1]))
    np.add.at(sums, classes, unit)
    own = (unit * sums[classes]).sum(1)
    rest = unit @ sums.sum(0) - own
    size = count[classes]
    within = np.divide(own - 1.0, size - 1, out=np.full(len(unit), np.nan), where=size > 1)
    separation: NDArray[np.float64] = within - rest / (len(unit) - size)
    return separation


def neighbour_precision(
    queries: FloatArray,
    query_labels: Sequence[Hashable] | NDArray[np.generic],
    pool: FloatArray,
    pool_labels: Sequence[Hashable] | NDArray[np.generic],
    *,
    k: int = 10,
) -> NDArray[np.float64]:
    """Return for each query the share of its k nearest of the pool, by cosine, that are of its class (P@k, ``[n]``).

    Parameters
    ----------
    queries, pool
        float32 ``[n, d]`` and ``[m, d]``; no text of the queries should be in the pool.
    query_labels, pool_labels
        The class of each.
    k
        Neighbours, at most m; ties go to the first.

    Raises
    ------
    InputError
        If the pool holds fewer than k.

    Examples
    --------
    >>> pool = np.float32([[1, 0], [0.9, 0.1], [0, 1]])
    >>> neighbour_precision(pool[:1], ["a"], pool, ["a", "b", "a"], k=2)
    array([0.5])
    """
    query_unit, unit = _unit(queries), _unit(pool)
    if query_unit.shape[1] != unit.shape[1]:
        raise DimensionMismatch(f"Queries are {query_unit.shape[1]} wide and the pool {unit.shape[1]}; must be equal.")
    if not 1 <= k <= len(unit):
        raise InputError(f"k must be in 1..{len(unit)}, the size of the pool, got {k}.")
    if len(query_labels) != len(query_unit) or len(pool_labels) != len(unit):
        raise InputError(
            f"{len(query_unit)} queries and {len(unit)} texts of the pool need as many labels, got "
            f"{len(query_labels)} and {len(pool_labels)}."
        )
    numbers = _numbers([*query_labels, *pool_labels], len(query_unit) + len(unit))
    wanted, found = numbers[: len(query_unit)], numbers[len(query_unit) :]
    precision = np.empty(len(query_unit))
    for start in range(0, len(query_unit), CHUNK):
        order = np.argsort(-(query_unit[start : start + CHUNK] @ unit.T), axis=1, kind="stable")[:, :k]
        precision[start : start + CHUNK] = (found[order] == wanted[start : start + CHUNK, None]).mean(1)
    return precision


def _unit(vectors: FloatArray) -> NDArray[np.float64]:
    checked = check_vectors(vectors).astype(np.float64)
    length = np.linalg.norm(checked, axis=1, keepdims=True)
    if not (length > 0).all():
        raise InputError(f"Vector {int((length == 0).argmax())} has length 0 and no direction to compare.")
    unit: NDArray[np.float64] = checked / length
    return unit


def _numbers(labels: Sequence[Hashable] | NDArray[np.generic], n: int) -> IntArray:
    """Return class numbers in order of appearance, int64 ``[n]``."""
    if len(labels) != n:
        raise InputError(f"{n} vectors need {n} labels, got {len(labels)}.")
    known: dict[Hashable, int] = {}
    values = labels.tolist() if isinstance(labels, np.ndarray) else labels
    return np.array([known.setdefault(label, len(known)) for label in values], np.int64)
