"""Personalised PageRank, by power iteration, by local push, or exactly; and the best paths of few hops."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isometry.errors import InputError
from isometry.types import IntArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Array = NDArray[np.float64]


def personalised_pagerank(
    transition: csr_array, seeds: Any, *, alpha: float = 0.3, tolerance: float = 1e-8, iterations: int = 50
) -> Array:
    """Personalised PageRank by power iteration: ``p <- alpha p0 + (1 - alpha) P^T p``.

    A random walk that returns to the seeds with probability alpha at every step, and always from an item without
    edges, so that p sums to 1 (Haveliwala, Topic-Sensitive PageRank, WWW 2002).

    Parameters
    ----------
    transition
        P, sparse ``[n, n]``; rows sum to 1, or to 0 for items without edges.
    seeds
        p0 ``[n]``: at least 0, sums to 1.
    alpha
        In (0, 1]; at 1 the result is p0.
    tolerance, iterations
        Stop once p changes by less than this in sum, or after so many steps.

    Returns
    -------
    Array
        float64 ``[n]``.

    Raises
    ------
    InputError
        If alpha is outside (0, 1], or the seeds are not a distribution over the items.
    """
    p0 = _checked(transition, seeds, alpha)
    back, dangling = transition.T.tocsr(), _dangling(transition)
    p = p0
    for _ in range(iterations):
        step = alpha * p0 + (1 - alpha) * (back @ p + p[dangling].sum() * p0)
        done = np.abs(step - p).sum() < tolerance
        p = step
        if done:
            break
    return np.asarray(p, np.float64)


def exact_pagerank(transition: csr_array, seeds: Any, *, alpha: float = 0.3) -> Array:
    """Personalised PageRank by solving ``(I - (1 - alpha) P^T) y = p0`` and scaling y to sum to 1.

    The scaling is what the mass that returns from items without edges amounts to, since it goes to p0 too. Arguments
    as for `personalised_pagerank`.
    """
    from scipy.sparse import eye_array
    from scipy.sparse.linalg import spsolve

    p0 = _checked(transition, seeds, alpha)
    y = spsolve((eye_array(len(p0)) - (1 - alpha) * transition.T).tocsc(), p0)
    return np.asarray(y / y.sum(), np.float64)


def push_pagerank(transition: csr_array, seeds: Any, *, alpha: float = 0.3, epsilon: float = 1e-6) -> Array:
    """Personalised PageRank by local push, at a cost of O(1 / (alpha epsilon)) whatever n is.

    Mass waits at items as a residual; one with more than ``epsilon`` times its number of edges keeps alpha of it and
    hands the rest on. What is still waiting at the end, at most epsilon times the number of edges, is all that is
    missing (Andersen, Chung and Lang, Local Graph Partitioning using PageRank Vectors, FOCS 2006). Other arguments as
    for `personalised_pagerank`.
    """
    p0 = _checked(transition, seeds, alpha)
    if not epsilon > 0:
        raise InputError(f"epsilon must be above 0, got {epsilon!r}.")
    start, column, value = transition.indptr, transition.indices, transition.data
    bound = epsilon * np.maximum(np.diff(start), 1)
    p, waiting = np.zeros(len(p0)), p0.copy()
    home = np.flatnonzero(p0)
    queue = deque(home.tolist())
    queued = set(queue)
    while queue:
        i = queue.popleft()
        queued.discard(i)
        mass = waiting[i]
        if mass <= bound[i]:
            continue
        p[i] += alpha * mass
        waiting[i] = 0
        span = slice(start[i], start[i + 1])
        reached, share = (column[span], value[span]) if start[i] < start[i + 1] else (home, p0[home])
        waiting[reached] += (1 - alpha) * mass * share
        for j in reached[waiting[reached] > bound[reached]].tolist():
            if j not in queued:
                queued.add(j)
                queue.append(j)
    return p


class Paths(NamedTuple):
    """The best path to each item.

    ``value`` float64 ``[n]`` is its product, 0 where there is none; ``hops`` int64 ``[h + 1, n]`` the edges and
    ``before`` int64 ``[h + 1, n]`` the item before the last (-1: none) of the best path of at most 0, 1, ... h hops.
    """

    value: Array
    hops: IntArray
    before: IntArray

    def to(self, i: int) -> list[int]:
        """Items of the path to i, a source first; empty where there is none."""
        if self.value[i] <= 0:
            return []
        path, most = [int(i)], len(self.hops) - 1
        while (hops := int(self.hops[most, path[-1]])) > 0:
            path.append(int(self.before[most, path[-1]]))
            most = hops - 1
        return path[::-1]


def best_paths(weights: csr_array, sources: Any, *, hops: int = 2, gamma: float = 0.7) -> Paths:
    """Hop decay: the largest ``source value * product of (gamma * weight)`` over the paths of at most so many hops.

    Parameters
    ----------
    weights
        Sparse ``[n, n]`` with values in [0, 1], so that a longer path through the same items is never better.
    sources
        Value of each item as a start, ``[n]``, at least 0.
    hops
        At least 0.
    gamma
        In (0, 1].

    Raises
    ------
    InputError
        If any of these is out of range.
    """
    value = np.asarray(sources, np.float64).copy()
    if value.shape != (weights.shape[0],) or (value < 0).any() or not np.isfinite(value).all():
        raise InputError(f"Sources must be {weights.shape[0]} numbers of at least 0.")
    if hops < 0 or not 0 < gamma <= 1:
        raise InputError(f"Paths need hops of at least 0 and gamma in (0, 1], got {hops} and {gamma!r}.")
    if weights.nnz and not (weights.data.min() >= 0 and weights.data.max() <= 1 + 1e-9):
        raise InputError("Hop decay needs weights in [0, 1]; divide them by the largest.")
    before, count = np.full((hops + 1, len(value)), -1), np.zeros((hops + 1, len(value)), np.int64)
    changed = np.flatnonzero(value)
    for hop in range(1, hops + 1):
        before[hop], count[hop] = before[hop - 1], count[hop - 1]
        edges = weights[changed].tocoo()
        offered = gamma * edges.data * value[changed][edges.row]
        # The best offer to each target first, the lowest source of equals.
        order = np.lexsort((changed[edges.row], -offered, edges.col))
        target, first = np.unique(edges.col[order], return_index=True)
        offered, source = offered[order][first], changed[edges.row[order][first]]
        better = offered > value[target] * (1 + 1e-12)
        changed = target[better]
        value[changed], before[hop, changed], count[hop, changed] = offered[better], source[better], hop
    return Paths(value, count, before)


def _dangling(transition: csr_array) -> IntArray:
    return np.flatnonzero(np.diff(transition.indptr) == 0)


def _checked(transition: csr_array, seeds: Any, alpha: float) -> Array:
    p0 = np.asarray(seeds, np.float64)
    if not 0 < alpha <= 1:
        raise InputError(f"alpha, the probability to return to the seeds, must lie in (0, 1], got {alpha!r}.")
    if p0.shape != (transition.shape[0],) or not (p0 >= 0).all() or abs(p0.sum() - 1) > 1e-6:
        raise InputError(f"The seeds must be {transition.shape[0]} probabilities that sum to 1.")
    return p0
