"""Okapi BM25 in memory (bm25s), Lucene's variant."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np

from isometry.errors import InputError
from isometry.ranking.stage import Stage, check_count, require_none
from isometry.types import Document, FloatArray, Hits, Queries, id_array

_WORD: Final = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """Case-folded runs of Unicode letters, digits and underscores.

    >>> words("Straße, café-au-lait!")
    ['strasse', 'café', 'au', 'lait']
    """
    return _WORD.findall(text.casefold())


class BM25(Stage):
    """Okapi BM25 over documents in memory.

    A query scores a document ``sum over its words of ln(1 + (N - n + 0.5) / (n + 0.5)) * f / (f + k1 * (1 - b + b *
    length / mean length))``: n of N documents have the word, this one f times. A word that is twice in the query
    counts twice. Documents without any of the words are not found.

    Parameters
    ----------
    documents
        Documents (their title and text), or texts by id.
    k
        How many hits per query.
    k1, b
        Saturation of term frequency, and how much length counts (defaults: the usual ones of the BEIR baselines).
    stop_words
        Words to leave out; none by default.
    tokenize
        ``text -> words``; default `words`.

    References
    ----------
    Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond (2009); the variant is the one
    called "Lucene (accurate)" in Kamphuis et al., Which BM25 Do You Mean? (2020).
    """

    name = "bm25"

    def __init__(
        self,
        documents: Iterable[Document] | Mapping[str, str],
        *,
        k: int = 10,
        k1: float = 1.5,
        b: float = 0.75,
        stop_words: Collection[str] = (),
        tokenize: Callable[[str], Sequence[str]] = words,
    ) -> None:
        pairs = documents.items() if isinstance(documents, Mapping) else ((d.id, d.content) for d in documents)
        ids, texts = [], []
        for identity, text in pairs:
            ids.append(identity)
            texts.append(text)
        if len(set(ids)) != len(ids):
            raise InputError("Two documents have the same id; BM25 needs distinct ids.")
        if not (k1 >= 0 and 0 <= b <= 1):
            raise InputError(f"BM25 needs k1 >= 0 and b in [0, 1], got {k1} and {b}.")
        self.k, self.k1, self.b = check_count(k, "k"), k1, b
        self.stop_words, self.tokenize = frozenset(stop_words), tokenize
        self.ids, self._texts = id_array(ids), texts

    def config(self) -> Mapping[str, Any]:
        """Parameters, and a hash of the documents."""
        seen = hashlib.sha256()
        for identity, text in zip(self.ids, self._texts, strict=True):
            seen.update(f"{len(identity)}:{identity}{len(text)}:{text}".encode("utf-8", "surrogatepass"))
        return {
            "documents": seen.hexdigest(), "k": self.k, "k1": self.k1, "b": self.b,
            "stop_words": sorted(self.stop_words), "tokenize": self.tokenize,
        }  # fmt: skip

    def _tokens(self, text: str) -> list[str]:
        return [word for word in self.tokenize(text) if word not in self.stop_words]

    @cached_property
    def _index(self) -> Any:
        """The bm25s index, None if no document has a word."""
        import bm25s

        tokens = [self._tokens(text) for text in self._texts]
        if not any(tokens):
            return None
        index = bm25s.BM25(method="lucene", k1=self.k1, b=self.b)
        index.index(tokens, show_progress=False)
        return index

    def scores(self, text: str) -> FloatArray:
        """BM25 of every document for one query, float32 ``[n]``, 0 where no word matches."""
        zero = np.zeros(len(self.ids), np.float32)
        if self._index is None:
            return zero
        tokens = [word for word in self._tokens(text) if word in self._index.vocab_dict]
        # Sorted, so that the order of a query's words cannot change the last bit of a sum.
        return np.asarray(self._index.get_scores(sorted(tokens)), np.float32) if tokens else zero

    def rank(self, queries: Queries, hits: Hits | None) -> Hits:
        """Score all documents, keep each query's k best; `InputError` if there are hits already."""
        require_none(self, hits)
        return Hits.build(queries.ids, [self._best(text) for text in queries.texts], k=self.k)

    def _best(self, text: str) -> list[tuple[str, float]]:
        scores = self.scores(text)
        rows = np.flatnonzero(scores > 0)
        if len(rows) > self.k:
            bar = np.partition(scores[rows], len(rows) - self.k)[len(rows) - self.k]
            rows = rows[scores[rows] >= bar]  # with every tie at the bar, so that ids can break it
        return list(zip(self.ids[rows].tolist(), scores[rows].tolist(), strict=True))
