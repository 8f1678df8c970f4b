"""Judgments where there are none: a sentence is taken out of its document and has to find it again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from isometry.data import split_sentences
from isometry.errors import EmptyInput, InputError
from isometry.tasks.metrics import DEFAULT_METRICS
from isometry.tasks.retrieval import RetrievalTask
from isometry.types import Document

Span = tuple[int, int]


def inverse_cloze(
    documents: Sequence[Document],
    n: int | None = None,
    *,
    seed: int = 0,
    min_chars: int = 20,
    max_chars: int = 300,
) -> tuple[list[Document], dict[str, str], dict[str, dict[str, int]]]:
    """Make pseudo-queries by the inverse cloze task (Lee, Chang and Toutanova 2019).

    One sentence of a document becomes a query whose relevant document is that document *without* the sentence, so that
    the match is by content and not by copy. Figures are good for comparing systems on one collection; they are not
    those of real questions. A document gives a query if it has at least two sentences and one of them is of fair
    length and stands once in the whole corpus (repeated ones, such as boilerplate, have no single answer); the other
    documents stay in the corpus as they are.

    Parameters
    ----------
    documents
        The corpus; ids must be distinct.
    n
        How many documents give a query, drawn by the seed; None, or more than there are: all that can.
    seed
        Seed of both draws.
    min_chars, max_chars
        Length of a sentence that may become a query, in characters.

    Returns
    -------
    corpus, queries, qrels
        All documents in their order, ``{query id: sentence}``, ``{query id: {document id: 1}}``.

    Raises
    ------
    EmptyInput
        If no document can give a query.
    InputError
        If ids repeat or ``n`` is not positive.

    Examples
    --------
    >>> text = "The cat sat on the old mat. It was a red mat from a market."
    >>> corpus, queries, qrels = inverse_cloze([Document("a", text), Document("b", "One sentence.")])
    >>> sorted([queries["q-a"], corpus[0].text]) == ["It was a red mat from a market.", "The cat sat on the old mat."]
    True
    >>> qrels
    {'q-a': {'a': 1}}
    """
    if n is not None and n < 1:
        raise InputError(f"n must be at least 1, got {n}.")
    if twice := [i for i, count in Counter(d.id for d in documents).items() if count > 1]:
        raise InputError(f"Document ids must be distinct; {twice[0]!r} occurs more than once.")
    spans = [split_sentences(document.text) for document in documents]
    seen = Counter(document.text[a:b] for document, rows in zip(documents, spans, strict=True) for a, b in rows)

    def fair(document: Document, span: Span) -> bool:
        sentence = document.text[slice(*span)]
        return min_chars <= len(sentence) <= max_chars and seen[sentence] == 1

    choices = {
        i: fit
        for i, (document, rows) in enumerate(zip(documents, spans, strict=True))
        if len(rows) > 1 and (fit := [span for span in rows if fair(document, span)])
    }
    if not choices:
        raise EmptyInput(
            f"None of the {len(documents)} documents can give a pseudo-query: each has a single sentence, or none of "
            f"{min_chars} to {max_chars} characters that occurs once in the corpus."
        )
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(choices))[:n]
    corpus, queries, qrels = list(documents), {}, {}
    for i in sorted(np.array(list(choices))[order].tolist()):
        start, end = choices[i][int(rng.integers(len(choices[i])))]
        document = documents[i]
        queries[f"q-{document.id}"] = document.text[start:end]
        qrels[f"q-{document.id}"] = {document.id: 1}
        corpus[i] = replace(document, text=_without(document.text, start, end))
    return corpus, queries, qrels


def synthetic_retrieval(
    documents: Sequence[Document],
    name: str,
    n: int | None = None,
    *,
    seed: int = 0,
    k: int = 100,
    metrics: Sequence[str] = DEFAULT_METRICS,
) -> RetrievalTask:
    """Return a retrieval task of `inverse_cloze` pseudo-queries, named "... (synthetic)" and saying so in its facts."""
    corpus, queries, qrels = inverse_cloze(documents, n, seed=seed)
    return RetrievalTask(corpus, queries, qrels, f"{name} (synthetic)", k=k, metrics=metrics, facts={"synthetic": True})


def _without(text: str, start: int, end: int) -> str:
    """Cut a span out of a text, with the white space after it."""
    return (text[:start] + text[end:].lstrip()).strip()
