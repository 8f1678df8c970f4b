"""Set functions over a pool of candidates, and greedy algorithms that maximise them.

A set function is grown one element at a time: `gains` says what each further element would add, `add` takes one.
"""

from __future__ import annotations

import heapq
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from isometry.errors import InputError, UnknownName
from isometry.types import IntArray

Array = NDArray[np.float64]
Solver = Literal["lazy", "naive", "stochastic"]


class SetFunction(ABC):
    """A set function F over elements 0 .. n - 1 with F(empty) = 0, and the set taken so far.

    ``submodular``: gains never rise as the set grows, which the lazy algorithm and the (1 - 1/e) guarantee rest on.
    """

    submodular: bool = True
    n: int

    @abstractmethod
    def reset(self) -> None:
        """Go back to the empty set."""

    @abstractmethod
    def gains(self, rows: IntArray) -> Array:
        """F(S + i) - F(S) of each row i, ``[len(rows)]``; of one that was taken already its gain as a copy."""

    @abstractmethod
    def take(self, i: int) -> None:
        """Put element i into the set."""

    def add(self, i: int) -> float:
        """Put element i into the set and return what it added."""
        gain = float(self.gains(np.asarray([i]))[0])
        self.take(i)
        return gain

    def value(self, subset: Iterable[int]) -> float:
        """F of a set of elements; leaves the function at the empty set."""
        self.reset()
        total = sum(self.add(int(i)) for i in subset)
        self.reset()
        return float(total)


class Modular(SetFunction):
    """A sum of fixed values of at least 0, such as relevance."""

    def __init__(self, values: Any) -> None:
        self.values = _nonnegative(values, "values")
        self.n = len(self.values)

    def reset(self) -> None:
        """Nothing is kept."""

    def gains(self, rows: IntArray) -> Array:
        """The values."""
        return np.asarray(self.values[rows], np.float64)

    def take(self, i: int) -> None:
        """Nothing changes."""


class FacilityLocation(SetFunction):
    """Coverage: the sum over the pool of w_v times the similarity of v to the most similar element taken.

    Parameters
    ----------
    similarity
        ``[n, n]``, at least 0 (see `isometry.ranking.affinity`).
    weights
        How much each member of the pool counts, at least 0; default 1.

    References
    ----------
    Nemhauser, Wolsey and Fisher, An analysis of approximations for maximizing submodular set functions (1978).
    """

    def __init__(self, similarity: Any, weights: Any = None) -> None:
        self.similarity = _square(similarity)
        self.n = len(self.similarity)
        self.weights = np.ones(self.n) if weights is None else _nonnegative(weights, "weights", self.n)
        self.reset()

    def reset(self) -> None:
        """Nothing is covered."""
        self.covered = np.zeros(self.n)

    def gains(self, rows: IntArray) -> Array:
        """Weighted rise of each member's best similarity."""
        # Summed along each row, so that a gain does not depend on which others are asked for.
        return np.asarray((np.maximum(self.similarity[rows] - self.covered, 0) * self.weights).sum(axis=1), np.float64)

    def take(self, i: int) -> None:
        """Cover the pool by i too."""
        np.maximum(self.covered, self.similarity[i], out=self.covered)


class SaturatedCoverage(SetFunction):
    """Coverage up to a limit: the sum over the pool of min(similarity to all taken, gamma * similarity to all).

    Parameters
    ----------
    similarity
        ``[n, n]``, at least 0.
    gamma
        Share of a member's whole similarity at which it counts as covered, in (0, 1].

    References
    ----------
    Lin and Bilmes, A Class of Submodular Functions for Document Summarization, ACL 2011, equation 4.
    """

    def __init__(self, similarity: Any, gamma: float = 0.1) -> None:
        if not 0 < gamma <= 1:
            raise InputError(f"gamma must lie in (0, 1], got {gamma!r}.")
        self.similarity = _square(similarity)
        self.n, self.limit = len(self.similarity), gamma * self.similarity.sum(axis=1)
        self.reset()

    def reset(self) -> None:
        """Nothing is covered."""
        self.covered = np.zeros(self.n)

    def gains(self, rows: IntArray) -> Array:
        """Rise of the capped sums."""
        room = np.maximum(self.limit - self.covered, 0)
        return np.asarray(np.minimum(self.similarity[rows], room).sum(axis=1), np.float64)

    def take(self, i: int) -> None:
        """Add i's similarity to every sum."""
        self.covered += self.similarity[i]


