"""Ask a collection: vector, keyword or hybrid search, with filters, diversity, reranking and explanations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from isometry.errors import EmptyInput, InputError, UnknownName
from isometry.types import Document, Hits, Queries
from isometry.types.progress import NamedProgress
from isometry.workbench.places import MODES

if TYPE_CHECKING:
    from isometry.encoders import AlignedEncoder, LateInteraction, TextEncoder
    from isometry.ranking import Expand, NeighbourGraph, Provenance, Stage
    from isometry.store import Collection
    from isometry.workbench.late_interaction import TokenVectors

MAX_QUERY = 100_000  # characters; beyond it a query is a document given by mistake
DEPTH = 100  # candidates of each retriever before fusion, as in common RRF practice
RRF_K = 60  # Cormack, Clarke & Buettcher 2009
Fusion = Literal["scores", "rrf"]
FUSIONS: tuple[Fusion, ...] = get_args(Fusion)


@dataclass(frozen=True)
class Answer:
    """One found document, what each stage gave it, and where it comes from if it was not only the next best."""

    document: Document
    score: float
    explanation: tuple[Mapping[str, Any], ...] = field(default=())
    provenance: Provenance | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; stable keys."""
        d = self.document
        row = {"id": d.id, "score": self.score, "text": d.text, "source": d.source, "payload": dict(d.payload)}
        if self.provenance is not None:
            row["provenance"] = self.provenance.to_dict()
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
    late
        The model of its token vectors, loaded likewise.
    progress
        Called with (what, done, total) where token vectors must be mended before a search.
    """

    def __init__(
        self,
        collection: Collection,
        encoder: TextEncoder | AlignedEncoder | None = None,
        late: LateInteraction | None = None,
        progress: NamedProgress | None = None,
    ) -> None:
        self.collection = collection
        self._encoder, self._late, self._progress = encoder, late, progress
        self._tokens: TokenVectors | None = None
        self._links: dict[tuple[str | None, int], NeighbourGraph | None] = {}

    @property
    def encoder(self) -> TextEncoder:
        """The encoder of the collection's space, checked."""
        if self._encoder is None:
            from isometry.encoders import load

            space = self.collection.default_space
            pooling = next((s.removeprefix("pooling=") for s in space.chain if s.startswith("pooling=")), None)
            self._encoder = load(self.collection.meta.get("model") or space.model, pooling=pooling)
        self.collection.default_space.check(self._encoder.space)
        return cast("TextEncoder", self._encoder)  # a student that was let into the space embeds questions alike

    @property
    def mode(self) -> str:
        """How the collection is searched unless asked otherwise: ``"late"`` if it has token vectors, else hybrid."""
        from isometry.workbench.late_interaction import has_tokens

        return "late" if has_tokens(self.collection) else "hybrid"

    @property
    def tokens(self) -> TokenVectors:
        """The collection's token vectors as of now; see `isometry.workbench.late_search.current_tokens`."""
        from isometry.workbench.late_search import current_tokens

        if self._tokens is None or self._tokens.sequence != self.collection.sequence:
            self._tokens = current_tokens(self.collection, self._late, self._progress)
            self._late = self._tokens.late
        return self._tokens

    def pipeline(
        self,
        mode: str | None = None,
        *,
        k: int = 10,
        where: str | None = None,
        fusion: str = FUSIONS[0],
        diverse: float | None = None,
        diverse_by: str = "mmr",
        rerank: str | Callable[[str, list[str]], Any] | None = None,
        rerank_depth: int = DEPTH,
        expand: Expand | None = None,
    ) -> Stage:
        """Return the ranking stages of a search.

        Parameters
        ----------
        mode
            ``"vector"``, ``"keyword"`` (BM25), ``"hybrid"`` (both) or ``"late"`` (late interaction of token vectors);
            None: `mode`.
        k
            How many answers, at least 1.
        where
            A filter expression over payload fields.
        fusion
            How hybrid search joins the two; see `hybrid`.
        diverse, diverse_by
            Trade-off, 1: relevance alone, 0: diversity alone, None: no such stage; ``"mmr"`` (maximal marginal
            relevance), ``"coverage"`` or ``"dpp"``, see `isometry.ranking.Diversify`.
        rerank, rerank_depth
            A reranker by name or folder, see `isometry.workbench.rerankers.load_reranker`, or a function
            ``(query, texts) -> scores``; and how many of the first answers it reorders, at least ``k``.
        expand
            A stage that follows links from the first results, see `expansion`.
        """
        from isometry.ranking import Diversify, KeywordSearch, Rerank, Retrieve
        from isometry.workbench.rerankers import load_reranker

        mode = mode or self.mode
        if mode not in MODES:
            raise UnknownName("search mode", mode, MODES)
        if k < 1:
            raise InputError(f"k must be at least 1 (how many answers to show), got {k}.")
        if rerank_depth < 1:
            raise InputError(f"The depth of reranking must be at least 1, got {rerank_depth}.")
        staged = diverse is not None or rerank is not None or expand is not None
        depth = max(DEPTH, k) if staged or mode == "hybrid" else k
        stage: Stage
        if mode == "keyword":
            stage = KeywordSearch(self.collection, k=depth, where=where)
        elif mode == "late":
            stage = self._by_tokens(depth, where)
        elif mode == "vector":
            stage = Retrieve(self.encoder, self.collection, k=depth, where=where)
        else:
            vector = Retrieve(self.encoder, self.collection, k=depth, where=where)
            keyword = KeywordSearch(self.collection, k=depth, where=where)
            stage = hybrid(vector, keyword, fusion)
        if rerank is not None:
            scorer = load_reranker(rerank) if isinstance(rerank, str) else rerank
            stage = stage >> Rerank(scorer, depth=max(rerank_depth, k), texts=self._texts)
        if expand is not None:
            stage = stage >> expand
        if diverse is not None:
            stage = stage >> Diversify(lam=diverse, k=k, vectors=self._vectors, method=diverse_by)
        return stage

    def expansion(
        self, hops: int, *, edges: str | Path | None = None, where: str | None = None, beta: float = 0.3
    ) -> Expand:
        """Return the stage that follows links between documents from the first results of a search.

        Links are those of ``edges``, else those documents hold in their field "links", else nearest neighbours.

        Parameters
        ----------
        hops
            How far at most, at least 1.
        edges
            A file of links, see `isometry.ranking.read_edges`.
        where
            The filter of the search: what it leaves out is not added.
        beta
            Share of the graph in the score, see `isometry.ranking.Expand`.
        """
        from isometry.ranking import Expand, Walk
        from isometry.workbench.linking import link_graph, neighbour_graph

        if hops < 1:
            raise InputError(f"hops must be at least 1 (how far links are followed), got {hops}.")
        key = (None if edges is None else str(edges), self.collection.sequence)
        if key not in self._links:
            self._links = {key: link_graph(self.collection, edges)}
        graph = self._links[key] or neighbour_graph(self.collection, hops, where)
        allowed = None if where is None else self.collection.ids(where)
        return Expand(graph, beta=beta, walk=Walk(hops=hops), allowed=allowed)

    def hits(self, queries: Queries, mode: str | None = None, *, k: int = 10, **options: Any) -> Hits:
        """Run `pipeline` and keep the k best of each query."""
        return first(self.pipeline(mode, k=k, **options)(queries, None), k)

    def search(
        self, text: str, *, k: int = 10, mode: str | None = None, hops: int | None = None,
        edges: str | Path | None = None, **options: Any,
    ) -> list[Answer]:  # fmt: skip
        """Answer one question, best first; options as in `pipeline`, ``hops`` and ``edges`` as in `expansion`.

        Answers say where they come from if links were followed or results diversified.
        """
        from isometry.ranking import explain

        if edges is not None and hops is None:
            raise InputError("Links are only followed if you say how far: give --hops, such as --hops 2.")
        queries = Queries.of([check_query(text)])
        if hops is not None:
            options["expand"] = self.expansion(hops, edges=edges, where=options.get("where"))
        hits, told = self._traced(queries, self.pipeline(mode, k=k, **options), k)
        documents = self.collection.get(hits.ids.tolist())
        rows = zip(documents, hits.scores.tolist(), explain(hits), told, strict=True)
        return [Answer(document, score, tuple(stages), origin) for document, score, stages, origin in rows]

    def _traced(self, queries: Queries, stage: Stage, k: int) -> tuple[Hits, Sequence[Provenance | None]]:
        """Run the stages; where one expanded or diversified, also say where each row comes from."""
        from isometry.ranking import Diversify, Expand, Pipeline, trace

        hits: Hits | None = None
        before: dict[type, tuple[Any, Hits]] = {}
        for part in stage.stages if isinstance(stage, Pipeline) else (stage,):
            if hits is not None and isinstance(part, Expand | Diversify):
                before[type(part)] = part, hits
            hits = part(queries, hits)
        assert hits is not None  # a pipeline has at least one stage
        found = first(hits, k)
        if not before:
            return found, [None] * len(found.ids)
        expand, direct = before.get(Expand) or (None, before[Diversify][1])
        pool = before[Diversify][1] if Diversify in before else None
        return found, trace(found, direct, expand=expand, pool=pool, vectors=self._vectors)[0]

    def _by_tokens(self, k: int, where: str | None) -> Stage:
        from isometry.workbench.late_search import MaxSimSearch

        tokens, allowed = self.tokens, None if where is None else self.collection.ids(where)
        return MaxSimSearch(tokens.late, tokens.index, k=k, allowed=allowed)

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


def query_encoder(collection: Collection, name: str) -> AlignedEncoder:
    """Load a student whose queries may search a collection embedded by its teacher (asymmetric search, LEAF).

    Raises
    ------
    SpaceMismatch
        If its folder does not say that it was distilled from the collection's model, as it is now.
    """
    from isometry.encoders import aligned, load

    return aligned(load(name), collection.default_space)


def first(hits: Hits, k: int) -> Hits:
    """Keep the k best rows of each query."""
    import numpy as np

    counts = np.diff(hits.offsets)
    place = np.arange(len(hits.ids)) - np.repeat(hits.offsets[:-1], counts)
    k = min(k, len(place))  # whatever was asked for: numpy's whole numbers end somewhere
    keep = place < k
    offsets = np.concatenate([[0], np.cumsum(np.minimum(counts, k))]).astype(np.int64)
    contributions = {name: values[keep] for name, values in hits.contributions.items()}
    return Hits(hits.query_ids, offsets, hits.ids[keep], hits.scores[keep], contributions)
