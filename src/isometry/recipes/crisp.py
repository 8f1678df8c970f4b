"""CRISP: token vectors trained with their clustering inside the loss, so that few centroids can stand for a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from isometry.encoders.late_interaction import LateInteraction
from isometry.errors import RecipeError
from isometry.indexes.maxsim import maxsim_scores
from isometry.lab import Card, Claim, Lab, Outcome, Plot
from isometry.modules.token_projection import TokenProjection
from isometry.modules.token_reduction import Clusters, Reduction, reduce_embeddings, reducers, within_share
from isometry.modules.token_reduction.ragged import offsets_of, padded
from isometry.tasks import evaluate_run
from isometry.training.late_interaction import MaxSimTraining, train_head, train_late_interaction
from isometry.types import Embeddings, Role, Scores

CARD = Card(
    slug="crisp",
    title="CRISP: Clustering Multi-Vector Representations for Denoising and Pruning",
    arxiv="2505.11471",
    year=2025,
    kind="system",
    summary=(
        "A late-interaction model keeps one vector per token, which makes its index large. Here each text's token "
        "vectors are clustered inside the training loss and MaxSim is computed between centroids, so that the model "
        "learns vectors which survive the clustering: 4 to 32 vectors stand for a text, on both sides."
    ),
    mechanism=(
        "isometry.modules.token_reduction.clusters:Clusters",
        "isometry.modules.token_reduction.segments:segment_mean",
        "isometry.training.late_interaction:train_late_interaction",
    ),
    parts=(
        "isometry.encoders.late_interaction:LateInteraction",
        "isometry.modules.token_projection:TokenProjection",
        "isometry.modules.token_reduction.agglomerative:Agglomerative",
        "isometry.modules.token_reduction.lloyd:lloyd",
        "isometry.modules.token_reduction.ragged:reduce_embeddings",
        "isometry.modules.token_reduction.selection:Tail",
        "isometry.objectives.maxsim:MaxSimInfoNCE",
        "isometry.training.late_interaction:train_head",
    ),
    needs=("retrieval",),
    aliases=("CRISP", "ColBERT", "late interaction", "token pooling", "multi-vector", "MaxSim"),
    aspects={
        "task": "multi-vector retrieval",
        "method": "differentiable clustering of tokens",
        "data": "judged queries",
    },
    headline="BEIR nDCG@10: all tokens 54.3, C8x32 54.5 with 2.9x fewer vectors, C4x8 52.3 with 11x fewer",
    claims=(
        Claim(
            "Trained with C4x8 inside the loss beats clustering afterwards, at equal training steps",
            key="trained",
            task="SciFact",
            metric="ndcg@10",
            baseline="C4x8 on the model trained with all tokens",
            seeds=3,
        ),
        Claim(
            "Trained C4x8 beats trained Tail 4x8, which keeps as many vectors",
            key="tail",
            task="SciFact",
            metric="ndcg@10",
            baseline="Tail 4x8",
            seeds=3,
        ),
        Claim(
            "Training with clusters lowers the share of token variance within them",
            key="variance",
            task="SciFact documents",
            metric="within",
            baseline="the model trained with all tokens",
            sign="<",
            seeds=3,
        ),
        Claim("As many clusters as tokens: scores are those of all tokens", key="identity", invariant=True),
        Claim("The index holds exactly the vectors that were kept", key="bytes", invariant=True),
    ),
    presets={
        "smoke": {"seeds": 1, "documents": 80, "asked": 40, "max_tokens": 48, "dim": 32, "warm": 15, "steps": 15,
                  "batch": 16, "lr": 0.001, "layers": 0, "arms": ["C4x8", "Tail 4x8"], "after": ["Ward 4x8"],
                  "sweep": [2, 8]},
        "laptop": {"seeds": 3, "documents": 1000, "asked": 1000, "max_tokens": 128, "dim": 96, "warm": 200,
                   "steps": 200, "batch": 32, "lr": 0.001, "layers": 0, "arms": ["C4x8", "C8x32", "Tail 4x8"],
                   "after": ["Ward 4x8", "K2", "Pool2", "Pool4", "SV"], "sweep": [1, 2, 4, 8, 16, 32]},
        "paper": {"seeds": 3, "documents": 10000000, "asked": 10000000, "max_tokens": 512, "dim": 2048, "warm": 20000,
                  "steps": 20000, "batch": 128, "lr": 0.00002, "layers": 18,
                  "arms": ["C4x8", "C8x32", "C25", "C50", "Tail 4x8", "Tail 8x32", "K4", "K2", "SV"],
                  "after": ["Ward 4x8", "Pool2", "Pool4", "Pool6"], "sweep": [1, 2, 4, 8, 16, 32]},
    },
)  # fmt: skip

Ids = Mapping[str, str]
ROLES: tuple[Role, ...] = ("query", "document")


@dataclass
class _Bench:
    """Texts and judgments to train and to test on; the frozen transformer's states of all of them, if it stays so."""

    lab: Lab
    model: LateInteraction
    queries: Ids
    documents: Ids
    pairs: Sequence[tuple[str, str]]
    judged: Mapping[str, Mapping[str, int]]
    states: dict[Role, Embeddings] = field(default_factory=dict)

    def train(self, start: LateInteraction, name: str, steps: int, seed: int) -> tuple[LateInteraction, list[float]]:
        """Train with the named reducer inside the loss."""
        c, text = self.lab.config, f"training {name}, seed {seed}"
        settings = MaxSimTraining(reducers(name), steps, batch_size=c["batch"], lr=c["lr"], seed=seed)
        report = lambda done, total: self.lab.progress(text, done, total)  # noqa: E731
        if not self.states:
            done = train_late_interaction(start, self.queries, self.documents, self.pairs, layers=c["layers"],
                                          settings=settings, progress=report)  # fmt: skip
            return done.model, list(done.losses)
        assert start.head is not None
        head = train_head(self.states["query"], self.states["document"], self.pairs, head=start.head,
                          settings=settings, progress=report)  # fmt: skip
        return start.replace(head=head.head), list(head.losses)

    def tokens(self, model: LateInteraction, role: Role) -> Embeddings:
        """Every token vector of the test queries or of the documents."""
        bare = model.replace(reducer=None)
        texts = {q: self.queries[q] for q in self.judged} if role == "query" else self.documents
        if not self.states:
            return bare.embed(list(texts.values()), list(texts), role=role, on_truncate="ignore")
        states = self.states[role]
        rows = {str(i): row for row, i in enumerate(states.ids)}
        states = states.take([rows[i] for i in texts])
        with torch.inference_mode():
            vectors = bare.project(torch.from_numpy(states.vectors)).numpy()
        return replace(states, vectors=vectors, space=bare.space)

    def search(self, tokens: Mapping[Role, Embeddings], name: str) -> tuple[dict[str, float], dict[Role, Reduction]]:
        """nDCG@10 by query after the named reduction, and what it kept."""
        found = {role: reduce_embeddings(tokens[role], reducers(name)) for role in tokens}
        (queries, _), (documents, _) = found["query"], found["document"]
        scores = maxsim_scores(queries, documents)
        run = {q: dict(zip(documents.ids.tolist(), row.tolist(), strict=True))
               for q, row in zip(queries.ids.tolist(), scores, strict=True)}  # fmt: skip
        return evaluate_run(self.judged, run, ["ndcg@10"]).by_unit("ndcg@10"), {r: f[1] for r, f in found.items()}


