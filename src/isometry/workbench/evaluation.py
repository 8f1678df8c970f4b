"""How good is the search? Judged queries in, metrics with intervals out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.errors import InputError, UnknownName
from isometry.types import Document, Hits, Queries, Scores
from isometry.workbench.places import MODES
from isometry.workbench.searching import DEPTH, FUSIONS, Searcher, first, hybrid

if TYPE_CHECKING:
    from isometry.encoders import LateInteraction, TextEncoder
    from isometry.ranking import Stage
    from isometry.stats import Comparison
    from isometry.store import Collection

METRICS = ("ndcg@10", "map", "mrr", "recall@10", "recall@100", "precision@10")


@dataclass(frozen=True)
class Evaluation:
    """Per-query scores of one way to search, with intervals, and optionally the comparison with another way."""

    name: str
    mode: str
    scores: Scores
    intervals: Mapping[str, tuple[float, float]]
    synthetic: bool = False
    against: str = ""
    comparisons: Sequence[Comparison] = field(default=())

    @property
    def n(self) -> int:
        """How many queries were judged."""
        return len(self.scores.by_unit(self.scores.metric_names[0]))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; stable keys."""
        metrics = {m: {"mean": self.scores.mean(m), "ci95": list(ci)} for m, ci in self.intervals.items()}
        record: dict[str, Any] = {"name": self.name, "mode": self.mode, "n": self.n, "metrics": metrics}
        record["synthetic"] = self.synthetic
        if self.comparisons:
            record["against"] = {
                "mode": self.against,
                "metrics": {
                    c.metric: {"delta": c.delta, "ci95": list(c.ci95), "p": c.p, "wins": c.wins, "losses": c.losses}
                    for c in self.comparisons
                },
            }
        return record


def evaluate_set(
    data: str | Path, encoder: TextEncoder, *, mode: str = "vector", against: str | None = None,
    fusion: str = FUSIONS[0], root: Path | None = None, split: str = "test", progress: Any = None,
) -> Evaluation:  # fmt: skip
    """Judge an encoder on a BEIR folder or a named set; nothing is stored.

    Vector search is exact, so the figures are the model's own.
    """
    from isometry.data import load_set

    judged = load_set(data, kind="retrieval", split=split, root=root)
    documents = list(judged.corpus)
    ways = _ways(documents, encoder, {mode, against} - {None}, fusion, progress)
    return _judge(judged.name, judged.queries, judged.qrels, ways, mode, against)


def evaluate_collection(
    collection: Collection, encoder: TextEncoder | None = None, *, mode: str = "vector", against: str | None = None,
    fusion: str = FUSIONS[0], judgments: str | Path | None = None, synthetic: int = 0, seed: int = 0,
    progress: Any = None,
) -> Evaluation:  # fmt: skip
    """Judge a collection by its own judged queries, by those of a BEIR folder, or by ``synthetic`` pseudo-queries.

    Raises
    ------
    InputError
        If there are no judgments and none were asked for.
    """
    if synthetic:
        return _evaluate_synthetic(collection, encoder, mode, against, fusion, synthetic, seed, progress)
    if judgments is not None:
        from isometry.data import load_set

        judged = load_set(judgments, kind="retrieval")
        name, queries, qrels = judged.name, dict(judged.queries), judged.qrels
        known = set(collection.ids())
        named = {d for row in qrels.values() for d in row}
        if missing := sorted(named - known):
            raise InputError(
                f"{len(missing)} judged documents are not in the collection {collection.name!r} "
                f"(first {missing[0]!r}); index the same corpus, or evaluate with --data."
            )
    else:
        kept = collection.meta.get("judgments")
        if not kept:
            raise InputError(
                f"The collection {collection.name!r} has no judged queries; give --judgments FOLDER (BEIR), or "
                "--synthetic N to make pseudo-queries from its own sentences."
            )
        name, queries, qrels = kept["name"], kept["queries"], kept["qrels"]
    searcher = Searcher(collection, encoder)
    ways = {way: searcher.pipeline(way, k=DEPTH, fusion=fusion) for way in {mode, against} - {None} if way is not None}
    return _judge(name, queries, qrels, ways, mode, against)


