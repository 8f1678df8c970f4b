"""HNSW recall: intrinsic dimension and insertion order decide how much an approximate index finds."""

from __future__ import annotations

import csv
import gzip
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
from isometry.diagnostics.subspace import subspace_cloud
from isometry.indexes.hnsw_graph import HNSWGraph
from isometry.lab import Card, Claim, Lab, Outcome
from isometry.stats import compare
from isometry.types import Scores

if TYPE_CHECKING:
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
        "dimension of the vectors, and the order in which they were inserted. Run on your own texts, it says what your "
        "index loses and which order would lose less."
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
        Claim("A search as wide as the set is exact on a connected graph", key="full-width", invariant=True),
        Claim("No node has more than M links, 2M on layer 0", key="degree", invariant=True),
        Claim("Local dimension of a sphere is estimated within 15 % up to dimension 10", key="lid", invariant=True),
    ),
    presets={
        "smoke": {"seeds": 1, "n": 1200, "queries": 200, "dim": 64, "intrinsic": [2, 8, 64], "control": 1200,
                  "sphere": 2000, "spheres": [2, 5], "neighbours": 30, "ef": [10, 50]},
        "laptop": {"seeds": 3, "n": 20000, "queries": 1000, "dim": 256, "intrinsic": [2, 8, 32, 128, 256],
                   "control": 10000, "sphere": 10000, "spheres": [2, 5, 10, 20], "neighbours": 100,
                   "ef": [10, 30, 50], "synthetic": 10500},
        "paper": {"seeds": 5, "n": 100000, "queries": 1000, "dim": 1024,
                  "intrinsic": [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024], "control": 10000,
                  "sphere": 20000, "spheres": [2, 5, 10, 20], "neighbours": 100,
                  "ef": [10, 30, 50], "synthetic": 10000},
    },
)  # fmt: skip

BACKENDS = ("graph", "usearch")


def run(lab: Lab) -> Outcome:
    """Sweep dimension and order; on user data the order study alone, with what it means for their index."""
    outcome = Outcome()
    _orders(lab, outcome, *_vectors(lab))
    if lab.user_data is None:
        _dimensions(lab, outcome)
        _control(lab, outcome)
        _invariants(lab, outcome)
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
    chosen = np.random.default_rng(0).permutation(len(texts))[:count]
    x = lab.embed([texts[i] for i in chosen])
    held_out = min(lab.config["queries"], max(1, len(x) // 5))
    return x[held_out:], x[:held_out]


def _study(lab: Lab, what: str, x: FloatArray, q: FloatArray, **options: Any) -> list[StudyRow]:
    grid = [Parameters(ef=ef) for ef in lab.config["ef"]]
    return index_study(
        x, q, parameters=grid, seeds=lab.seeds, progress=lambda done, all_: lab.progress(what, done, all_), **options
    )


def _pick(rows: list[StudyRow], backend: str, order: str, ef: int) -> Scores:
    return mean_over_seeds(r for r in rows if (r.backend, r.order, r.parameters.ef) == (backend, order, ef))


def _orders(lab: Lab, outcome: Outcome, x: FloatArray, q: FloatArray) -> None:
    local = lid(x, min(100, len(x) - 1))
    outcome.fact("vectors", f"{len(x)} x {x.shape[1]}, {len(q)} queries")
    outcome.fact("local dimension, quartiles", np.nanpercentile(local, [25, 50, 75]).round(1).tolist())
    outcome.fact("dimension: MLE, TwoNN, participation ratio",
                 [round(float(v), 1) for v in (mle_dimension(local), two_nn(x), participation_ratio(x))])  # fmt: skip
    orders = ("random", "lid_descending", "lid_ascending", "clusters")
    backends = tuple(installed_backends()) if lab.preset != "smoke" else BACKENDS
    rows = _study(lab, "orders", x, q, orders=orders, backends=backends, local_dimension=local)
    for backend in backends:
        for ef in lab.config["ef"]:
            means = {order: round(_pick(rows, backend, order, ef).mean("recall"), 4) for order in orders}
            outcome.fact(f"recall@10, {backend}, ef {ef}", means)
    for backend in BACKENDS:
        method, baseline = (_pick(rows, backend, f"lid_{way}ending", 10) for way in ("desc", "asc"))
        outcome.compare(f"order-{backend}", method, baseline)
    for backend in set(backends) - set(BACKENDS):
        method, baseline = (_pick(rows, backend, f"lid_{way}ending", 10) for way in ("desc", "asc"))
        result = compare(method, baseline)
        outcome.fact(f"descending - ascending, {backend}, ef 10", [round(v, 4) for v in (result.delta, *result.ci95)])


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
