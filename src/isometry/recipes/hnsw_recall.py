"""HNSW recall: intrinsic dimension and insertion order decide how much an approximate index finds."""

from __future__ import annotations

import csv
import gzip
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.diagnostics import lid, mle_dimension, participation_ratio, two_nn
from isometry.diagnostics.index_study import (
    Parameters,
    StudyRow,
    exact_neighbours,
    index_study,
    installed_backends,
    mean_over_seeds,
)
from isometry.diagnostics.ranking_shift import ranking_shift, search_both
from isometry.diagnostics.subspace import subspace_cloud
from isometry.errors import RecipeError
from isometry.indexes.hnsw_graph import HNSWGraph
from isometry.lab import Card, Claim, Lab, Outcome, Plot
from isometry.stats import compare
from isometry.tasks import evaluate_run
from isometry.types import Scores

if TYPE_CHECKING:
    from isometry.data.schemas import Retrieval
    from isometry.types import FloatArray

CARD = Card(
    slug="hnsw-recall",
    title="The Impacts of Data, Ordering, and Intrinsic Dimensionality on Recall in "
    "Hierarchical Navigable Small Worlds",
    arxiv="2405.17813",
    year=2024,
    kind="study",
    summary=(
        "Holds the parameters of an HNSW graph at what databases ship and asks what moves its recall: the intrinsic "
        "dimension of the vectors, and the order in which they were inserted; and whether the loss changes which "
        "encoder a benchmark prefers. Run on your own texts, it says what your index loses and which order would lose "
        "less."
    ),
    mechanism=(
        "isometry.diagnostics.index_study:index_study",
        "isometry.diagnostics.insertion_order:insertion_order",
        "isometry.indexes.hnsw_graph:HNSWGraph",
    ),
    parts=(
        "isometry.diagnostics.subspace:subspace_cloud",
        "isometry.diagnostics.intrinsic_dimension:lid",
        "isometry.diagnostics.intrinsic_dimension:two_nn",
        "isometry.diagnostics.isotropy:participation_ratio",
        "isometry.diagnostics.ranking_shift:ranking_shift",
    ),
    needs=("documents",),
    aliases=("HNSW recall", "insertion order", "local intrinsic dimensionality"),
    aspects={
        "task": "approximate nearest neighbour search",
        "method": "HNSW graphs, intrinsic dimension, insertion order",
        "data": "synthetic subspaces and text embeddings",
    },
    headline="recall falls by about 50 points from low to full intrinsic dimension; order moves it by up to 12.8",
    claims=(
        Claim(
            "Recall falls with intrinsic dimension: rank correlation at most -0.9 for every backend and width",
            key="dimension",
            task="synthetic subspaces",
            metric="spearman",
            baseline="-0.9",
            sign="<",
            seeds=3,
        ),
        Claim(
            "Inserting by descending local dimension beats ascending, in our graph at ef 10",
            key="order-graph",
            task="WordNet glosses",
            metric="recall",
            baseline="ascending local dimension",
            seeds=3,
        ),
        Claim(
            "Inserting by descending local dimension beats ascending, in usearch at ef 10",
            key="order-usearch",
            task="WordNet glosses",
            metric="recall",
            baseline="ascending local dimension",
            seeds=3,
        ),
        Claim(
            "Negative control: on isotropic data of constant dimension descending gains less than one point",
            key="control",
            task="isotropic cloud",
            metric="recall",
            baseline="ascending local dimension",
            sign="<",
            margin=-0.01,
            seeds=3,
        ),
        Claim(
            "A graph searched at ef 10 lowers the nDCG@10 of benchmarks, on average over encoders",
            key="benchmark",
            task="five retrieval sets",
            metric="ndcg@10",
            baseline="exact search",
            sign="<",
        ),
        Claim("A search as wide as the set is exact on a connected graph", key="full-width", invariant=True),
        Claim("No node has more than M links, 2M on layer 0", key="degree", invariant=True),
        Claim("Local dimension of a sphere is estimated within 15 % up to dimension 10", key="lid", invariant=True),
    ),
    presets={
        "smoke": {"seeds": 1, "n": 1200, "queries": 200, "dim": 64, "intrinsic": [2, 8, 64], "control": 1200,
                  "sphere": 2000, "spheres": [2, 5], "neighbours": 30, "ef": [10, 50],
                  "peer_seeds": 1, "sets": ["adi"], "documents": 82},
        "laptop": {"seeds": 3, "n": 12000, "queries": 1000, "dim": 256, "intrinsic": [2, 8, 32, 128, 256],
                   "control": 10000, "sphere": 10000, "spheres": [2, 5, 10, 20], "neighbours": 100,
                   "ef": [10, 30, 50], "synthetic": 8500, "peer_seeds": 1,
                   "sets": ["adi", "cisi", "cranfield", "npl", "scifact"], "documents": 1200},
        "paper": {"seeds": 5, "n": 100000, "queries": 1000, "dim": 1024,
                  "intrinsic": [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024], "control": 10000,
                  "sphere": 20000, "spheres": [2, 5, 10, 20], "neighbours": 100,
                  "ef": [10, 30, 50], "synthetic": 10000, "peer_seeds": 5,
                  "sets": ["adi", "cisi", "cranfield", "npl", "scifact"], "documents": 1000000},
    },
)  # fmt: skip