@dataclass
class _Measured:
    """What was measured, by arm and unit, a list with one value for each seed."""

    quality: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    within: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    kept: dict[str, dict[Role, Reduction]] = field(default_factory=dict)
    losses: dict[str, list[float]] = field(default_factory=dict)
    sweep: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def add(self, table: dict[str, dict[str, list[float]]], arm: str, values: Mapping[str, float]) -> None:
        for unit, value in values.items():
            table.setdefault(arm, {}).setdefault(unit, []).append(value)


def run(lab: Lab) -> Outcome:
    """Train with every token, go on with each reducer, and compare with reducing afterwards."""
    outcome, bench, measured = Outcome(), _bench(lab), _Measured()
    outcome.fact("data", f"{len(bench.documents)} documents, {len(bench.pairs)} training pairs, "
                         f"{len(bench.judged)} test queries")  # fmt: skip
    what = (
        "head alone, on states of the frozen transformer" if bench.states else f"head and {lab.config['layers']} layers"
    )
    outcome.fact("trained", what)
    for seed in lab.seeds:
        _arms(bench, measured, seed)
    _report(outcome, measured)
    _invariants(outcome, bench)
    return outcome


def _bench(lab: Lab) -> _Bench:
    """Judged documents and some others; the user's judged queries are split in two halves, to train and to test."""
    c = lab.config
    whole = lab.retrieval("ir/scifact", "test")
    rng = np.random.default_rng(0)
    if lab.user_data is None:
        learned, judged = lab.retrieval("ir/scifact", "train"), dict(whole.qrels)
        texts, training = {**learned.queries, **whole.queries}, dict(learned.qrels)
    else:
        order = [str(q) for q in rng.permutation(sorted(whole.qrels))]
        half = len(order) // 2
        if half < 2:
            raise RecipeError(
                f"CRISP trains on half of your judged queries: give at least 4 judged queries, not {len(order)}."
            )
        texts, training = dict(whole.queries), {q: whole.qrels[q] for q in order[:half]}
        judged = {q: whole.qrels[q] for q in order[half:]}
    training, judged = (dict(list(some.items())[: c["asked"]]) for some in (training, judged))
    pairs = [(q, d) for q, grades in training.items() for d, grade in grades.items() if grade > 0]
    wanted = {d for some in (training, judged) for grades in some.values() for d in grades}
    contents = {d.id: d.content for d in whole.corpus}
    others = [d for d in rng.permutation(sorted(contents)) if d not in wanted]
    chosen = sorted(wanted | set(others[: max(0, c["documents"] - len(wanted))]))
    model = LateInteraction.of(lab.model, max_tokens=c["max_tokens"])
    head = TokenProjection(model.dim, c["dim"])
    queries = {q: texts[q] for q in (*training, *judged)}
    bench = _Bench(lab, model.replace(head=head), queries, {d: contents[d] for d in chosen}, pairs, judged)
    if not c["layers"]:
        bare = model.replace(normalize=False)
        for role, some in zip(ROLES, (bench.queries, bench.documents), strict=True):
            bench.states[role] = bare.embed(
                list(some.values()), list(some), role=role, on_truncate="ignore",
                progress=lambda done, total, role=role: lab.progress(f"reading each {role}", done, total),  # type: ignore[misc]
            )  # fmt: skip
    return bench