class ClusterReward(SetFunction):
    """Diversity reward: the sum over clusters of the square root of the mass taken from each.

    Parameters
    ----------
    labels
        Cluster of each element, ``[n]``.
    mass
        Mass of each element, at least 0; default 1.

    References
    ----------
    Lin and Bilmes, A Class of Submodular Functions for Document Summarization, ACL 2011, equation 5.
    """

    def __init__(self, labels: Any, mass: Any = None) -> None:
        self.labels = np.unique(np.asarray(labels), return_inverse=True)[1].ravel()
        self.n = len(self.labels)
        self.mass = np.ones(self.n) if mass is None else _nonnegative(mass, "mass", self.n)
        self.reset()

    def reset(self) -> None:
        """No cluster has anything."""
        self.taken = np.zeros(int(self.labels.max(initial=-1)) + 1)

    def gains(self, rows: IntArray) -> Array:
        """Rise of the root of each row's cluster."""
        before = self.taken[self.labels[rows]]
        return np.asarray(np.sqrt(before + self.mass[rows]) - np.sqrt(before), np.float64)

    def take(self, i: int) -> None:
        """Add i's mass to its cluster."""
        self.taken[self.labels[i]] += self.mass[i]


class Dispersion(SetFunction):
    """Sum of dissimilarities ``1 - similarity`` over the pairs taken (max-sum dispersion).

    Not submodular: gains rise with the set. Greedy still reaches half of the optimum where the dissimilarity is a
    metric (Ravi, Rosenkrantz and Tayi 1994; Borodin, Lee and Ye, PODS 2012).
    """

    submodular = False

    def __init__(self, similarity: Any) -> None:
        self.apart = 1 - _square(similarity)
        self.n = len(self.apart)
        self.reset()

    def reset(self) -> None:
        """Nothing is taken."""
        self.total = np.zeros(self.n)

    def gains(self, rows: IntArray) -> Array:
        """Sum of dissimilarities to those taken."""
        return np.asarray(self.total[rows], np.float64)

    def take(self, i: int) -> None:
        """Add the dissimilarities to i."""
        self.total += self.apart[i]


class Mixture(SetFunction):
    """A weighted sum of set functions over the same elements, ``[(weight, function), ...]``, weights at least 0."""

    def __init__(self, parts: Sequence[tuple[float, SetFunction]]) -> None:
        if not parts or len({f.n for _, f in parts}) > 1:
            raise InputError("A mixture needs at least one set function, all over the same elements.")
        if not all(np.isfinite(w) and w >= 0 for w, _ in parts):
            raise InputError(f"Weights of a mixture must be at least 0, got {[w for w, _ in parts]}.")
        self.parts = [(float(w), f) for w, f in parts if w > 0]
        self.n = parts[0][1].n
        self.submodular = all(f.submodular for _, f in self.parts)

    @classmethod
    def normalised(cls, parts: Sequence[tuple[float, SetFunction]], k: int) -> Mixture:
        """Divide each function by what greedy reaches with k elements for it alone, so that weights compare."""
        tops = [sum(greedy(f, k).gains) if w > 0 and f.n else 1.0 for w, f in parts]
        for _, f in parts:
            f.reset()
        return cls([(w / top if top > 0 else w, f) for (w, f), top in zip(parts, tops, strict=True)])

    def reset(self) -> None:
        """Reset every part."""
        for _, part in self.parts:
            part.reset()

    def gains(self, rows: IntArray) -> Array:
        """Weighted sum of the parts' gains."""
        return sum((w * f.gains(rows) for w, f in self.parts), start=np.zeros(len(rows)))

    def take(self, i: int) -> None:
        """Put i into every part."""
        for _, part in self.parts:
            part.take(i)


@dataclass(frozen=True)
class Selection:
    """Elements in the order taken, and what each added."""

    rows: list[int]
    gains: list[float]