def _evaluate_synthetic(
    collection: Collection,
    encoder: TextEncoder | None,
    mode: str,
    against: str | None,
    fusion: str,
    n: int,
    seed: int,
    progress: Any,
) -> Evaluation:
    """Inverse cloze: a sentence is taken out of its document and has to find it again."""
    from isometry.tasks import inverse_cloze
    from isometry.workbench.late_interaction import has_tokens

    documents = list(collection.iterate())
    corpus, queries, qrels = inverse_cloze(documents, n=n, seed=seed)
    modes, searcher = {mode, against} - {None}, Searcher(collection, encoder)
    late = searcher.tokens.late if "late" in modes and has_tokens(collection) else None
    ways = _ways(list(corpus), searcher.encoder, modes, fusion, progress, late)
    return _judge(f"{collection.name} (synthetic)", queries, qrels, ways, mode, against, synthetic=True)


def _ways(
    documents: list[Document],
    encoder: TextEncoder,
    modes: set[Any],
    fusion: str,
    progress: Any,
    late: LateInteraction | None = None,
) -> dict[str, Stage]:
    """Build the asked-for ways to search a corpus in memory, exactly."""
    from isometry.encoders import embed
    from isometry.indexes import Exact
    from isometry.ranking import BM25, Retrieve
    from isometry.workbench.late_interaction import token_encoder

    if unknown := modes - set(MODES):
        raise UnknownName("search mode", unknown.pop(), MODES)
    ways: dict[str, Stage] = {}
    if modes & {"vector", "hybrid"}:
        emb = embed(
            encoder, [d.content for d in documents], ids=[d.id for d in documents], role="document",
            on_truncate="ignore", allow_empty=True, progress=progress,
        )  # fmt: skip
        ways["vector"] = Retrieve(encoder, Exact.of(emb), k=DEPTH)
    if "late" in modes:
        ways["late"] = _late(documents, late or token_encoder(encoder), progress)
    if modes & {"keyword", "hybrid"}:
        ways["keyword"] = BM25(documents, k=DEPTH)
    if "hybrid" in modes:
        ways["hybrid"] = hybrid(ways["vector"], ways["keyword"], fusion)
    return ways


def _late(documents: list[Document], late: LateInteraction, progress: Any) -> Stage:
    """Late interaction that scores every document by float32 token vectors."""
    from isometry.indexes import MultiVectorIndex
    from isometry.workbench.late_search import MaxSimSearch

    emb = late.embed(
        [d.content for d in documents], [d.id for d in documents], on_truncate="ignore", allow_empty=True,
        progress=progress,
    )  # fmt: skip
    assert emb.offsets is not None
    index = MultiVectorIndex(emb.space)
    index.add(emb.take(np.diff(emb.offsets) > 0))
    return MaxSimSearch(late, index, k=DEPTH)


def _judge(
    name: str,
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, int]],
    ways: Mapping[str, Stage],
    mode: str,
    against: str | None,
    *,
    synthetic: bool = False,
) -> Evaluation:
    from isometry.stats import bootstrap_mean_ci, compare
    from isometry.tasks import evaluate_run

    if unknown := {mode, against or mode} - set(MODES):
        raise UnknownName("search mode", unknown.pop(), MODES)
    asked = Queries.of({q: queries[q] for q in qrels})

    def scores_of(way: str) -> Scores:
        hits: Hits = first(ways[way](asked, None), DEPTH)
        return evaluate_run(qrels, hits, metrics=METRICS, task=name, system=way, synthetic=synthetic)

    scores = scores_of(mode)
    intervals = {m: bootstrap_mean_ci(list(scores.by_unit(m).values())) for m in scores.metric_names}
    comparisons: tuple[Comparison, ...] = ()
    if against is not None:
        baseline = scores_of(against)
        comparisons = tuple(compare(scores, baseline, m) for m in scores.metric_names)
    return Evaluation(name, mode, scores, intervals, synthetic, against or "", comparisons)