def _arms(bench: _Bench, measured: _Measured, seed: int) -> None:
    """One seed: warm start with every token, then as many steps again with every token or with a reducer."""
    c = bench.lab.config
    start = bench.model.replace(head=TokenProjection(bench.model.head.in_dim, c["dim"], seed=seed))  # type: ignore[union-attr]
    warm, losses = bench.train(start, "MV", c["warm"], seed)
    measured.losses.setdefault("MV, warm start", losses)
    for arm in ("MV", *c["arms"]):
        model, losses = bench.train(warm, arm, c["steps"], seed + 1000)
        measured.losses.setdefault(arm, losses)
        tokens = {role: bench.tokens(model, role) for role in ROLES}
        names = {f"{arm} trained" if arm != "MV" else "MV": arm}
        if arm == "MV":
            names |= {f"{name} after": name for name in (*c["arms"], *c["after"])}
        for label, name in names.items():
            quality, measured.kept[label] = bench.search(tokens, name)
            measured.add(measured.quality, label, quality)
        if arm in ("MV", "C4x8"):
            measured.add(measured.within, arm, _within(tokens["document"], Clusters(k=8)))
            if seed == bench.lab.seeds[0]:
                measured.sweep[arm] = [(k, _mean(bench.search(tokens, f"C4x{k}")[0])) for k in c["sweep"]]
        bench.lab.progress(f"arms of seed {seed}", ("MV", *c["arms"]).index(arm) + 1, len(c["arms"]) + 1)


def _within(tokens: Embeddings, reducer: Clusters) -> dict[str, float]:
    """Share of token variance within clusters, by document of more tokens than clusters."""
    rows = np.flatnonzero(np.diff(offsets_of(tokens)) > (reducer.k or 0))
    shares: dict[str, float] = {}
    for start in range(0, len(rows), 200):
        part = rows[start : start + 200]
        x, mask = padded(tokens, part)
        share = within_share(x, reducer.assign(x, mask), reducer.k or 1, mask).tolist()
        shares.update(zip(tokens.ids[part].tolist(), share, strict=True))
    return shares


def _scores(task: str, metric: str, arm: str, table: Mapping[str, Mapping[str, list[float]]]) -> Scores:
    return Scores.of(task, arm, {metric: {unit: float(np.mean(values)) for unit, values in table[arm].items()}})


