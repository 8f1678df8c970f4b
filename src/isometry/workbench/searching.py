"""Ask a collection: vector, keyword or hybrid search, with filters, diversity, reranking and explanations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from isometry.errors import EmptyInput, InputError, UnknownName
from isometry.types import Document, Hits, Queries
from isometry.workbench.places import MODES

if TYPE_CHECKING:
    from isometry.encoders import TextEncoder
    from isometry.ranking import Stage
    from isometry.store import Collection

MAX_QUERY = 100_000  # characters; beyond it a query is a document given by mistake
DEPTH = 100  # candidates of each retriever before fusion, as in common RRF practice
RRF_K = 60  # Cormack, Clarke & Buettcher 2009
Fusion = Literal["scores", "rrf"]
FUSIONS: tuple[Fusion, ...] = get_args(Fusion)


@dataclass(frozen=True)
class Answer:
    """One found document, and what each stage gave it when asked to explain."""

    document: Document
    score: float
    explanation: tuple[Mapping[str, Any], ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; stable keys."""
        d = self.document
        row = {"id": d.id, "score": self.score, "text": d.text, "source": d.source, "payload": dict(d.payload)}
        return row | ({"explanation": [dict(e) for e in self.explanation]} if self.explanation else {})


def check_query(text: str) -> str:
    """Return the query, stripped.

    Raises
    ------
    EmptyInput, InputError
        If it is empty or longer than `MAX_QUERY` characters.
    """
    if not text.strip():
        raise EmptyInput("The query is empty; type what you are looking for.")
    if len(text) > MAX_QUERY:
        raise InputError(f"The query has {len(text):,} characters, at most {MAX_QUERY:,} are allowed; shorten it.")
    return text.strip()


class Searcher:
    """A collection with an encoder, ready for questions; keep it, and a warm search takes milliseconds.

    Parameters
    ----------
    collection
        Where to search.
    encoder
        The model the collection was embedded with; loaded by its name when first needed, so that keyword search
        never waits for it.
    """

    def __init__(self, collection: Collection, encoder: TextEncoder | None = None) -> None:
        self.collection = collection
        self._encoder = encoder

    @property
    def encoder(self) -> TextEncoder:
        """The encoder of the collection's space, checked."""
        if self._encoder is None:
            from isometry.encoders import load

            space = self.collection.default_space
            pooling = next((s.removeprefix("pooling=") for s in space.chain if s.startswith("pooling=")), None)
            self._encoder = load(self.collection.meta.get("model") or space.model, pooling=pooling)
        self.collection.default_space.check(self._encoder.space)
        return self._encoder

    def pipeline(
        self,
        mode: str = "hybrid",
        *,
        k: int = 10,
        where: str | None = None,
        fusion: str = FUSIONS[0],
        diverse: float | None = None,
        rerank: str | Callable[[str, list[str]], Any] | None = None,
    ) -> Stage:
        """Return the ranking stages of a search.

        Parameters
        ----------
        mode
            ``"vector"``, ``"keyword"`` (BM25) or ``"hybrid"`` (both).
        k
            How many answers, at least 1.
        where
            A filter expression over payload fields.
        fusion
            How hybrid search joins the two; see `hybrid`.
        diverse
            Trade-off of maximal marginal relevance, 1: relevance alone, 0: diversity alone; None: no such stage.
        rerank
            A cross-encoder by name or path, or a function ``(query, texts) -> scores``.
        """
        from isometry.ranking import Diversify, KeywordSearch, Rerank, Retrieve

        if mode not in MODES:
            raise UnknownName("search mode", mode, MODES)
        if k < 1:
            raise InputError(f"k must be at least 1 (how many answers to show), got {k}.")
        staged = diverse is not None or rerank is not None
        depth = max(DEPTH, k) if staged or mode == "hybrid" else k
        stage: Stage
        if mode == "keyword":
            stage = KeywordSearch(self.collection, k=depth, where=where)
        elif mode == "vector":
            stage = Retrieve(self.encoder, self.collection, k=depth, where=where)
        else:
            vector = Retrieve(self.encoder, self.collection, k=depth, where=where)
            keyword = KeywordSearch(self.collection, k=depth, where=where)
            stage = hybrid(vector, keyword, fusion)
        if rerank is not None:
            scorer = _cross_encoder(rerank) if isinstance(rerank, str) else rerank
            stage = stage >> Rerank(scorer, depth=depth, texts=self._texts)
        if diverse is not None:
            stage = stage >> Diversify(lam=diverse, k=k, vectors=self._vectors)
        return stage

    def hits(self, queries: Queries, mode: str = "hybrid", *, k: int = 10, **options: Any) -> Hits:
        """Run `pipeline` and keep the k best of each query."""
        return first(self.pipeline(mode, k=k, **options)(queries, None), k)

    def search(self, text: str, *, k: int = 10, mode: str = "hybrid", **options: Any) -> list[Answer]:
        """Answer one question, best first; options as in `pipeline`."""
        from isometry.ranking import explain

        queries = Queries.of([check_query(text)])
        hits = self.hits(queries, mode, k=k, **options)
        documents = self.collection.get(hits.ids.tolist())
        rows = zip(documents, hits.scores.tolist(), explain(hits), strict=True)
        return [Answer(document, score, tuple(stages)) for document, score, stages in rows]

    def _texts(self, ids: Sequence[str]) -> list[str]:
        return [d.content for d in self.collection.get(list(ids))]

    def _vectors(self, ids: Sequence[str]) -> Any:
        return self.collection.embeddings(ids=list(ids)).vectors


def hybrid(vector: Stage, keyword: Stage, fusion: str = FUSIONS[0]) -> Stage:
    """Join vector and keyword search.

    ``"scores"``: the mean of both scores, each scaled to 0..1 over a query's candidates (a document that one of them
    did not find gets its 0). ``"rrf"``: reciprocal rank fusion. Scores are the default because they keep how much
    better a hit is: on every development set looked at they gain more over BM25 than ranks do
    (``benchmarks/hybrid.py``).
    """
    from isometry.ranking import fuse

    if fusion == "rrf":
        return fuse(vector, keyword, how="rrf", k=RRF_K)
    if fusion != "scores":
        raise UnknownName("fusion", fusion, FUSIONS)
    return fuse(vector, keyword, how="weighted", weights=(0.5, 0.5), normalise="minmax")


def _cross_encoder(name: str) -> Any:
    from sentence_transformers import CrossEncoder

    try:
        return CrossEncoder(name)
    except (OSError, ValueError) as error:
        raise UnknownName("cross-encoder", name, hint="Give the folder of a cross-encoder, or its hub name.") from error


def first(hits: Hits, k: int) -> Hits:
    """Keep the k best rows of each query."""
    import numpy as np

    counts = np.diff(hits.offsets)
    place = np.arange(len(hits.ids)) - np.repeat(hits.offsets[:-1], counts)
    keep = place < k
    offsets = np.concatenate([[0], np.cumsum(np.minimum(counts, k))]).astype(np.int64)
    contributions = {name: values[keep] for name, values in hits.contributions.items()}
    return Hits(hits.query_ids, offsets, hits.ids[keep], hits.scores[keep], contributions)
