"""Queries that name two topics alike, with candidates that say which one is meant: listwise ranking in the small.

Topics come in pairs. Topic t owns the words ``12 t ... 12 t + 11``, and each pair shares two more. A query is the two
shared words, so that nothing in it tells the topic from its twin; of its candidates five are of the topic, two of the
twin, three of others. Whoever sees the query alone can at best choose a twin at random, and has 5 or 3 of the first
five right, 0.8 on average.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from isometry.errors import InputError

OWN: Final = 12
SHARED: Final = 2
CANDIDATES: Final = 10
RELEVANT: Final = 5
TWINS: Final = 2


@dataclass(frozen=True)
class Slates:
    """Token ids of queries ``[n, 2]`` and candidates ``[n, 10, 6]``, and which are relevant, bool ``[n, 10]``."""

    queries: Tensor
    docs: Tensor
    relevant: Tensor


def twin_words(topics: int) -> int:
    """How many words there are: ``0 ... twin_words - 1``."""
    return topics * OWN + topics // 2 * SHARED


def twin_slates(topics: int, n: int, seed: int) -> Slates:
    """Draw ``n`` queries with their candidates, shuffled.

    Raises
    ------
    InputError
        If topics are no pairs, or fewer than two of them.
    """
    if topics < 4 or topics % 2 or n < 1:
        raise InputError(f"Twin topics need an even number of at least 4 topics and a query, got {topics} and {n}.")
    rng = np.random.default_rng(seed)
    queries, docs, relevant = [], [], []
    for _ in range(n):
        true = int(rng.integers(topics))
        others = rng.choice([t for t in range(topics) if t // 2 != true // 2], CANDIDATES - RELEVANT - TWINS)
        kinds = rng.permutation([true] * RELEVANT + [true ^ 1] * TWINS + others.tolist())
        queries.append([topics * OWN + true // 2 * SHARED + i for i in range(SHARED)])
        docs.append([_document(rng, int(t), topics) for t in kinds])
        relevant.append(kinds == true)
    return Slates(torch.tensor(queries), torch.tensor(np.array(docs)), torch.tensor(np.array(relevant)))


def _document(rng: np.random.Generator, topic: int, topics: int) -> list[int]:
    """Five words of a topic and one that it shares with its twin."""
    own = topic * OWN + rng.choice(OWN, 5, replace=False)
    both = topics * OWN + topic // 2 * SHARED + rng.integers(SHARED)
    words: list[int] = rng.permutation([*own, both]).tolist()
    return words