def _mean(values: Mapping[str, Any]) -> float:
    return float(np.mean([np.mean(v) for v in values.values()]))


def _report(outcome: Outcome, measured: _Measured) -> None:
    quality, kept = measured.quality, measured.kept
    for key, baseline in (("trained", "C4x8 after"), ("tail", "Tail 4x8 trained")):
        outcome.compare(key, *(_scores("retrieval", "ndcg@10", arm, quality) for arm in ("C4x8 trained", baseline)))
    means = {arm: round(_mean(values), 4) for arm, values in quality.items()}
    outcome.fact("nDCG@10, mean over queries and seeds", means)
    outcome.fact("nDCG@10 by seed", {arm: np.round(np.mean(list(v.values()), axis=0), 4).tolist()
                                     for arm, v in quality.items()})  # fmt: skip
    outcome.fact("share of vectors kept, query and document",
                 {arm: [round(k[role].share, 3) for role in ROLES] for arm, k in kept.items()})  # fmt: skip
    outcome.fact("bytes of the document index", {arm: k["document"].bytes for arm, k in kept.items()})
    if measured.within:  # unless no document has more than 8 tokens
        outcome.compare("variance", *(_scores("documents", "within", arm, measured.within) for arm in ("C4x8", "MV")))
        within = {arm: _mean(values) for arm, values in measured.within.items()}
        outcome.fact("variance within 8 clusters", {arm: round(value, 4) for arm, value in within.items()})
        outcome.fact("ratio of that variance, C4x8 to MV", round(within["C4x8"] / within["MV"], 4))
    _plots(outcome, measured, means)


def _plots(outcome: Outcome, measured: _Measured, means: Mapping[str, float]) -> None:
    series: dict[str, list[tuple[float, float]]] = {}
    for arm, k in measured.kept.items():
        kind = arm.rpartition(" ")[2]
        name = {"trained": "reduced in training", "after": "reduced afterwards"}.get(kind, "all tokens")
        series.setdefault(name, []).append((k["document"].bytes / 1e6, means[arm]))
    outcome.plot("quality and size", Plot("Quality by size of the document index", "megabytes (float32)", "nDCG@10",
                                          series, kind="scatter", log_x=True))  # fmt: skip
    outcome.plot("quality", Plot("Quality of each reduction", "", "nDCG@10", {
        name: [(arm.rpartition(" ")[0] or arm, value) for arm, value in means.items() if arm.endswith(suffix)]
        for name, suffix in (("all tokens", "MV"), ("in training", "trained"), ("afterwards", "after"))
    }, kind="bar"))  # fmt: skip
    outcome.plot("clusters", Plot("Clusters of a document at search time (4 of a query)", "clusters", "nDCG@10", {
        f"trained with {arm}": points for arm, points in measured.sweep.items()}, log_x=True))  # fmt: skip
    width = 10
    outcome.plot("loss", Plot("Loss in training", "step", f"loss, mean of {width} steps", {
        arm: [(start + width, float(np.mean(losses[start : start + width]))) for start in range(0, len(losses), width)]
        for arm, losses in measured.losses.items()}))  # fmt: skip


def _invariants(outcome: Outcome, bench: _Bench) -> None:
    tokens = {role: bench.tokens(bench.model, role) for role in ROLES}
    tokens = {role: emb.take(range(min(40, len(emb)))) for role, emb in tokens.items()}
    lengths = {role: np.diff(offsets_of(emb)) for role, emb in tokens.items()}
    longest = max(int(some.max()) for some in lengths.values())
    plain, clustered = (
        maxsim_scores(*(reduce_embeddings(tokens[role], reducers(name))[0] for role in ROLES))
        for name in ("MV", f"C{longest}x{longest}")
    )
    outcome.invariant("identity", bool(np.array_equal(plain, clustered)),
                      f"largest difference {np.abs(plain - clustered).max():.1e}")  # fmt: skip
    reduced, size = reduce_embeddings(tokens["document"], Clusters(k=8))
    expected = int(np.minimum(lengths["document"], 8).sum())
    ok = size.vectors == len(reduced.vectors) and size.bytes == reduced.vectors.size * 4 and size.vectors <= expected
    outcome.invariant("bytes", ok, f"{size.vectors} of at most {expected} vectors, {size.bytes} bytes")
