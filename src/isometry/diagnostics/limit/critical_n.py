"""Critical n: the most documents of which free optimisation can return every k-subset at a given width."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from isometry.diagnostics.limit.free_embeddings import Training, train_free_embeddings
from isometry.diagnostics.limit.patterns import all_subsets
from isometry.errors import DataFormatError, InputError
from isometry.files import write_whole
from isometry.types.progress import Progress

# Cubic fit of arXiv:2508.21038 for k = 2, by rising power of d; its published values by d.
PAPER_FIT = (-10.5322, 4.0309, 0.0520, 0.0037)
PAPER_POINTS = {4: 10, 5: 14, 6: 19, 7: 24, 8: 28, 16: 79, 32: 296, 45: 626}


@dataclass(frozen=True)
class CriticalN:
    """The largest n that was solved, and every attempt.

    Parameters
    ----------
    value
        Largest n for which at least one restart returned all k-subsets; k if none did.
    restarts
        Attempts allowed for each n: more restarts find more.
    attempts
        By n, the margin reached by each restart, in order; above 0 is a success, which ends the attempts for that n.
    """

    dim: int
    k: int
    value: int
    restarts: int
    attempts: Mapping[int, tuple[float, ...]]

    def __str__(self) -> str:
        tried = f"{self.restarts} restart{'s' if self.restarts > 1 else ''}"
        return f"critical n({self.dim}) = {self.value} for k = {self.k}, best of {tried}"


def paper_fit(dim: float) -> float:
    """Critical n of k = 2 by the paper's cubic fit, meant for dimensions of 4 and more."""
    return sum(c * dim**power for power, c in enumerate(PAPER_FIT))


def find_critical_n(
    dim: int,
    k: int = 2,
    *,
    restarts: int = 2,
    seed: int = 42,
    start: int | None = None,
    sweep: tuple[int, int] = (4, 5),
    training: Training = Training(),  # noqa: B008  a tuple cannot change
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> CriticalN:
    """Gallop, bisect and sweep for the largest n whose k-subsets `train_free_embeddings` all returns.

    Success is not monotone in n for a single start, so that the neighbourhood of the bisection's end is swept and the
    largest success counts. The value belongs to the optimiser, its budget and its restarts: `witness` solves every n
    in 2k dimensions, with a margin that vanishes.

    Parameters
    ----------
    restarts
        Seeds ``seed``, ``seed + 1`` ... tried for each n until one succeeds.
    start
        Where the gallop starts; ``dim + k`` where not given.
    sweep
        How far below and above the end of the bisection every n is tried.
    cache
        JSON file of attempts that is read, and written after every attempt, so that a search can be continued.
    progress
        Called with (attempts made, None).

    Raises
    ------
    InputError
        If ``restarts`` is below 1 or ``start`` is not above k.
    DataFormatError
        If the cache is no such file.
    """
    start = dim + k if start is None else start
    if restarts < 1 or start <= k:
        raise InputError(f"restarts must be at least 1 and start above k = {k}, got {restarts} and {start}.")
    attempts = _Attempts(dim, k, seed, restarts, training, None if cache is None else Path(cache), progress)
    low, high = (start, None) if attempts(start) else (k, start)
    reach = 1
    while high is None:
        low, high = (low + reach, None) if attempts(low + reach) else (low, low + reach)
        reach *= 2
    while low == k and high > k + 1:  # gallop down
        below = max(high - reach, k + 1)
        low, high = (below, high) if attempts(below) else (k, below)
        reach *= 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if attempts(middle) else (low, middle)
    for n in range(max(low - sweep[0], k + 1), low + sweep[1] + 1):
        attempts(n)
    solved = [n for n, margins in attempts.found.items() if max(margins) > 0]
    return CriticalN(dim, k, max(solved, default=k), restarts, dict(sorted(attempts.found.items())))


class _Attempts:
    """Trains for an n unless the cache knows how that went."""

    def __init__(
        self, dim: int, k: int, seed: int, restarts: int, training: Training, cache: Path | None,
        progress: Progress | None,
    ) -> None:  # fmt: skip
        self.dim, self.k, self.seed, self.restarts, self.training = dim, k, seed, restarts, training
        self.cache, self.progress, self.made = cache, progress, 0
        self.kept = _read(cache)
        self.found: dict[int, tuple[float, ...]] = {}

    def __call__(self, n: int) -> bool:
        """Whether one of the restarts returns every k-subset of n documents."""
        margins = list(self.found.get(n, ()))
        while len(margins) < self.restarts and max(margins, default=-1.0) <= 0:
            margins.append(self._margin(n, self.seed + len(margins)))
        self.found[n] = tuple(margins)
        return max(margins) > 0

    def _margin(self, n: int, seed: int) -> float:
        what = [n, self.dim, self.k, seed, *self.training._replace(device="", cells=0)]
        key = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
        if key not in self.kept:
            found = train_free_embeddings(all_subsets(n, self.k), self.dim, seed=seed, training=self.training)
            self.kept[key] = {"n": n, "d": self.dim, "k": self.k, "seed": seed, "accuracy": found.accuracy,
                              "margin": found.margin, "iterations": found.iterations}  # fmt: skip
            if self.cache is not None:
                self.cache.parent.mkdir(parents=True, exist_ok=True)
                write_whole(self.cache, json.dumps(self.kept, indent=1).encode())
        self.made += 1
        if self.progress is not None:
            self.progress(self.made, None)
        return float(self.kept[key]["margin"])


def _read(cache: Path | None) -> dict[str, dict[str, float]]:
    if cache is None or not cache.exists():
        return {}
    try:
        kept: dict[str, dict[str, float]] = json.loads(cache.read_text(encoding="utf-8"))
        [float(entry["margin"]) for entry in kept.values()]
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        problem = "this is no file of attempts; remove it or name another."
        raise DataFormatError(cache, None, problem) from error
    return kept
