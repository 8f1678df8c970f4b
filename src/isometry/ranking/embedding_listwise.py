"""E2Rank: an embedding model as listwise reranker (arXiv:2510.22733).

Query and candidates are put into one prompt, and the prompt is embedded by the very model that embedded the documents.
A candidate's score is the cosine between this vector and its own, which the index holds already: one pass reads a whole
list, where a cross-encoder needs one pass per candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal, get_args

import numpy as np

from isometry.errors import InputError, UnknownName
from isometry.modules.chat import chat_frame
from isometry.ranking.lookup import Lookup, texts_of, vectors_of
from isometry.ranking.stage import Stage, check_count
from isometry.types import FloatArray, Hits, Queries, unit

Spans = Callable[[str], Sequence[tuple[int, int]]]
Order = Literal["first-stage", "reversed", "random"]
Which = Literal["top", "random"]
INSTRUCTION: Final = "Rank the documents by how well they answer the query"


@dataclass(frozen=True)
class ListwisePrompt:
    r"""How query and candidates are written into one text.

    Parameters
    ----------
    instruction
        What the model is asked to do.
    documents
        Most documents in the prompt; 0 leaves the query alone.
    order
        Of the documents: as the first stage ranked them, reversed, or at random.
    which
        The ``"top"`` documents of the first stage, or ``"random"`` ones among the candidates.
    before, after
        Put around the whole, such as the turns of a chat template with its generation prompt.
    seed
        Of what is random.

    Examples
    --------
    >>> ListwisePrompt("Rank").text("who?", ["Ann", "Bob"])
    'Rank:\nDocuments:\n[1] Ann\n[2] Bob\nQuery: who?'
    """

    instruction: str = INSTRUCTION
    documents: int = 20
    order: Order = "first-stage"
    which: Which = "top"
    before: str = ""
    after: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.documents < 0:
            raise InputError(f"A prompt holds 0 or more documents, got {self.documents}.")
        if self.order not in get_args(Order):
            raise UnknownName("order of documents", str(self.order), get_args(Order))
        if self.which not in get_args(Which):
            raise UnknownName("choice of documents", str(self.which), get_args(Which))

    def in_chat(self, tokenizer: Any) -> ListwisePrompt:
        """Return this prompt as a turn of the chat that a language model's tokenizer writes."""
        before, after = chat_frame(tokenizer)
        return replace(self, before=before, after=after)

    def text(self, query: str, documents: Sequence[str]) -> str:
        """Write the prompt with these documents, in this order."""
        listed = "".join(f"[{i}] {' '.join(d.split())}\n" for i, d in enumerate(documents, 1))
        head = f"Documents:\n{listed}" if listed else ""
        return f"{self.before}{self.instruction}:\n{head}Query: {query}{self.after}"

    def choose(self, n: int, row: int = 0) -> list[int]:
        """Positions among ``n`` candidates of the documents to show, in the order to show them."""
        rng = np.random.default_rng([self.seed, row])
        k = min(n, self.documents)
        chosen = list(range(k)) if self.which == "top" else sorted(rng.permutation(n)[:k].tolist())
        if self.order == "random":
            return [chosen[i] for i in rng.permutation(k)]
        return chosen[::-1] if self.order == "reversed" else chosen

    def fit(self, query: str, documents: Sequence[str], *, spans: Spans, max_tokens: int) -> str:
        """Write the prompt within a budget of tokens: the longest documents lose their ends, the query nothing.

        Cutting the whole text on its right would remove the query, which stands last.

        Parameters
        ----------
        spans
            Characters ``(start, end)`` of each token of a text, such as `TextEncoder.token_spans`.
        max_tokens
            Without the special tokens that the tokenizer adds.

        Raises
        ------
        InputError
            If not even one token of each document fits beside instruction and query.
        """
        texts = [" ".join(document.split()) for document in documents]
        found = [spans(text) for text in texts]
        cap = max((len(tokens) for tokens in found), default=0)
        if (whole := len(spans(self.text(query, texts)))) > max_tokens:
            room = max_tokens - len(spans(self.text(query, ["" for _ in texts])))
            cap = even_cap([len(tokens) for tokens in found], room)
        while whole > max_tokens:
            if cap < 1:
                raise InputError(
                    f"Instruction and query leave no room for {len(texts)} documents in {max_tokens} tokens; "
                    "show fewer, or allow more tokens."
                )
            short = [t if len(s) <= cap else t[: s[cap - 1][1]] for t, s in zip(texts, found, strict=True)]
            whole = len(spans(self.text(query, short)))  # tokens may merge or split at a seam, so all are counted
            cap -= 1
            if whole <= max_tokens:
                return self.text(query, short)
        return self.text(query, texts)


def even_cap(lengths: Sequence[int], room: int) -> int:
    """Return the largest cap c for which ``sum(min(length, c))`` is at most ``room``; 0 if there is none.

    >>> even_cap([10, 2, 10], 12)
    5
    """
    low, high = 0, max(lengths, default=0)
    while low < high:
        middle = (low + high + 1) // 2
        if sum(min(length, middle) for length in lengths) <= room:
            low = middle
        else:
            high = middle - 1
    return low


