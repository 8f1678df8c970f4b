"""Learnable vector storage compression: the survey's methods under equal memory, on click prediction and retrieval."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from isometry.codes import DedupCode, TensorTrainCode
from isometry.data import load_set
from isometry.data.schemas import Interactions
from isometry.diagnostics.compression_study import (
    Compressed,
    compress_vectors,
    decode_times,
    nearest_by_product,
    neighbour_recall,
)
from isometry.errors import InputError, RecipeError
from isometry.lab import Card, Claim, Lab, Outcome, Plot
from isometry.modules import click_models
from isometry.modules.embedding_tables import CompressedEmbedding, compressed_table, stochastic_round
from isometry.numerics.budget import BudgetInfeasible
from isometry.training.click_through import ClickLog, ClickRun, ClickTrainer, train_click_model
from isometry.types import FloatArray, Scores

CARD = Card(
    slug="vector-storage-compression",
    title="Experimental Analysis of Large-scale Learnable Vector Storage Compression",
    arxiv="2311.15578",
    year=2024,
    kind="survey",
    summary=(
        "Puts the ways of shrinking a table of vectors behind one interface with a memory budget: sharing rows by "
        "hashing, factorising, deduplicating, and spending fewer or cheaper numbers on a row. Trains each inside a "
        "click model at several budgets and applies those that need no training to a retrieval index, counting every "
        "byte. On your own vectors or ratings it says what quality each method leaves at which real size."
    ),
    mechanism=(
        "isometry.modules.embedding_tables.table:CompressedEmbedding",
        "isometry.modules.embedding_tables.modulo_hash:ModuloHashEmbedding",
        "isometry.modules.embedding_tables.quotient_remainder:QuotientRemainderEmbedding",
        "isometry.modules.embedding_tables.tensor_train:TensorTrainEmbedding",
        "isometry.modules.embedding_tables.deep_hash:DeepHashEmbedding",
        "isometry.modules.embedding_tables.robe:ROBEEmbedding",
        "isometry.modules.embedding_tables.dedup:DedupEmbedding",
        "isometry.modules.embedding_tables.product:ProductEmbedding",
        "isometry.modules.embedding_tables.multi_granular:MultiGranularEmbedding",
        "isometry.modules.embedding_tables.adaptive:AdaptiveEmbedding",
        "isometry.modules.embedding_tables.integer:IntegerEmbedding",
        "isometry.modules.embedding_tables.learned_scale:LearnedScaleEmbedding",
        "isometry.modules.embedding_tables.mixed_dimension:MixedDimensionEmbedding",
        "isometry.modules.embedding_tables.auto_dimension:AutoDimensionEmbedding",
        "isometry.modules.embedding_tables.opt_embed:OptEmbedding",
        "isometry.modules.embedding_tables.deep_light:DeepLightEmbedding",
        "isometry.modules.embedding_tables.auto_srh:AutoSrhEmbedding",
        "isometry.modules.embedding_tables.soft_threshold:SoftThresholdEmbedding",
    ),
    parts=(
        "isometry.modules.embedding_tables.split:SplitEmbedding",
        "isometry.modules.embedding_tables.evolution:evolve",
        "isometry.modules.embedding_tables.universal:universal_hash",
        "isometry.modules.click_models.dlrm:DLRM",
        "isometry.modules.click_models.wide_deep:WideDeep",
        "isometry.modules.click_models.deep_fm:DeepFM",
        "isometry.modules.click_models.dcn:DCN",
        "isometry.training.click_through:ClickTrainer",
        "isometry.diagnostics.compression_study:compress_vectors",
        "isometry.codes.dedup:DedupCode",
        "isometry.codes.pruned:PrunedCode",
        "isometry.codes.tensor_train:TensorTrainCode",
        "isometry.codes.magnitude:MagnitudeCode",
        "isometry.codes.low_rank:LowRankCode",
    ),
    needs=("interactions", "documents"),
    aliases=("embedding table compression", "memory-efficient embeddings", "hash embeddings"),
    aspects={
        "task": "click prediction and retrieval under a memory budget",
        "method": "hashing, quantisation, tensor trains, dimension search, pruning",
        "data": "ratings of films; text embeddings",
    },
    headline="no method wins at every budget; INT16 is nearly lossless at half, hashing reaches a thousandth",
    claims=(
        Claim("AdaptEmb keeps more AUC than modulo hashing at a tenth of the memory", key="adaptemb-hash",
              task="MovieLens clicks", metric="auc", baseline="modulo hash", seeds=5),
        Claim("MGQE keeps more AUC than modulo hashing at a tenth of the memory", key="mgqe-hash",
              task="MovieLens clicks", metric="auc", baseline="modulo hash", seeds=5),
        Claim("INT16 with stochastic rounding is within .001 AUC of the full table", key="int16-full",
              task="MovieLens clicks", metric="auc", baseline="full table", margin=-0.001, seeds=5),
        Claim("Half the memory keeps no more AUC than the full table, beyond .002 of noise", key="full-half",
              task="MovieLens clicks, by method", metric="auc", baseline="budget 50 %", margin=-0.002),
        Claim("A tenth of the memory keeps no more AUC than a half, beyond .002 of noise", key="half-tenth",
              task="MovieLens clicks, by method", metric="auc", baseline="budget 10 %", margin=-0.002),
        Claim("A hundredth of the memory keeps no more AUC than a tenth, beyond .002 of noise", key="tenth-hundredth",
              task="MovieLens clicks, by method", metric="auc", baseline="budget 1 %", margin=-0.002),
        Claim("At a sixteenth of the size product codes keep more neighbours than truncated SVD", key="pq-svd",
              task="SciFact neighbours", metric="recall@10", baseline="SVD"),
        Claim("At a sixteenth of the size truncated SVD keeps more neighbours than pruning", key="svd-pruning",
              task="SciFact neighbours", metric="recall@10", baseline="magnitude pruning"),
        Claim("INT8 keeps more than 97 % of the neighbours at a quarter of the size", key="int8",
              task="SciFact neighbours", metric="recall@10", baseline="0.97"),
        Claim("Dedup saves nothing on dense embeddings: its ratio stays above .99", key="dedup-dense",
              task="SciFact vectors", metric="ratio", baseline="0.99", seeds=5),
        Claim("INT8 decodes faster than product codes", key="decode-int8-pq", task="decode 1024 rows",
              metric="milliseconds", baseline="PQ", sign="<"),
        Claim("Product codes decode faster than truncated SVD", key="decode-pq-svd", task="decode 1024 rows",
              metric="milliseconds", baseline="SVD", sign="<"),
        Claim("Truncated SVD decodes faster than tensor trains", key="decode-svd-tt", task="decode 1024 rows",
              metric="milliseconds", baseline="TT", sign="<"),
        Claim("Tensor trains decode faster than deep hash embeddings", key="decode-tt-dhe", task="decode 1024 rows",
              metric="milliseconds", baseline="DHE", sign="<"),
        Claim("Bytes counted are the bytes of the file, for every method", key="bytes", invariant=True),
        Claim("Stochastic rounding is unbiased within 4 standard errors", key="unbiased", invariant=True),
        Claim("A tensor train of full rank gives the table back", key="tt-full", invariant=True),
    ),
    presets={
        "smoke": {"seeds": 1, "rows": 4000, "d": 16, "budgets": [0.5, 0.1, 0.01], "batch": 512, "lr": 3e-3,
                  "epochs": 1, "evaluations": 1, "patience": 1, "hashes": 64, "generations": 1, "model": "DLRM",
                  "documents": 150, "queries": 30, "shares": [0.0625], "dhe_steps": 5},
        "laptop": {"seeds": 5, "rows": 100848, "d": 16, "budgets": [0.5, 0.1, 0.01, 0.001], "batch": 512, "lr": 3e-3,
                   "epochs": 6, "evaluations": 4, "patience": 4, "hashes": 256, "generations": 5, "model": "DLRM",
                   "documents": 5183, "queries": 300, "shares": [0.03125, 0.0625, 0.125, 0.25], "dhe_steps": 60},
        "paper": {"seeds": 5, "rows": 45840617, "d": 16, "budgets": [0.5, 0.1, 0.01, 0.001], "batch": 128, "lr": 1e-3,
                  "epochs": 10, "evaluations": 100, "patience": 40, "hashes": 1024, "generations": 30, "model": "DLRM",
                  "documents": 21015324, "queries": 3610, "shares": [0.03125, 0.0625, 0.125, 0.25], "dhe_steps": 600},
    },
)  # fmt: skip

METHODS = ("hash", "compoemb", "tt-rec", "dhe", "robe", "dedup", "mgqe", "adaptemb", "int", "alpt", "mde", "autodim",
           "optembed", "deeplight", "autosrh", "pep", "dpq")  # fmt: skip
REPEATED = (("full", 1.0), ("hash", 0.1), ("adaptemb", 0.1), ("mgqe", 0.1), ("int", 0.5))
POST_TRAINING = ("PQ", "MagPQ", "SVD", "MagSVD", "TT-SVD", "pruning")
SIXTEENTH = 0.0625


def run(lab: Lab) -> Outcome:
    """Both parts; on user data the one it fits: ratings for the click models, texts for retrieval."""
    outcome, ratings = Outcome(), _ratings(lab)
    if ratings is not None:
        _clicks(lab, outcome, ratings)
    if lab.user_data is None or ratings is None:
        x, q = _vectors(lab)
        _retrieval(lab, outcome, x, q)
        _decoding(lab, outcome, x)
    _invariants(outcome)
    return outcome


# Click prediction


def _ratings(lab: Lab) -> Interactions | None:
    """Return the ratings, or None where the user's data are of another kind."""
    try:
        found = load_set(lab.user_data or "recsys/ml-latest-small", kind="interactions", root=lab.data_root)
    except InputError:
        if lab.user_data is None:
            raise
        return None
    assert isinstance(found, Interactions)
    if found.ratings is None:
        raise RecipeError(f"{lab.user_data} has no ratings: click prediction needs what was disliked, too.")
    return found


