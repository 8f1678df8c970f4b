"""Evolutionary search over small tuples of whole numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Candidate = tuple[int, ...]


def evolve(
    start: Sequence[Candidate], score: Callable[[Candidate], float], allowed: Callable[[Candidate], bool],
    choices: Sequence[Sequence[int]], *, generations: int = 30, mutations: int = 10, crossovers: int = 10,
    rate: float = 0.1, seed: int = 0,
) -> tuple[Candidate, list[float]]:  # fmt: skip
    """Search by mutation and crossover, always keeping the best candidates (tuples: no child can alter its parent).

    Parameters
    ----------
    start
        First candidates; those not allowed are left out.
    score
        What to maximise; called once per distinct candidate.
    allowed
        Whether a candidate may be scored.
    choices
        Values each position may take.
    generations, mutations, crossovers
        Rounds, and children of either kind in each.
    rate
        Probability that a mutation changes a position (one at least).

    Returns
    -------
    tuple
        The best candidate, and the best score after every round (never falling).
    """
    rng = np.random.default_rng(seed)
    known = {c: score(c) for c in dict.fromkeys(map(tuple, start)) if allowed(c)}
    size, best = max(2, len(known)), list[float]()
    for _ in range(generations):
        parents = sorted(known, key=known.__getitem__, reverse=True)[:size]
        children = [_mutated(parents[int(rng.integers(len(parents)))], choices, rate, rng) for _ in range(mutations)]
        for _ in range(crossovers):
            one, other = (parents[int(i)] for i in rng.integers(len(parents), size=2))
            swap = rng.random(len(one)) < 0.5
            children.append(tuple(a if s else b for a, b, s in zip(one, other, swap, strict=True)))
        for child in children:
            if child not in known and allowed(child):
                known[child] = score(child)
        best.append(max(known.values()))
    return max(known, key=known.__getitem__), best


def _mutated(parent: Candidate, choices: Sequence[Sequence[int]], rate: float, rng: np.random.Generator) -> Candidate:
    change = rng.random(len(parent)) < rate
    change[rng.integers(len(parent))] = True
    return tuple(int(rng.choice(c)) if hit else old for old, c, hit in zip(parent, choices, change, strict=True))
