"""LIMIT: what single vectors of a given width cannot rank, in theory, at its best, and on trivial questions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.diagnostics.limit import (
    all_subsets,
    find_critical_n,
    make_corpus,
    moment_curve,
    query_graph,
    rank_bounds,
    rank_capacity,
    ranking_margins,
    relevance_pattern,
    subset_queries,
    train_free_embeddings,
)
from isometry.diagnostics.limit.corpus import distinct_attributes
from isometry.diagnostics.limit.critical_n import PAPER_FIT, PAPER_POINTS
from isometry.diagnostics.limit.free_embeddings import Training
from isometry.diagnostics.limit.patterns import Pattern
from isometry.lab import Card, Claim, Lab, Outcome, Plot
from isometry.ranking import BM25, MaxSim
from isometry.tasks import evaluate_run
from isometry.types import Hits, Queries, Scores

if TYPE_CHECKING:
    from isometry.data.schemas import Retrieval
    from isometry.types import FloatArray

CARD = Card(
    slug="limit",
    title="On the Theoretical Limitations of Embedding-Based Retrieval",
    arxiv="2508.21038",
    year=2025,
    kind="study",
    summary=(
        "Asks which relevance judgments vectors of d dimensions can rank at all: bounds by sign rank, vectors trained "
        "on the judgments themselves, and a data set of trivial questions whose judgments use every pair of 46 "
        "documents. Single vectors fail there where keyword search and token-level vectors do not. On your own "
        "judgments it says whether the width of your vectors can be what limits them."
    ),
    mechanism=(
        "isometry.diagnostics.limit.free_embeddings:train_free_embeddings",
        "isometry.diagnostics.limit.critical_n:find_critical_n",
        "isometry.diagnostics.limit.sign_rank:rank_bounds",
    ),
    parts=(
        "isometry.diagnostics.limit.patterns:relevance_pattern",
        "isometry.diagnostics.limit.corpus:make_corpus",
        "isometry.diagnostics.limit.witness:subset_queries",
        "isometry.diagnostics.limit.density:query_graph",
        "isometry.diagnostics.limit.capacity:rank_capacity",
        "isometry.encoders.late_interaction:LateInteraction",
        "isometry.ranking.maxsim:MaxSim",
        "isometry.ranking.bm25:BM25",
    ),
    needs=("retrieval",),
    aliases=("LIMIT", "sign rank", "free embeddings", "critical n"),
    aspects={
        "task": "retrieval",
        "method": "sign rank, free embedding optimisation, late interaction",
        "data": "LIMIT, generated judgments",
    },
    headline="R@100 on LIMIT (50k documents): BM25 93.6, a multi-vector model 54.8, single-vector models 3 to 19",
    claims=(
        Claim(
            "Critical n of free embeddings, k = 2, grows with every added dimension",
            key="critical-n",
            task="all pairs of n documents",
            metric="critical_n",
            baseline="one dimension less",
            seeds=3,
        ),
        Claim(
            "On limit-small a single vector puts less than 30 % of the answers among its first two",
            key="single",
            task="limit-small",
            metric="recall@2",
            baseline="0.3",
            sign="<",
        ),
        Claim(
            "On limit-small a single vector still misses one answer in ten among its first twenty of 46",
            key="single-20",
            task="limit-small",
            metric="recall@20",
            baseline="0.9",
            sign="<",
        ),
        Claim(
            "Keyword search beats the single vector by more than 60 points",
            key="bm25",
            task="limit-small",
            metric="recall@2",
            baseline="single vector",
            margin=0.6,
        ),
        Claim(
            "MaxSim over the token states of the same untrained encoder beats its single vector by more than 60 points",
            key="maxsim",
            task="limit-small",
            metric="recall@2",
            baseline="single vector",
            margin=0.6,
        ),
        Claim(
            "At equal sizes, judgments that use all pairs of few documents are harder than random pairs",
            key="dense-random",
            task="generated sets",
            metric="recall@2",
            baseline="dense pattern",
            seeds=8,
        ),
        Claim(
            "At equal sizes, random pairs are harder than pairs that share no document",
            key="random-disjoint",
            task="generated sets",
            metric="recall@2",
            baseline="random pattern",
            seeds=8,
        ),
        Claim(
            "Four dimensions return all pairs of 100 documents exactly, where free optimisation fails at 12",
            key="witness",
            invariant=True,
        ),
        Claim("No text of limit-small is cut at the encoder's window", key="whole", invariant=True),
    ),
    presets={
        "smoke": {"seeds": 1, "dims": [2, 3, 4], "iterations": 1500, "patience": 200, "sweep": [0, 1],
                  "pattern_queries": 12, "pattern_sets": 1, "queries": 40},
        "laptop": {"seeds": 3, "dims": [4, 5, 6, 7, 8], "iterations": 20000, "patience": 1000, "sweep": [1, 3],
                   "pattern_queries": 60, "pattern_sets": 8, "queries": 1000},
        "paper": {"seeds": 5, "dims": [4, 5, 6, 7, 8, 10, 12, 16, 20, 24, 28, 32, 36, 40, 45], "iterations": 100000,
                  "patience": 1000, "sweep": [4, 5], "pattern_queries": 1000, "pattern_sets": 10, "queries": 1000},
    },
)  # fmt: skip

CUTS = (2, 10, 20)
PATTERNS: tuple[Pattern, ...] = ("dense", "random", "disjoint")
WIDTHS = (16, 32, 64, 128, 256)
MAXSIM_DOCUMENTS = 5000  # token vectors of more do not fit a small machine


def run(lab: Lab) -> Outcome:
    """Optimise freely, then rank limit-small and generated sets; on user data the retrieval part and its capacity."""
    outcome = Outcome()
    if lab.user_data is None:
        _critical_n(lab, outcome)
        _witness(lab, outcome)
        _patterns(lab, outcome)
    _systems(lab, outcome)
    return outcome


def _critical_n(lab: Lab, outcome: Outcome) -> None:
    config, dims = lab.config, lab.config["dims"]
    training = Training(iterations=config["iterations"], patience=config["patience"])
    values: dict[int, dict[int, int]] = {}
    for done, seed in enumerate(lab.seeds):
        start = None  # the value of one dimension less, once it is known
        for d in dims:
            found = find_critical_n(
                d, 2, restarts=1, seed=42 + seed, start=start, sweep=tuple(config["sweep"]), training=training,
                cache=None if lab.cache is None else lab.cache / "critical-n.json",
            )  # fmt: skip
            values.setdefault(seed, {})[d] = found.value
            start = found.value + d // 2
            lab.progress("critical n", done * len(dims) + dims.index(d) + 1, len(dims) * len(lab.seeds))
    steps = {f"seed {s}, {a} to {b}": (v[a], v[b]) for s, v in values.items() for a, b in pairwise(dims)}
    wider = Scores.of("all pairs", "d", {"critical_n": {step: float(pair[1]) for step, pair in steps.items()}})
    narrower = Scores.of("all pairs", "d - 1", {"critical_n": {step: float(pair[0]) for step, pair in steps.items()}})
    outcome.compare("critical-n", wider, narrower)
    best = {d: max(v[d] for v in values.values()) for d in dims}
    outcome.fact("critical n by dimension, k = 2", {f"seed {s}": v for s, v in values.items()})
    outcome.fact(f"critical n, best of {len(lab.seeds)} restarts", best)
    outcome.fact("critical n, the paper's", {d: PAPER_POINTS[d] for d in dims if d in PAPER_POINTS})
    outcome.fact("optimiser of critical n", f"Adam, rate {training.rate}, temperature {training.temperature}, float32, "
                 f"at most {training.iterations} iterations, patience {training.patience}")  # fmt: skip
    if len(dims) > 3:
        outcome.fact(
            "cubic fit of critical n, by power", np.polyfit(dims, list(best.values()), 3)[::-1].round(4).tolist()
        )
        outcome.fact("cubic fit, the paper's", list(PAPER_FIT))
    series = {f"measured, best of {len(lab.seeds)}": list(best.items()),
              "paper": [p for p in PAPER_POINTS.items() if p[0] <= 2 * max(dims)]}  # fmt: skip
    outcome.plot("critical-n", Plot("Documents of which every pair is returned", "dimension", "critical n", series))


def _witness(lab: Lab, outcome: Outcome) -> None:
    errors, margins = 0, []
    sizes = (10, 20, 50, 100)
    for n in sizes:
        subsets = all_subsets(n, 2)
        found = ranking_margins(subset_queries(subsets.documents.reshape(-1, 2), n), moment_curve(n, 2), subsets)
        errors += int((found <= 0).sum())
        margins.append((n, float(found.min())))
    twelve = all_subsets(12, 2)
    training = Training(iterations=lab.config["iterations"], patience=lab.config["patience"])
    free = [train_free_embeddings(twelve, 4, seed=42 + seed, training=training) for seed in lab.seeds]
    best = max(found.accuracy for found in free)
    outcome.invariant("witness", errors == 0 and not any(found.solved for found in free),
                      f"{errors} errors up to n = {sizes[-1]}, smallest margin {margins[-1][1]:.1e}; "
                      f"free optimisation ranks {best:.1%} of pairs at n = 12")  # fmt: skip
    outcome.fact("margin of the witness in 4 dimensions, by n", dict(margins))
    outcome.fact("dimension all pairs of 46 documents need", str(rank_bounds(all_subsets(46, 2), search=False)))
    outcome.plot("witness", Plot("What exactness costs: margin of the explicit vectors in 4 dimensions", "documents",
                                 "smallest margin", {"moment curve": margins}, log_x=True, log_y=True))  # fmt: skip


def _patterns(lab: Lab, outcome: Outcome) -> None:
    """Recall by pattern of judgments: as many queries, documents and attributes each."""
    path = lab.path("ir/limit-full-no-corpus") / "attributes.txt"
    attributes = distinct_attributes(path.read_text(encoding="utf-8").splitlines())
    m, sets = lab.config["pattern_queries"], lab.config["pattern_sets"]
    found: dict[str, dict[str, float]] = {}
    for pattern in PATTERNS:
        graphs = []
        for seed in range(sets):
            relevance = relevance_pattern(pattern, m, 2, documents=2 * m, seed=seed)
            made = make_corpus(relevance, attributes, seed=seed)
            graphs.append(query_graph(relevance))
            q, d = lab.embed(list(made.queries.values()), "query"), lab.embed([x.text for x in made.documents])
            hits = _hits(list(made.queries), [x.id for x in made.documents], q @ d.T)
            # Queries of one set share their documents, and with them their luck: the unit is the set.
            found.setdefault(pattern, {})[f"set {seed}"] = evaluate_run(made.qrels, hits, ["recall@2"]).mean("recall@2")
            lab.progress("patterns", len(found) * sets - sets + seed + 1, len(PATTERNS) * sets)
        outcome.fact(f"pattern {pattern}: density, strength, recall@2",
                     [round(graphs[0].density, 4), round(graphs[0].mean_strength, 2),
                      round(float(np.mean(list(found[pattern].values()))), 3)])  # fmt: skip
    scores = {pattern: Scores.of("generated", pattern, {"recall@2": values}) for pattern, values in found.items()}
    outcome.compare("dense-random", scores["random"], scores["dense"])
    outcome.compare("random-disjoint", scores["disjoint"], scores["random"])
    bars = [(pattern, s.mean("recall@2")) for pattern, s in scores.items()]
    outcome.plot("patterns", Plot(f"Single vector by pattern, {m} queries, {2 * m} documents", "pattern",
                                  "recall@2", {"single vector": bars}, kind="bar"))  # fmt: skip


def _systems(lab: Lab, outcome: Outcome) -> None:
    """Rank one set by single vector, its prefixes, keywords and token vectors."""
    data = lab.retrieval("ir/limit-small")
    chosen = list(data.qrels)[: lab.config["queries"] if lab.user_data is None else None]
    qrels, texts = {q: data.qrels[q] for q in chosen}, [data.queries[q] for q in chosen]
    ids, contents = [d.id for d in data.corpus], [d.content for d in data.corpus]
    q, d = lab.embed(texts, "query"), lab.embed(contents)
    runs = {"single vector": _hits(chosen, ids, q @ d.T)}
    runs["BM25"] = BM25(data.corpus, k=max(CUTS), k1=0.9, b=0.4)(Queries.of(dict(zip(chosen, texts, strict=True))))
    if len(contents) <= MAXSIM_DOCUMENTS:
        runs["MaxSim"] = _hits(chosen, ids, _maxsim(lab, texts, contents))
    metrics = [f"recall@{k}" for k in CUTS]
    scores = {name: evaluate_run(qrels, hits, metrics, task=data.name, system=name) for name, hits in runs.items()}
    for name, s in scores.items():
        outcome.fact(f"{name}: recall@2, 10, 20", [round(s.mean(metric), 3) for metric in metrics])
    _verdicts(lab, outcome, scores)
    _truncated(outcome, scores, qrels, ids, q, d)
    _capacity(lab, outcome, data, d.shape[1])


def _verdicts(lab: Lab, outcome: Outcome, scores: dict[str, Scores]) -> None:
    for key, name in (("bm25", "BM25"), ("maxsim", "MaxSim")):
        if name in scores:
            outcome.compare(key, scores[name], scores["single vector"], metric="recall@2")
            outcome.fact(f"McNemar p, both answers in the first two, {name} against single vector",
                         _mcnemar(scores[name], scores["single vector"]))  # fmt: skip
    if lab.user_data is None:
        outcome.compare("single", scores["single vector"], 0.3, metric="recall@2")
        outcome.compare("single-20", scores["single vector"], 0.9, metric="recall@20")
        room, texts = lab.encoder().room("document"), [d.content for d in lab.retrieval("ir/limit-small").corpus]
        longest = max(len(lab.encoder().token_spans(text)) for text in texts)
        outcome.invariant("whole", longest <= room, f"the longest has {longest} tokens of {room}")
    series = {name: [(k, s.mean(f"recall@{k}")) for k in CUTS] for name, s in scores.items()}
    outcome.plot("recall", Plot("Answers found by system", "k", "recall@k", series))


def _truncated(
    outcome: Outcome, scores: dict[str, Scores], qrels: dict[str, Any], ids: list[str], q: FloatArray, d: FloatArray
) -> None:
    whole = scores["single vector"]
    found = {d.shape[1]: [whole.mean(f"recall@{k}") for k in CUTS]}
    for width in (w for w in WIDTHS if w < d.shape[1]):
        cut = [x[:, :width] / np.linalg.norm(x[:, :width], axis=1, keepdims=True) for x in (q, d)]
        short = evaluate_run(qrels, _hits(list(qrels), ids, cut[0] @ cut[1].T), [f"recall@{k}" for k in CUTS])
        found[width] = [short.mean(f"recall@{k}") for k in CUTS]
    series = {f"recall@{k}": [(w, found[w][i]) for w in sorted(found)] for i, k in enumerate(CUTS)}
    outcome.fact("recall@2, 10, 20 by truncated width", {w: np.round(found[w], 3).tolist() for w in sorted(found)})
    outcome.plot("width", Plot("Single vector cut to its first dimensions", "dimensions", "recall", series, log_x=True))


def _capacity(lab: Lab, outcome: Outcome, data: Retrieval, width: int) -> None:
    training = Training(iterations=min(lab.config["iterations"], 3000), patience=500)
    found = rank_capacity(data.qrels, dim=width, training=training)
    outcome.fact("what width the judgments ask for", found.statements())
    series = {"trained on the judgments": [(trial.dim, trial.accuracy) for trial in found.trials]}
    outcome.plot(
        "capacity", Plot("Free embeddings on the judgments", "dimension", "relevant pairs ranked", series, log_x=True)
    )


def _hits(queries: Sequence[str], ids: Sequence[str], scores: FloatArray) -> Hits:
    """Rank every document by score, as deep as the metrics look."""
    deep = min(2 * max(CUTS), len(ids))
    best = np.argpartition(-scores, deep - 1, axis=1)[:, :deep]
    rows = ([(ids[j], float(scores[i, j])) for j in row] for i, row in enumerate(best))
    return Hits.build(queries, rows, k=max(CUTS))


class _Encoded:
    """Token vectors that are known already, by text."""

    def __init__(self, encoder: Any, queries: Sequence[str], documents: Sequence[str]) -> None:
        self.queries = dict(zip(queries, encoder.encode_query(queries), strict=True))
        self.documents = dict(zip(documents, encoder.encode_document(documents), strict=True))

    def encode_query(self, texts: Sequence[str]) -> list[FloatArray]:
        return [self.queries[text] for text in texts]

    def encode_document(self, texts: Sequence[str]) -> list[FloatArray]:
        return [self.documents[text] for text in texts]


def _maxsim(lab: Lab, queries: Sequence[str], documents: Sequence[str]) -> FloatArray:
    """Exact MaxSim of all pairs ``[q, n]`` over the token states of the lab's own encoder."""
    from isometry.encoders.late_interaction import LateInteraction

    score = MaxSim(_Encoded(LateInteraction(lab.encoder()), queries, documents))
    return np.stack([score(query, documents) for query in queries])


def _mcnemar(method: Scores, baseline: Scores) -> float:
    """Exact two-sided McNemar test of full recall among the first two."""
    from scipy.stats import binomtest

    a, b = (s.by_unit("recall@2") for s in (method, baseline))
    wins = sum(a[unit] == 1 and b[unit] < 1 for unit in a)
    losses = sum(a[unit] < 1 and b[unit] == 1 for unit in a)
    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