def greedy(function: SetFunction, k: int, *, solver: Solver = "lazy", epsilon: float = 0.1, seed: int = 0) -> Selection:
    """Maximise a set function greedily: k times the element that adds most, the first one of equals.

    For monotone submodular functions the result reaches at least (1 - 1/e) of the optimum (Nemhauser, Wolsey and
    Fisher 1978). Gains are compared in single precision, so that rounding does not decide between equals.

    Parameters
    ----------
    function
        Where the set grows; it is reset first, and left at what was selected.
    k
        How many elements; all n if there are fewer.
    solver
        ``"lazy"`` keeps old gains as upper bounds in a heap (Minoux 1978): the result of ``"naive"``, which looks at
        every element each time, at less cost; a function that is not submodular is always solved naively.
        ``"stochastic"`` looks at a random ``n / k * ln(1 / epsilon)`` elements each time (Mirzasoleiman et al., Lazier
        Than Lazy Greedy, AAAI 2015), which reaches (1 - 1/e - epsilon) in expectation.
    epsilon, seed
        Of the stochastic algorithm.

    Examples
    --------
    >>> greedy(FacilityLocation([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]]), 2).rows
    [0, 2]
    """
    if solver not in get_args(Solver):
        raise UnknownName("solver", str(solver), get_args(Solver))
    if k < 0 or not 0 < epsilon < 1:
        raise InputError(f"Greedy needs k of at least 0 and epsilon in (0, 1), got {k} and {epsilon!r}.")
    function.reset()
    k = min(k, function.n)
    if solver == "lazy" and function.submodular:
        return _lazy(function, k)
    rng = np.random.default_rng(seed)
    size = max(1, math.ceil(function.n / max(k, 1) * math.log(1 / epsilon)))
    left = np.arange(function.n)
    taken: list[int] = []
    gains: list[float] = []
    for _ in range(k):
        some = left if solver != "stochastic" else np.sort(rng.permutation(left)[:size])
        best = int(some[function.gains(some).astype(np.float32).argmax()])
        taken.append(best)
        gains.append(function.add(best))
        left = left[left != best]
    return Selection(taken, gains)


def _lazy(function: SetFunction, k: int) -> Selection:
    first = function.gains(np.arange(function.n)).astype(np.float32).tolist()
    heap = [(-gain, i, 0) for i, gain in enumerate(first)]
    heapq.heapify(heap)
    taken: list[int] = []
    gains: list[float] = []
    while len(taken) < k:
        _, i, seen = heapq.heappop(heap)
        gain = function.gains(np.asarray([i]))
        if seen < len(taken):
            heapq.heappush(heap, (-float(gain.astype(np.float32)[0]), i, len(taken)))
            continue
        taken.append(i)
        gains.append(float(gain[0]))
        function.take(i)
    return Selection(taken, gains)


def best_subset(function: SetFunction, k: int, *, limit: int = 200_000) -> tuple[tuple[int, ...], float]:
    """The best set of min(k, n) elements and its value, by enumeration; the first one of equals.

    Raises
    ------
    InputError
        If there are more than ``limit`` sets to look at.
    """
    k = min(k, function.n)
    if (count := math.comb(function.n, k)) > limit:
        raise InputError(f"There are {count:,} sets of {k} among {function.n}; enumeration stops at {limit:,}.")
    values = ((subset, function.value(subset)) for subset in itertools.combinations(range(function.n), k))
    return max(values, key=lambda pair: pair[1])


def farthest_first(similarity: Any, count: int) -> IntArray:
    """Cluster labels ``[n]`` around ``count`` centres, each the element least like the centres before it.

    Gonzalez's traversal (1985), which starts at the first element; an element joins the centre it is most like.
    """
    s = _square(similarity)
    if not len(s):
        return np.empty(0, np.int64)
    centres = [0]
    nearest = s[0].copy()
    while len(centres) < min(count, len(s)):
        centres.append(int(nearest.argmin()))
        nearest = np.maximum(nearest, s[centres[-1]])
    return np.asarray(s[:, centres].argmax(axis=1), np.int64)


def _square(similarity: Any) -> Array:
    s = np.ascontiguousarray(similarity, np.float64)
    if s.ndim != 2 or s.shape[0] != s.shape[1] or not np.isfinite(s).all() or (s < 0).any():
        raise InputError("A similarity must be a finite square matrix without negative values; clip cosines at 0.")
    return s


def _nonnegative(values: Any, what: str, n: int | None = None) -> Array:
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or (n is not None and len(array) != n) or not np.isfinite(array).all() or (array < 0).any():
        raise InputError(f"The {what} must be one finite number of at least 0 per element.")
    return array