def _genres(lab: Lab) -> dict[str, str]:
    path = lab.path("recsys/ml-latest-small") / "movies.tsv.gz"
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return {row["movieId"]: row["genres"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)}


def _click_log(lab: Lab, ratings: Interactions) -> ClickLog:
    """A click is a rating of at least four fifths of the highest (4 of 5)."""
    assert ratings.ratings is not None
    columns = {"user": list(ratings.users), "item": list(ratings.items)}
    if lab.user_data is None:
        genres = _genres(lab)
        columns["genres"] = [genres[item] for item in ratings.items]
    rows = np.random.default_rng(0).permutation(len(ratings.users))[: lab.config["rows"]]
    coded = {name: np.unique(np.asarray(values)[rows], return_inverse=True)[1] for name, values in columns.items()}
    labels = (ratings.ratings >= 0.8 * ratings.ratings.max())[rows].astype(np.float32)
    return ClickLog(np.stack(list(coded.values()), 1).astype(np.int64), labels,
                    {name: int(values.max()) + 1 for name, values in coded.items()})  # fmt: skip


@dataclass(frozen=True)
class _Bench:
    """Trains any method at any budget on one split of one log; two budgets of one configuration share a run."""

    lab: Lab
    log: ClickLog
    known: dict[Any, tuple[ClickRun, float]] = field(default_factory=dict)

    def table(self, method: str, budget: float, freq: Any, seed: int) -> CompressedEmbedding:
        config = self.lab.config
        options = {"dhe": {"hashes": config["hashes"]}, "optembed": {"generations": config["generations"]}}
        n = sum(self.log.fields.values())
        return compressed_table(method, n, config["d"], budget, freq=freq, fields=self.log.fields, seed=seed,
                                **options.get(method, {}))  # fmt: skip

    def train(self, method: str, budget: float, seed: int) -> tuple[ClickRun, float]:
        """Return the run, and the milliseconds it takes to decode 1024 rows afterwards."""
        config, parts = self.lab.config, self.log.split(seed=seed)
        table = self.table(method, budget, parts[0].frequencies(), seed)
        if (key := (method, seed, str(table.config), table.n_bytes())) in self.known:
            return self.known[key]
        network = getattr(click_models, config["model"])
        trainer = ClickTrainer(
            lambda t: network(t, len(self.log.fields), config["d"]), batch=config["batch"], lr=config["lr"],
            epochs=config["epochs"], evaluations=config["evaluations"], patience=config["patience"], seed=seed,
        )  # fmt: skip
        _, result = train_click_model(trainer, table, parts)
        self.known[key] = result, float(np.median(decode_times(table.decode, table.n)))
        return self.known[key]