class EmbeddingListwise(Stage):
    """Listwise reranking by one embedding of query and candidates together (E2Rank).

    Parameters
    ----------
    encoder
        The model of the document vectors: ``encode_query(texts, prompt=...)``. Its vectors of prompts mean something
        if it was trained on such prompts (`isometry.training.listwise_embedding`).
    texts, vectors
        ``ids -> texts`` and ``ids -> vectors`` ``[n, d]`` as the index holds them.
    prompt
        See `ListwisePrompt`.
    depth
        Candidates per query; all are scored, those behind ``prompt.documents`` without being shown.
    window, step, passes
        Slide a window of so many candidates from the last to the first, ``step`` at a time, showing and sorting what
        is in it, ``passes`` times; None shows the first alone, once.
    max_tokens
        Longest prompt; the encoder's room by default.
    """

    name = "listwise"

    def __init__(
        self,
        encoder: Any,
        *,
        texts: Lookup,
        vectors: Lookup,
        prompt: ListwisePrompt | None = None,
        depth: int = 100,
        window: tuple[int, int] | None = None,
        passes: int = 1,
        max_tokens: int | None = None,
    ) -> None:
        if not hasattr(encoder, "encode_query") or not hasattr(encoder, "token_spans"):
            raise InputError(f"The encoder needs encode_query and token_spans, as that of load has; got {encoder!r}.")
        self.encoder, self.texts, self.vectors = encoder, texts, vectors
        self.prompt, self.depth = prompt or ListwisePrompt(), check_count(depth, "depth")
        if window is not None and not 1 <= window[1] <= window[0]:
            raise InputError(f"A window needs a size and a step of 1 up to that size, got {window}.")
        self.window, self.passes = window, check_count(passes, "passes")
        self.max_tokens = int(encoder.room("query")) if max_tokens is None else check_count(max_tokens, "max_tokens")

    def config(self) -> Mapping[str, Any]:
        """Encoder, prompt, depth and windows."""
        return {"encoder": self.encoder, "prompt": asdict(self.prompt), "depth": self.depth,
                "window": self.window, "passes": self.passes, "max_tokens": self.max_tokens}  # fmt: skip

    def rank(self, queries: Queries, hits: Hits | None) -> Hits:
        """Rerank; `InputError` if there are no hits to rerank."""
        if hits is None:
            raise InputError("EmbeddingListwise needs hits to rerank: Retrieve(...) >> EmbeddingListwise(...).")
        cut = Hits.build(queries.ids, [hits.row(i)[: self.depth] for i in range(len(hits))])
        texts, vectors = texts_of(self.texts, cut), unit(vectors_of(self.vectors, cut))
        rows = []
        for i, query in enumerate(queries.texts):
            span = cut.span(i)
            order, scores = self._order(query, texts[span], vectors[span], i)
            ids = cut.ids[span]
            rows.append([(str(ids[place]), float(score)) for place, score in zip(order, scores, strict=True)])
        return Hits.build(queries.ids, rows)

    def _order(self, query: str, texts: list[str], vectors: FloatArray, row: int) -> tuple[list[int], FloatArray]:
        """Places of the candidates, best first, and falling scores: cosines, or ranks where windows slid."""
        n = len(texts)
        if not n:
            return [], np.empty(0, np.float32)
        order = list(range(n))
        if self.window is None or (n <= self.window[0] and self.passes == 1):
            scores = self._cosines(query, texts, vectors, row)
            best = np.argsort(-scores, kind="stable")
            return best.tolist(), scores[best]
        size, step = self.window
        for _ in range(self.passes):
            stop = n
            while True:
                inside = order[max(0, stop - size) : stop]
                scores = self._cosines(query, [texts[j] for j in inside], vectors[inside], row)
                order[max(0, stop - size) : stop] = [inside[j] for j in np.argsort(-scores, kind="stable")]
                if stop <= size:
                    break
                stop -= step
        return order, np.linspace(1, 1 / n, n, dtype=np.float32)

    def _cosines(self, query: str, texts: list[str], vectors: FloatArray, row: int) -> FloatArray:
        shown = [texts[j] for j in self.prompt.choose(len(texts), row)]
        prompt = self.prompt.fit(query, shown, spans=self.encoder.token_spans, max_tokens=self.max_tokens)
        asked = unit(np.asarray(self.encoder.encode_query([prompt], prompt=""), np.float32))
        if asked.shape[1] != vectors.shape[1]:
            raise InputError(f"The prompt's vector has {asked.shape[1]} numbers, the documents' {vectors.shape[1]}.")
        cosines: FloatArray = np.clip(vectors @ asked[0], -1, 1)
        return cosines


def tokens_read(query: int, documents: Sequence[int]) -> dict[str, int]:
    """Tokens a model reads to rerank: listwise ``|q| + sum |d|`` once, a cross-encoder ``|q| + |d|`` per document.

    >>> tokens_read(10, [100, 50])
    {'listwise': 160, 'cross-encoder': 170}
    """
    return {"listwise": query + sum(documents), "cross-encoder": len(documents) * query + sum(documents)}