FEWEST = 50  # texts of a user: ten held out, forty to insert
BACKENDS = ("graph", "usearch")  # the others are peers, which fewer seeds confirm
CLAIMED = ("random", "lid_descending", "lid_ascending", "clusters")
OTHERS = ("centre_out", "edge_in", "time", "curve")  # texts were drawn at random: "time" is one more random order
_SHORT = {"lid_descending": "LID falls", "lid_ascending": "LID rises", "centre_out": "centre", "edge_in": "edge"}


def run(lab: Lab) -> Outcome:
    """Sweep dimension, order and benchmarks; on user data the orders, and the benchmark where there are judgments."""
    outcome = Outcome()
    _orders(lab, outcome, *_vectors(lab))
    if lab.user_data is None:
        _dimensions(lab, outcome)
        _control(lab, outcome)
        _invariants(lab, outcome)
        _benchmarks(lab, outcome, [lab.retrieval(f"ir/{name}") for name in lab.config["sets"]])
    else:
        with suppress(RecipeError):  # texts without judgments
            _benchmarks(lab, outcome, [lab.retrieval("")])
    return outcome


def _vectors(lab: Lab) -> tuple[FloatArray, FloatArray]:
    """Split embedded texts into a corpus and held-out queries."""
    count = lab.config["n"] + lab.config["queries"]
    if lab.user_data is None:
        with gzip.open(lab.path("wordnet") / "synsets.tsv.gz", "rt", encoding="utf-8", newline="") as file:
            texts = [row["definition"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    else:
        texts = [document.content for document in lab.documents("")]
    texts = sorted(set(texts))
    if len(texts) < FEWEST:
        raise RecipeError(f"Recall of graphs needs at least {FEWEST} different texts, got {len(texts)}.")
    chosen = np.random.default_rng(0).permutation(len(texts))[:count]
    x = lab.embed([texts[i] for i in chosen])
    held_out = min(lab.config["queries"], max(1, len(x) // 5))
    return x[held_out:], x[:held_out]


def _study(lab: Lab, what: str, x: FloatArray, q: FloatArray, **options: Any) -> list[StudyRow]:
    grid = [Parameters(ef=ef) for ef in lab.config["ef"]]
    options = {"parameters": grid, "seeds": lab.seeds, **options}
    return index_study(x, q, progress=lambda done, all_: lab.progress(what, done, all_), **options)


def _pick(rows: list[StudyRow], backend: str, order: str, ef: int) -> Scores:
    return mean_over_seeds(r for r in rows if (r.backend, r.order, r.parameters.ef) == (backend, order, ef))


def _orders(lab: Lab, outcome: Outcome, x: FloatArray, q: FloatArray) -> None:
    local = lid(x, min(100, len(x) - 1))
    outcome.fact("vectors", f"{len(x)} x {x.shape[1]}, {len(q)} queries")
    outcome.fact("local dimension, quartiles", np.nanpercentile(local, [25, 50, 75]).round(1).tolist())
    outcome.fact("dimension: MLE, TwoNN, participation ratio",
                 [round(float(v), 1) for v in (mle_dimension(local), two_nn(x), participation_ratio(x))])  # fmt: skip
    rows = _study(lab, "orders", x, q, orders=CLAIMED, backends=BACKENDS, local_dimension=local)
    rows += _study(lab, "further orders", x, q, orders=OTHERS, backends=("usearch",), local_dimension=local)
    peers = tuple(b for b in installed_backends() if b not in BACKENDS) if lab.preset != "smoke" else ()
    seeds = lab.seeds[: lab.config["peer_seeds"]]
    rows += _study(lab, "peers", x, q, orders=CLAIMED, backends=peers, local_dimension=local, seeds=seeds)
    _recalls(lab, outcome, rows, peers)
    for backend in (*BACKENDS, *peers):
        method, baseline = (_pick(rows, backend, f"lid_{way}ending", 10) for way in ("desc", "asc"))
        if backend in BACKENDS:
            outcome.compare(f"order-{backend}", method, baseline)
        else:
            result = compare(method, baseline)
            shown = [round(v, 4) for v in (result.delta, *result.ci95)]
            outcome.fact(f"descending - ascending, {backend}, ef 10, {len(seeds)} seed(s)", shown)


def _recalls(lab: Lab, outcome: Outcome, rows: list[StudyRow], peers: tuple[str, ...]) -> None:
    series: dict[str, list[tuple[str, float]]] = {}
    for backend in (*BACKENDS, *peers):
        orders = (*CLAIMED, *OTHERS) if backend == "usearch" else CLAIMED
        for ef in lab.config["ef"]:
            means = {order: round(_pick(rows, backend, order, ef).mean("recall"), 4) for order in orders}
            outcome.fact(f"recall@10, {backend}, ef {ef}", means)
            if ef == 10:
                series[backend] = [(_SHORT.get(order, order), mean) for order, mean in means.items()]
    spread = [row.recall.mean("recall") for row in rows
              if (row.backend, row.order, row.parameters.ef) == ("usearch", "random", 10)]  # fmt: skip
    outcome.fact("recall@10 of random orders, usearch, ef 10, by seed", np.round(spread, 4).tolist())
    by_order = dict(sorted(series.items(), key=lambda item: -len(item[1])))  # the one with all orders sets the axis
    outcome.plot("orders", Plot("Recall by order of insertion, ef 10", "", "recall@10", by_order, kind="scatter"))


def _dimensions(lab: Lab, outcome: Outcome) -> None:
    from scipy.stats import spearmanr

    n, held_out = lab.config.get("synthetic", lab.config["n"]), lab.config["queries"]
    recalls: dict[tuple[str, int, int], list[float]] = {}
    for intrinsic in lab.config["intrinsic"]:
        for seed in lab.seeds:
            cloud = subspace_cloud(n, lab.config["dim"], intrinsic, seed=seed)
            rows = index_study(cloud[held_out:], cloud[:held_out], backends=BACKENDS, seeds=(seed,),
                               parameters=[Parameters(ef=ef) for ef in lab.config["ef"]])  # fmt: skip
            for row in rows:
                key = (row.backend, row.parameters.ef, seed)
                recalls.setdefault(key, []).append(row.recall.mean("recall"))
        lab.progress("dimensions", lab.config["intrinsic"].index(intrinsic) + 1, len(lab.config["intrinsic"]))
    for (backend, ef, seed), values in recalls.items():
        if seed == lab.seeds[0]:
            by_dimension = dict(zip(lab.config["intrinsic"], np.round(values, 3).tolist(), strict=True))
            outcome.fact(f"recall@10 by intrinsic dimension, {backend}, ef {ef}", by_dimension)
    series = {f"{b}, ef {ef}": list(zip(lab.config["intrinsic"], v, strict=True))
              for (b, ef, seed), v in recalls.items() if seed == lab.seeds[0]}  # fmt: skip
    outcome.plot("dimension", Plot(f"Recall by intrinsic dimension, {n:,} vectors", "intrinsic dimension", "recall@10",
                                   series, log_x=True))  # fmt: skip
    rho = {
        f"{b}, ef {ef}, seed {s}": float(spearmanr(lab.config["intrinsic"], v)[0]) for (b, ef, s), v in recalls.items()
    }
    scores = Scores.of("synthetic subspaces", "HNSW", {"spearman": rho})
    outcome.compare("dimension", scores, -0.9 + 1e-9)  # at most -0.9, inclusive


def _control(lab: Lab, outcome: Outcome) -> None:
    dim = min(32, lab.config["dim"])
    cloud = subspace_cloud(lab.config["control"] + lab.config["queries"], dim, dim, seed=11)
    x, q = cloud[lab.config["queries"] :], cloud[: lab.config["queries"]]
    rows = _study(lab, "control", x, q, orders=("lid_descending", "lid_ascending"), backends=("graph",))
    outcome.compare("control", *(_pick(rows, "graph", f"lid_{way}ending", 10) for way in ("desc", "asc")))


def _benchmarks(lab: Lab, outcome: Outcome, sets: list[Retrieval]) -> None:
    """Rank encoders by nDCG@10 on judged sets, under exact search and under graphs."""
    grid = [Parameters(ef=ef) for ef in lab.config["ef"]]
    exact: dict[str, dict[str, Scores]] = {}
    found: dict[int, dict[str, dict[str, Scores]]] = {p.ef: {} for p in grid}
    for done, whole in enumerate(sets):
        data, name = _sample(whole, lab.config["documents"]), whole.name
        ids, asked = [d.id for d in data.corpus], list(data.qrels)
        for encoder, (x, q) in _encoders(lab, data).items():
            best, graphs = search_both(x, q, ids, asked, parameters=grid)
            exact.setdefault(name, {})[encoder] = evaluate_run(data.qrels, best, ["ndcg@10"])
            for ef, hits in graphs.items():
                found[ef].setdefault(name, {})[encoder] = evaluate_run(data.qrels, hits, ["ndcg@10"])
        lab.progress("benchmarks", done + 1, len(sets))
    for ef, by_set in found.items():
        shifts = {name: ranking_shift(_means(exact[name]), _means(scores)) for name, scores in by_set.items()}
        outcome.fact(f"encoders that change place, ef {ef}", {name: shift.moved for name, shift in shifts.items()})
        outcome.fact(f"Kendall tau of rankings, ef {ef}", {name: shift.tau for name, shift in shifts.items()})
        outcome.fact(
            f"nDCG@10 lost, ef {ef}",
            {
                name: {e: round(shift.exact[e] - shift.approximate[e], 4) for e in shift.exact}
                for name, shift in shifts.items()
            },
        )
    for name, scores in exact.items():
        outcome.fact(f"nDCG@10, exact, {name}", {e: round(s.mean("ndcg@10"), 4) for e, s in scores.items()})
    outcome.compare("benchmark", _over_encoders(found[lab.config["ef"][0]]), _over_encoders(exact))
    lowest = found[lab.config["ef"][0]]
    series = {name: [(e, exact[name][e].mean("ndcg@10") - s.mean("ndcg@10")) for e, s in scores.items()]
              for name, scores in lowest.items()}  # fmt: skip
    outcome.plot(
        "benchmarks", Plot("What a graph at ef 10 costs encoders", "encoder", "nDCG@10 lost", series, kind="bar")
    )


def _means(scores: dict[str, Scores]) -> dict[str, float]:
    return {name: s.mean("ndcg@10") for name, s in scores.items()}


def _over_encoders(by_set: dict[str, dict[str, Scores]]) -> Scores:
    """Mean over encoders, one unit a query."""
    units = {f"{name} {unit}": float(np.mean([s.by_unit("ndcg@10")[unit] for s in scores.values()]))
             for name, scores in by_set.items() for unit in next(iter(scores.values())).by_unit("ndcg@10")}  # fmt: skip
    return Scores.of("benchmarks", "mean of encoders", {"ndcg@10": units})


def _sample(data: Retrieval, most: int) -> Retrieval:
    """Keep every relevant document and as many others as ``most`` allows, none of them empty."""
    relevant = {d for grades in data.qrels.values() for d, grade in grades.items() if grade > 0}
    rest = [i for i, d in enumerate(data.corpus) if d.id not in relevant and d.content]
    spare = max(0, min(len(rest), most - len(relevant)))
    kept = {rest[i] for i in np.random.default_rng(0).choice(len(rest), spare, replace=False)} if rest else set()
    corpus = [d for i, d in enumerate(data.corpus) if d.content and (d.id in relevant or i in kept)]
    ids = {d.id for d in corpus}
    qrels = {q: {d: g for d, g in grades.items() if d in ids} for q, grades in data.qrels.items()}
    return replace(data, corpus=corpus, qrels=qrels)


def _encoders(lab: Lab, data: Retrieval) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Documents and queries by encoder: the lab's and its prefixes, its word pieces alone, latent semantic analysis."""
    from isometry.training.students import layer_features

    documents, queries = [d.content for d in data.corpus], [data.queries[q] for q in data.qrels]
    x, q = lab.embed(documents), lab.embed(queries, "query")
    found = {f"{lab.model} {width}": (x[:, :width], q[:, :width]) for width in (384, 128, 64, 32, 16)}
    model = lab.encoder().model
    pieces = layer_features(model, documents, layer=0), layer_features(model, queries, layer=0)
    centre = pieces[0].mean(axis=0)
    found["word pieces"] = (pieces[0] - centre, pieces[1] - centre)
    found |= {f"LSA {width}": _lsa(documents, queries, width) for width in (256, 64)}
    return {name: (_unit(a), _unit(b)) for name, (a, b) in found.items()}


def _lsa(documents: list[str], queries: list[str], width: int) -> tuple[FloatArray, FloatArray]:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(sublinear_tf=True, stop_words="english")
    table = words.fit_transform(documents)
    svd = TruncatedSVD(min(width, min(table.shape) - 1), random_state=0)
    return svd.fit_transform(table), svd.transform(words.transform(queries))


def _unit(vectors: FloatArray) -> FloatArray:
    """Scale rows to norm 1; one without any known word points along the first axis."""
    rows = np.asarray(vectors, np.float32).copy()
    rows[~rows.any(axis=1), 0] = 1
    return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def _invariants(lab: Lab, outcome: Outcome) -> None:
    cloud = subspace_cloud(1100, 16, 16, seed=5)
    x, q = cloud[100:], cloud[:100]
    graph = HNSWGraph.build(x, m=16, ef_construction=128)
    found, _ = graph.search(q, 10, ef=len(x))
    same = np.mean(
        [set(a) == set(b) for a, b in zip(found.tolist(), exact_neighbours(x, q, 10)[0].tolist(), strict=True)]
    )
    lost = len(graph.unreachable())
    outcome.invariant("full-width", bool(same == 1 or lost), f"{same:.0%} of queries exact, {lost} nodes unreachable")
    degrees = int(graph.counts[:, 0].max()), int(graph.counts[:, 1:].max(initial=0))
    outcome.invariant(
        "degree", degrees[0] <= 32 and degrees[1] <= 16, f"largest degree {degrees[0]}, above {degrees[1]}"
    )
    errors = {}
    for intrinsic in lab.config["spheres"]:
        sphere = subspace_cloud(lab.config["sphere"], 64, intrinsic + 1, seed=7)  # a sphere of that dimension
        errors[intrinsic] = mle_dimension(lid(sphere, lab.config["neighbours"])) / intrinsic - 1
    shown = ", ".join(f"{d}: {e:+.1%}" for d, e in errors.items())  # the estimator's bias grows with the dimension
    small = max(abs(error) for dimension, error in errors.items() if dimension <= 10)
    outcome.invariant("lid", small <= 0.15, f"relative error by dimension: {shown}")