def _clicks(lab: Lab, outcome: Outcome, ratings: Interactions) -> None:
    bench = _Bench(lab, _click_log(lab, ratings))
    budgets = lab.config["budgets"]
    outcome.fact("clicks", f"{len(bench.log)} ratings, fields {dict(bench.log.fields)}, d = {lab.config['d']}")
    jobs = [("full", 1.0), *((method, budget) for method in METHODS for budget in budgets)]
    first: dict[tuple[str, float], ClickRun] = {}
    rows, refused = [], dict[str, list[float]]()
    for done, (method, budget) in enumerate(jobs):
        lab.progress("training at a budget", done, len(jobs))
        try:
            first[method, budget], latency = bench.train(method, budget, 0)
        except BudgetInfeasible:
            refused.setdefault(method, []).append(budget)
            continue
        rows.append(_row(method, budget, first[method, budget], latency))
    outcome.fact("methods by budget, seed 0", rows)
    outcome.fact("infeasible budgets", refused)
    _repeated(lab, outcome, bench, first)
    _by_budget(outcome, first)
    _click_plots(outcome, first)


def _row(method: str, budget: float, run: ClickRun, latency: float) -> dict[str, Any]:
    return {"method": method, "budget": budget, "auc": round(run.auc, 4), "log-loss": round(run.log_loss, 4),
            "ratio": round(run.ratio, 5), "training kB": round(run.training_bytes / 1e3, 1),
            "inference kB": round(run.inference_bytes / 1e3, 1), "seconds": round(run.seconds, 1), "steps": run.steps,
            "decode ms": round(latency, 3)}  # fmt: skip


