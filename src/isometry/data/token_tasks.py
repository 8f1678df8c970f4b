"""Synthetic texts of token numbers whose meaning is known exactly, to train tiny models on within seconds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isometry.errors import InputError

Tokens = NDArray[np.int64]


@dataclass(frozen=True)
class SelectorTask:
    """Texts whose last token decides what all others mean.

    Symbols ``0 .. symbols - 1`` are followed by one selector, ``symbols .. symbols + selectors - 1``, which maps every
    symbol to a meaning by a permutation of its own. Two texts are positives when they express the same set of meanings
    under different selectors and in different orders. A reader from left to right learns the meaning of
    what it has read at the very end.

    Parameters
    ----------
    symbols, selectors, length
        Symbols there are, permutations there are, symbols in a text.
    seed
        Of the permutations.
    """

    symbols: int = 32
    selectors: int = 4
    length: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if self.selectors < 2 or not 1 <= self.length <= self.symbols:
            raise InputError(
                "A selector task needs two selectors and 1 <= length <= symbols; "
                f"got {self.selectors}, {self.length} and {self.symbols}."
            )

    @property
    def vocabulary(self) -> int:
        """Number of distinct tokens."""
        return self.symbols + self.selectors

    def table(self) -> Tokens:
        """Return the meaning of each symbol under each selector, int64 ``[selectors, symbols]``."""
        rng = np.random.default_rng(self.seed)
        return np.stack([rng.permutation(self.symbols) for _ in range(self.selectors)])

    def meanings(self, texts: Tokens) -> Tokens:
        """Return the sorted meanings ``[n, length]`` of texts ``[n, length + 1]``."""
        found: Tokens = np.sort(self.table()[texts[:, -1:] - self.symbols, texts[:, :-1]], axis=1)
        return found

    def pairs(self, n: int, *, seed: int = 0) -> tuple[Tokens, Tokens]:
        """Return n pairs of texts of one meaning, int64 ``[n, length + 1]`` each."""
        rng = np.random.default_rng([self.seed, seed])
        symbol_of = self.table().argsort(axis=1)
        wanted = rng.permuted(np.tile(np.arange(self.symbols), (n, 1)), axis=1)[:, : self.length]
        first = rng.integers(self.selectors, size=n)
        second = (first + rng.integers(1, self.selectors, size=n)) % self.selectors
        sides = []
        for selector in (first, second):
            text = symbol_of[selector[:, None], rng.permuted(wanted, axis=1)]
            sides.append(np.concatenate([text, self.symbols + selector[:, None]], axis=1))
        return sides[0], sides[1]


@dataclass(frozen=True)
class TopicTask:
    """Texts of words drawn independently from the vocabulary of one topic.

    Topics overlap, since each takes its words from one common vocabulary. The best prediction of a word whose topic is
    known costs ``log(words)`` nats.

    Parameters
    ----------
    topics, words, vocabulary
        Topics there are, words of a topic, words in all.
    seed
        Of the topics.
    """

    topics: int = 64
    words: int = 16
    vocabulary: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.topics >= 1 and 1 <= self.words <= self.vocabulary):
            raise InputError(
                "A topic task needs a topic and 1 <= words <= vocabulary; "
                f"got {self.topics}, {self.words} and {self.vocabulary}."
            )

    @property
    def floor(self) -> float:
        """Least possible loss of a word in nats when its topic is known."""
        return float(np.log(self.words))

    def table(self) -> Tokens:
        """Return the words of each topic, int64 ``[topics, words]``."""
        rng = np.random.default_rng(self.seed)
        return np.stack([rng.choice(self.vocabulary, self.words, replace=False) for _ in range(self.topics)])

    def texts(
        self, n: int, length: int, *, seed: int = 0, topics: Tokens | None = None, noise: float = 0.0
    ) -> tuple[Tokens, Tokens]:
        """Return texts int64 ``[n, length]`` and their topics ``[n]``.

        Parameters
        ----------
        topics
            The topic of each text; drawn uniformly where not given.
        noise
            Chance that a word comes from the whole vocabulary instead.
        """
        if length < 1 or not 0 <= noise <= 1:
            raise InputError(f"Texts need length >= 1 and noise in 0..1, got {length} and {noise}.")
        rng = np.random.default_rng([self.seed, seed])
        chosen = rng.integers(self.topics, size=n) if topics is None else np.asarray(topics)
        words = self.table()[chosen[:, None], rng.integers(self.words, size=(n, length))]
        stray = rng.random((n, length)) < noise
        return np.where(stray, rng.integers(self.vocabulary, size=(n, length)), words), chosen