def _repeated(lab: Lab, outcome: Outcome, bench: _Bench, first: Mapping[tuple[str, float], ClickRun]) -> None:
    """The claims on pairs of methods, by seed: another seed is another split, initial state and order."""
    values: dict[str, dict[str, float]] = {}
    for method, budget in REPEATED:
        if (method, budget) not in first:
            continue
        for seed in lab.seeds:
            lab.progress(f"repeating {method}", seed, len(lab.seeds))
            result = first[method, budget] if seed == 0 else bench.train(method, budget, seed)[0]
            values.setdefault(method, {})[str(seed)] = result.auc
    scores = {method: Scores.of("clicks", method, {"auc": by_seed}) for method, by_seed in values.items()}
    for method, baseline, key in (("adaptemb", "hash", "adaptemb-hash"), ("mgqe", "hash", "mgqe-hash"),
                                  ("int", "full", "int16-full")):  # fmt: skip
        if method in scores and baseline in scores:
            outcome.compare(key, scores[method], scores[baseline])
    outcome.fact("AUC by seed", {m: {s: round(v, 4) for s, v in by_seed.items()} for m, by_seed in values.items()})


def _by_budget(outcome: Outcome, first: Mapping[tuple[str, float], ClickRun]) -> None:
    """The claims on budgets, by method: each that supports both."""
    for key, more, less in (("full-half", 1.0, 0.5), ("half-tenth", 0.5, 0.1), ("tenth-hundredth", 0.1, 0.01)):
        both = [m for m in METHODS if (m, less) in first and (("full" if more == 1 else m), more) in first]
        if both:
            large = {m: first["full" if more == 1 else m, more].auc for m in both}
            small = {m: first[m, less].auc for m in both}
            outcome.compare(key, Scores.of("clicks", f"{more:g}", {"auc": large}),
                            Scores.of("clicks", f"{less:g}", {"auc": small}))  # fmt: skip


def _click_plots(outcome: Outcome, first: Mapping[tuple[str, float], ClickRun]) -> None:
    curves: dict[str, list[tuple[float, float]]] = {}
    for (method, _), result in first.items():
        if (point := (100 * result.ratio, result.auc)) not in curves.setdefault(method, []):
            curves[method].append(point)
    curves = {method: sorted(points) for method, points in curves.items()}
    outcome.plot("auc", Plot("Click prediction under a memory budget", "real size, % of the full table",
                             "AUC (test)", curves, log_x=True))  # fmt: skip
    at = {m: first[m, b] for b in (0.1, 0.5, 1.0) for m in ("full", *METHODS) if (m, b) in first and
          not any((m, smaller) in first for smaller in (0.1, 0.5) if smaller < b)}  # fmt: skip
    bars = {"training": [(m, r.training_bytes / 1e3) for m, r in at.items()],
            "inference": [(m, r.inference_bytes / 1e3) for m, r in at.items()]}  # fmt: skip
    outcome.plot("memory", Plot("Memory of the table at 10 % (or the least budget above)", "method", "kB", bars,
                                kind="bar"))  # fmt: skip


# Retrieval


def _vectors(lab: Lab) -> tuple[FloatArray, FloatArray]:
    """Embedded documents and queries; of user data, some documents serve as queries."""
    count, asked = lab.config["documents"], lab.config["queries"]
    if lab.user_data is None:
        found = lab.retrieval("ir/scifact")
        texts = [document.content for document in found.corpus][:count]
        return lab.embed(texts), lab.embed(list(found.queries.values())[:asked], role="query")
    texts = sorted({document.content for document in lab.documents("")})
    x = lab.embed([texts[i] for i in np.random.default_rng(0).permutation(len(texts))[: count + asked]])
    held_out = min(asked, len(x) // 5)
    if len(x) - held_out < 32 or not held_out:
        raise RecipeError(f"The compression study needs at least 40 documents, got {len(texts)}.")
    return x[held_out:], x[:held_out]


def _retrieval(lab: Lab, outcome: Outcome, x: FloatArray, q: FloatArray) -> None:
    truth = nearest_by_product(x, q, 10)
    rows, curves, at_sixteenth = [], dict[str, list[tuple[float, float]]](), dict[str, Scores]()

    def note(name: str, budget: float, made: Compressed) -> Scores:
        scores = neighbour_recall(name, made.vectors, q, truth)
        recall = scores.mean("recall@10")
        rows.append({"method": name, "budget": round(budget, 4), "ratio": round(made.ratio, 4),
                     "recall@10": round(recall, 4), "compress s": round(made.seconds, 2)})  # fmt: skip
        curves.setdefault(name, []).append((100 * made.ratio, recall))
        return scores

    for budget in lab.config["shares"]:
        for done, name in enumerate(POST_TRAINING):
            lab.progress(f"compressing to {budget:.3g}", done, len(POST_TRAINING))
            try:
                scores = note(name, budget, compress_vectors(name, x, budget))
            except BudgetInfeasible:
                continue
            if budget == SIXTEENTH:
                at_sixteenth[name] = scores
    outcome.compare("int8", note("INT8", 0.25, compress_vectors("INT", x, 0.25)), 0.97)
    note("INT16", 0.5, compress_vectors("INT", x, 0.5))
    for method, baseline, key in (("PQ", "SVD", "pq-svd"), ("SVD", "pruning", "svd-pruning")):
        if method in at_sixteenth and baseline in at_sixteenth:
            outcome.compare(key, at_sixteenth[method], at_sixteenth[baseline])
    _dedup(lab, outcome, x)
    outcome.fact("retrieval", f"{len(x)} vectors of width {x.shape[1]}, {len(q)} queries")
    outcome.fact("compressors by budget", rows)
    outcome.plot("recall", Plot("Neighbours kept by post-training compression", "real size, % of the vectors",
                                "recall@10 against float", curves, log_x=True))  # fmt: skip


def _dedup(lab: Lab, outcome: Outcome, x: FloatArray) -> None:
    """Blocks of ten vectors, by seed of the hashes."""
    ratios = {str(seed): DedupCode(10, seed=seed).fit(x).ratio for seed in lab.seeds}
    outcome.compare("dedup-dense", Scores.of("vectors", "Dedup", {"ratio": ratios}), 0.99)


def _decoding(lab: Lab, outcome: Outcome, x: FloatArray) -> None:
    dhe = {"hashes": lab.config["hashes"], "fit_steps": lab.config["dhe_steps"]}
    made = {name: compress_vectors(method, x, budget, **(dhe if name == "DHE" else {})) for name, method, budget in (
        ("INT8", "INT", 0.25), ("PQ", "PQ", SIXTEENTH), ("SVD", "SVD", SIXTEENTH), ("TT", "TT-SVD", SIXTEENTH),
        ("DHE", "DHE", SIXTEENTH))}  # fmt: skip
    times = {name: dict(enumerate(decode_times(table.decode, len(x)))) for name, table in made.items()}
    scores = {name: Scores.of("decoding", name, {"milliseconds": {str(i): v for i, v in taken.items()}})
              for name, taken in times.items()}  # fmt: skip
    for faster, slower in (("INT8", "PQ"), ("PQ", "SVD"), ("SVD", "TT"), ("TT", "DHE")):
        outcome.compare(f"decode-{faster.lower()}-{slower.lower()}", scores[faster], scores[slower])
    medians = {name: float(np.median(list(taken.values()))) for name, taken in times.items()}
    outcome.fact(
        "decode 1024 rows, milliseconds of processor time", {name: round(value, 3) for name, value in medians.items()}
    )
    outcome.plot("decoding", Plot("Decoding 1024 vectors", "method", "milliseconds of processor time (median of 7)",
                                  {"decode": list(medians.items())}, kind="bar"))  # fmt: skip


def _invariants(outcome: Outcome) -> None:
    table = np.random.default_rng(0).standard_normal((500, 16)).astype(np.float32)
    differing = []
    with TemporaryDirectory() as folder:
        path = Path(folder) / "table.safetensors"
        for method in METHODS:
            options = {"dhe": {"hashes": 16, "fit_steps": 2}}.get(method, {})
            made = compressed_table(method, 500, 16, 0.6, **options).compress(table)
            made.save(path)
            content = path.read_bytes()
            if len(content) - 8 - int.from_bytes(content[:8], "little") != made.n_bytes():
                differing.append(method)
    outcome.invariant("bytes", not differing, f"{len(METHODS)} methods; differing: {differing or 'none'}")
    draws = stochastic_round(torch.full((200_000,), 2.3), torch.Generator().manual_seed(0)).double()
    error = abs(float(draws.mean()) - 2.3) / float(draws.std() / len(draws) ** 0.5)
    outcome.invariant("unbiased", error < 4, f"{error:.2f} standard errors")
    lost = float(np.abs(TensorTrainCode(rank=10**6).fit(table).inverse_transform() - table).max())
    outcome.invariant("tt-full", lost < 1e-5, f"largest error {lost:.1e}")
