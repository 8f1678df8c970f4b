"""LG-ANNA-Embedding: soft labels from a two-stage pipeline, negatives mined below each positive, examples in context.

Student: a head on frozen features of layer 2 of the encoder; teacher: the whole encoder (or a cross-encoder), scoring
what word and vector search find. That examples in the prompt can tell an embedder its task is shown on a task where
nothing else does, by a tiny causal transformer; whether a real one gains from them is another question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from isometry.data import AttributeExamples, draw_examples, labelled_sides, query_text
from isometry.encoders import load_decoder, tiny_decoder
from isometry.errors import InputError
from isometry.indexes import Exact
from isometry.lab import Card, Claim, Lab, Outcome, Plot
from isometry.negatives import AnyOf, Guide, Mined, Relative, mine, same_label, same_text
from isometry.objectives import Distillation, InfoNCE, WeightedSum, listwise_distillation
from isometry.objectives.distillation import soft_labels
from isometry.objectives.info_nce import info_nce
from isometry.ranking import BM25, CandidateLabels, Rerank, Retrieve, fuse, label_candidates
from isometry.ranking.stage import AnyStage
from isometry.tasks.class_separation import neighbour_precision
from isometry.training import Plan, Tuning, apply_head, layer_features, mlp_head, train
from isometry.training.in_context import accuracy_in_context, train_in_context
from isometry.training.prompted import PromptedEmbedder, train_prompted
from isometry.types import Embeddings, FloatArray, Hits, Queries, Scores, id_array, normal_text

CARD = Card(
    slug="lg-anna-embedding",
    title="LG-ANNA-Embedding technical report",
    arxiv="2506.07438",
    year=2025,
    kind="system",
    summary=(
        "A decoder whose query prompt holds an instruction and worked examples, trained with three things at once: a "
        "contrastive loss, a loss towards the graded relevance that a retriever and a reranker assign to each query's "
        "candidates, and hard negatives that must score below a share of their own positive's score. Soft labels "
        "by themselves learn from lists that hold unlabelled positives, where the contrastive loss fights them; "
        "mining with a margin keeps most such positives out."
    ),
    mechanism=(
        "isometry.ranking.candidate_labels:label_candidates",
        "isometry.data.instructions:draw_examples",
        "isometry.objectives.distillation:listwise_distillation",
    ),
    parts=(
        "isometry.data.instructions:fit_query",
        "isometry.data.instructions:query_text",
        "isometry.negatives.margins:Relative",
        "isometry.negatives.mining:mine",
        "isometry.objectives.weighted_sum:WeightedSum",
        "isometry.ranking.bm25:BM25",
        "isometry.ranking.fusion:fuse",
        "isometry.training.in_context:train_in_context",
        "isometry.training.prompted:train_prompted",
    ),
    needs=("labelled",),
    aliases=("in-context embedding", "soft labels", "adaptive margin mining", "reranker distillation", "LG-ANNA"),
    aspects={"task": "retrieval", "method": "distillation of a reranker", "data": "queries, positives, candidates"},
    headline="Among the first models of MTEB (English, v2; 41 tasks) by Borda count; mean over tasks 74.12",
    claims=(
        Claim(
            "on lists that hold unlabelled positives, soft labels beside the contrastive loss add 10 points or more",
            key="soft-labels-noisy",
            task="cls/banking77",
            metric="p@10",
            baseline="contrastive loss alone",
            margin=0.1,
            seeds=5,
        ),
        Claim(
            "on such lists soft labels alone are better than the contrastive loss alone by 10 points or more",
            key="soft-labels-alone",
            task="cls/banking77",
            metric="p@10",
            baseline="contrastive loss alone",
            margin=0.1,
            seeds=5,
        ),
        Claim(
            "a margin below each positive lets fewer unlabelled positives in than the plain first K",
            key="fewer-false",
            task="cls/banking77",
            metric="false negatives",
            baseline="first K",
            sign="<",
        ),
        Claim(
            "what it lets in is harder than random negatives",
            key="harder-than-random",
            task="cls/banking77",
            metric="mean score",
            baseline="random",
        ),
        Claim(
            "a student trained on lists mined so is better by 10 points or more than one trained on the first K",
            key="mining-trains-better",
            task="cls/banking77",
            metric="p@10",
            baseline="first K",
            margin=0.1,
            seeds=5,
        ),
        Claim(
            "four worked examples tell a causal transformer a task that nothing else reveals",
            key="examples-tell-the-task",
            task="attribute examples",
            metric="accuracy",
            baseline="no examples",
            margin=0.3,
            seeds=5,
        ),
        Claim("without examples a prompt is the plain instruction, byte for byte", key="plain-prompt", invariant=True),
        Claim("no row, and none that reads like it, is among its own examples", key="own-row-hidden", invariant=True),
        Claim("weight 0 on soft labels is the contrastive loss", key="weight-zero", invariant=True),
        Claim(
            "the soft-label loss is at least the labels' entropy, and equal for a student that agrees",
            key="entropy-bound",
            invariant=True,
        ),
        Claim("no mined negative breaks its margin", key="margin-kept", invariant=True),
    ),
    presets={
        "smoke": {
            "seeds": 2, "classes": 8, "anchors": 60, "pool": 160, "held": 60, "steps": 20, "batch": 16,
            "negatives": 7, "k": 10, "depth": 20, "margin": 0.05, "weight": 1.0, "temperature": 0.05,
            "cross_encoder": "", "context_steps": 10, "context_batch": 16, "context_queries": 50, "decoder": "tiny",
            "decoder_layers": 1, "decoder_steps": 2, "decoder_batch": 4,
        },
        "laptop": {
            "seeds": 5, "classes": 77, "anchors": 1500, "pool": 5000, "held": 1000, "steps": 250, "batch": 32,
            "negatives": 7, "k": 10, "depth": 50, "margin": 0.05, "weight": 1.0, "temperature": 0.05,
            "cross_encoder": "", "context_steps": 120, "context_batch": 64, "context_queries": 500, "decoder": "",
        },
        "paper": {
            "seeds": 5, "classes": 77, "anchors": 10000, "pool": 10003, "held": 3080, "steps": 5000, "batch": 512,
            "negatives": 7, "k": 10, "depth": 100, "margin": 0.05, "weight": 1.0, "temperature": 0.02,
            "cross_encoder": "BAAI/bge-reranker-v2-m3", "context_steps": 2000, "context_batch": 256,
            "context_queries": 2000, "decoder": "mistralai/Mistral-7B-v0.1", "decoder_layers": 0, "decoder_steps": 1000,
            "decoder_batch": 512,
        },
    },
)  # fmt: skip

LAYER, LR, COUNTS, WEIGHTS = 2, 1e-3, (0, 1, 2, 4), (0.1, 10.0)
TASK = "Given a customer's message, find messages with the same intent."


def plan(tuning: Tuning) -> Plan:
    """Contrastive loss, and as much of distilling the start model's scores of all candidates in the batch."""
    if tuning.kind == "sts":
        raise InputError("Soft labels stand beside a contrastive loss, which needs rows of what belongs together.")
    mask = AnyOf((same_text, same_label)) if tuning.kind == "labelled" else same_text
    teacher = Guide(tuning.start)

    def compare(student: Tensor, scores: Tensor) -> Tensor:
        return listwise_distillation(student, scores, temperature=0.05, teacher_temperature=0.05)

    soft = Distillation(compare=compare, teacher=teacher, in_batch=True)
    return Plan(WeightedSum(tuning.model, parts=[(1.0, InfoNCE(mask=mask)), (1.0, soft)]))


@dataclass(frozen=True, eq=False)
class Side:
    """Texts with classes, the student's frozen features and the whole encoder's vectors."""

    texts: list[str]
    labels: list[str]
    features: FloatArray
    vectors: FloatArray


@dataclass(frozen=True, eq=False)
class Study:
    """A pool to learn from and texts to judge by; each anchor's row in the pool, and that of its positive."""

    pool: Side
    held: Side
    anchors: list[int]
    positives: list[int]
    task: str


def run(lab: Lab) -> Outcome:
    """Make lists in three ways, train a student on each with and without soft labels; then examples in context."""
    outcome = Outcome()
    study = prepare(lab)
    mined = {name: mined_lists(lab, study, name) for name in ("first K", "adaptive", "random")}
    judge_lists(outcome, study, mined, lab.config["margin"])
    lists = label_lists(lab, study, mined)
    for name, labels in lists.items():
        outcome.fact(f"disagreement of teacher and label, {name}", round(labels.disagreement, 4))
    compare_students(lab, outcome, study, lists)
    learn_in_context(lab, outcome)
    if lab.config["decoder"]:
        prompt_decoder(lab, outcome, study)
    check_prompts(outcome, study)
    check_losses(outcome, study, next(iter(lists.values())))
    return outcome


def prepare(lab: Lab) -> Study:
    """Draw the pool, its anchors with a random positive of their class each, and texts to judge by."""
    config, rng = lab.config, np.random.default_rng(0)
    parts = [lab.labelled("cls/banking77", split) for split in (("test",) if lab.user_data else ("train", "test"))]
    sides = []
    split = labelled_sides(parts, classes=config["classes"])
    for side, count in zip(split, (config["pool"], config["held"]), strict=True):
        chosen = rng.permutation(len(side.texts))[:count]
        texts, labels = [side.texts[i] for i in chosen], [side.labels[i] for i in chosen]
        sides.append(Side(texts, labels, layer_features(lab.encoder().model, texts, layer=LAYER), lab.embed(texts)))
    members: dict[str, list[int]] = {}
    for i, label in enumerate(sides[0].labels):
        members.setdefault(label, []).append(i)
    anchors, positives = list[int](), list[int]()
    for i, label in enumerate(sides[0].labels):
        others = [j for j in members[label] if j != i]
        if others and len(anchors) < config["anchors"]:
            anchors.append(i)
            positives.append(others[int(rng.integers(len(others)))])
    return Study(sides[0], sides[1], anchors, positives, "cls/banking77" if not lab.user_data else lab.user_data.name)


def mined_lists(lab: Lab, study: Study, how: str) -> Mined:
    """Return each anchor's negatives: the first K, those below a share of the positive's score, or random ones."""
    vectors = study.pool.vectors
    return mine(
        vectors[study.anchors], vectors, [{a, p} for a, p in zip(study.anchors, study.positives, strict=True)],
        k=lab.config["k"], margin=Relative(lab.config["margin"]) if how == "adaptive" else None,
        window=(0, len(vectors)) if how == "random" else None,
    )  # fmt: skip


def judge_lists(outcome: Outcome, study: Study, mined: dict[str, Mined], margin: float) -> None:
    """Measure, per anchor, the share of negatives of its own class and the mean score of its negatives."""
    labels = np.array(study.pool.labels, object)
    tables: dict[str, dict[str, Scores]] = {"false negatives": {}, "mean score": {}}
    for name, lists in mined.items():
        own = (labels[lists.rows] == labels[study.anchors][:, None]) & (lists.rows >= 0)
        there = np.maximum((lists.rows >= 0).sum(1), 1)
        found = {"false negatives": own.sum(1) / there, "mean score": np.nansum(lists.scores, axis=1) / there}
        for metric, values in found.items():
            units = {str(anchor): float(v) for anchor, v in zip(study.anchors, values, strict=True)}
            tables[metric][name] = Scores.of(study.task, name, {metric: units})
            outcome.fact(f"{metric}, {name}", round(tables[metric][name].mean(metric), 4))
    outcome.compare("fewer-false", tables["false negatives"]["adaptive"], tables["false negatives"]["first K"])
    outcome.compare("harder-than-random", tables["mean score"]["adaptive"], tables["mean score"]["random"])
    adaptive = mined["adaptive"]
    positive = (study.pool.vectors[study.anchors] * study.pool.vectors[study.positives]).sum(1)
    limit = np.where(positive > 0.05, positive * (1 - margin), positive - margin)
    worst = float(np.nanmax(adaptive.scores - limit[:, None]))
    outcome.invariant("margin-kept", worst <= 1e-5, f"highest score above its limit: {worst:.1e}")
    outcome.plot("lists", Plot("What three ways of mining let in", "list", "share or cosine", {
        metric: [(name, scores.mean(metric)) for name, scores in by_name.items()] for metric, by_name in tables.items()
    }, kind="bar"))  # fmt: skip


def label_lists(lab: Lab, study: Study, mined: dict[str, Mined]) -> dict[str, CandidateLabels]:
    """Return lists with the teacher's scores: of word and vector search together, and as they were mined."""
    pool, config = study.pool, lab.config
    texts = {str(i): text for i, text in enumerate(pool.texts)}
    space = lab.encoder().space
    index = Exact(space)
    index.add(Embeddings(pool.vectors, id_array(texts), space))
    ids, vectors = id_array(map(str, study.anchors)), pool.vectors[study.anchors]
    queries = Queries(ids, [pool.texts[i] for i in study.anchors], Embeddings(vectors, ids, space, role="query"))
    first = fuse(BM25(texts, k=config["depth"], k1=1.2), Retrieve(None, index, k=config["depth"]), how="weighted")
    stages: dict[str, AnyStage] = {"pipeline": first} | {name: given(m) for name, m in mined.items()}
    scorer = teacher(lab, study, texts)
    positives = [str(i) for i in study.positives]
    own = {str(i): {str(i)} for i in study.anchors}
    return {
        name: label_candidates(queries, positives, stage, scorer, negatives=config["negatives"], related=own)
        for name, stage in stages.items()
    }


def given(mined: Mined) -> AnyStage:
    """Return a stage that finds what was mined."""
    pairs = zip(mined.rows.tolist(), mined.scores.tolist(), strict=True)
    rows = [[(str(row), score) for row, score in zip(*pair, strict=True) if row >= 0] for pair in pairs]
    return lambda queries, hits: Hits.build(queries.ids, rows)


def teacher(lab: Lab, study: Study, texts: dict[str, str]) -> AnyStage:
    """Return the second stage: a cross-encoder where one is named, else the whole encoder's cosines as logits."""
    depth = 2 * lab.config["depth"] + 1
    if name := lab.config["cross_encoder"]:
        from isometry.ranking.cross_encoder import CrossEncoderScorer

        return CrossEncoderScorer.load(name).stage(texts, depth=depth)
    place = {text: i for i, text in enumerate(study.pool.texts)}
    vectors, temperature = study.pool.vectors, lab.config["temperature"]

    def logits(query: str, found: Sequence[str]) -> FloatArray:
        scores: FloatArray = vectors[[place[text] for text in found]] @ vectors[place[query]] / temperature
        return scores

    return Rerank(logits, depth=depth, texts=texts)


def compare_students(lab: Lab, outcome: Outcome, study: Study, lists: dict[str, CandidateLabels]) -> None:
    """Train students with contrastive loss, soft labels, or both, on every kind of list, for every seed."""
    losses = {"contrastive": (1.0, 0.0), "soft": (0.0, 1.0), "both": (1.0, lab.config["weight"])}
    found = {
        (kind, name): measure(lab, study, f"{name}, {kind}", lists[kind], weights)
        for kind in lists
        for name, weights in losses.items()
    }
    for (kind, name), scores in found.items():
        outcome.fact(f"p@10, {name}, {kind} lists", round(scores.mean("p@10"), 4))
    plain = found["first K", "contrastive"]
    outcome.compare("soft-labels-noisy", found["first K", "both"], plain)
    outcome.compare("soft-labels-alone", found["first K", "soft"], plain)
    outcome.compare("mining-trains-better", found["adaptive", "contrastive"], plain)
    outcome.plot("students", Plot("Students by list and loss", "list", "P@10", {
        name: [(kind, found[kind, name].mean("p@10")) for kind in lists] for name in losses
    }, kind="bar"))  # fmt: skip
    curves = {}
    for kind in ("first K", "adaptive"):
        ends = {w: measure(lab, study, f"weight {w:g}, {kind}", lists[kind], (1.0, w)) for w in WEIGHTS}
        known = ends | {lab.config["weight"]: found[kind, "both"]}
        curves[kind] = [(w, round(known[w].mean("p@10"), 4)) for w in sorted(known)]
    outcome.fact("p@10 by weight of the soft labels", curves)
    outcome.plot("weights", Plot("Soft labels beside the contrastive loss", "weight", "P@10", curves, log_x=True))


def measure(lab: Lab, study: Study, name: str, labels: CandidateLabels, weights: tuple[float, float]) -> Scores:
    """Train one student a seed and judge each by its nearest neighbours."""
    values: dict[str, float] = {}
    for seed in lab.seeds:
        lab.progress(name, seed, len(lab.seeds))
        head = fit(lab, study, labels, weights, seed)
        sides = [apply_head(head, side.features) for side in (study.held, study.pool)]
        hits = neighbour_precision(sides[0], study.held.labels, sides[1], study.pool.labels, k=10)
        values[f"seed {seed}"] = float(hits.mean())
    return Scores.of(study.task, name, {"p@10": values})


def fit(lab: Lab, study: Study, labels: CandidateLabels, weights: tuple[float, float], seed: int) -> nn.Module:
    """Train one student."""
    features = torch.from_numpy(study.pool.features)
    rows = torch.tensor([[int(i or 0) for i in row] for row in labels.ids])
    scores, keep = torch.from_numpy(labels.scores), torch.from_numpy(labels.keep)
    anchors = torch.tensor(study.anchors)

    def loss(head: nn.Module, batch: Tensor) -> Tensor:
        q = normalize(head(features[anchors[batch]]), dim=-1)
        docs = normalize(head(features[rows[batch]]), dim=-1)
        student = (docs @ q[:, :, None]).squeeze(-1)
        return both_losses(student, scores[batch], keep[batch], weights, lab.config["temperature"])

    rng = np.random.default_rng(seed)
    size = min(lab.config["batch"], len(anchors))
    batches = [torch.from_numpy(rng.permutation(len(anchors))[:size]) for _ in range(lab.config["steps"])]
    head = mlp_head((features.shape[1], 384, 128), seed=seed)
    train(head, batches, loss, steps=lab.config["steps"], lr=LR, seed=seed)
    return head


def both_losses(
    student: Tensor, teacher: Tensor, keep: Tensor, weights: tuple[float, float], temperature: float
) -> Tensor:
    """Return the weighted sum of contrastive loss and soft labels over each query's own list, positive first."""
    hard = -(student / temperature).masked_fill(~keep, -torch.inf).log_softmax(1)[:, 0].mean()
    soft = listwise_distillation(student, teacher, temperature=temperature, keep=keep, divergence="ce")
    return weights[0] * hard + weights[1] * soft


def learn_in_context(lab: Lab, outcome: Outcome) -> None:
    """Train tiny causal transformers on a task that only examples reveal; measure them by the number of examples."""
    config, task = lab.config, AttributeExamples()
    found: dict[int, dict[str, float]] = {count: {} for count in COUNTS}
    for seed in lab.seeds:
        lab.progress("learning in context", seed, len(lab.seeds))
        model = tiny_decoder(task.vocabulary, seed=seed)
        train_in_context(model, task, steps=config["context_steps"], batch_size=config["context_batch"], seed=seed)
        for count, values in found.items():
            values[f"seed {seed}"] = accuracy_in_context(
                model, task, count, queries=config["context_queries"], seed=1000 + seed
            )
    scores = {n: Scores.of("attribute examples", f"{n} examples", {"accuracy": v}) for n, v in found.items()}
    outcome.compare("examples-tell-the-task", scores[4], scores[0])
    curve = [(count, by_seed.mean("accuracy")) for count, by_seed in scores.items()]
    outcome.fact("accuracy by number of examples", {n: round(a, 4) for n, a in curve} | {"chance": task.chance})
    outcome.plot("in-context", Plot("A task only examples reveal", "examples in the prompt", "accuracy", {
        "tiny causal transformer": curve, "chance": [(n, task.chance) for n in COUNTS]
    }))  # fmt: skip


def prompt_decoder(lab: Lab, outcome: Outcome, study: Study) -> None:
    """Train the preset's decoder with a random number of examples a query; report it with none and with three."""
    config, pool, held = lab.config, study.pool, study.held
    tokenizer = lab.encoder().model.tokenizer
    decoder = load_decoder(config["decoder"], layers=config["decoder_layers"] or None, tokenizer=tokenizer)
    embedder = PromptedEmbedder(decoder, TASK)
    asked, answers = ([pool.texts[i] for i in rows] for rows in (study.anchors, study.positives))
    train_prompted(embedder, asked, answers, steps=config["decoder_steps"], batch_size=config["decoder_batch"])
    vectors = embedder.encode(pool.texts)
    examples = draw_examples(asked, answers, 0, k=3, rng=np.random.default_rng(0))  # the same for every query
    for shown in ([], examples):
        found = embedder.encode([embedder.prompt(text, shown) for text in held.texts])
        hits = neighbour_precision(found, held.labels, vectors, pool.labels, k=10)
        outcome.fact(f"p@10, decoder with {len(shown)} examples", round(float(hits.mean()), 4))


def check_prompts(outcome: Outcome, study: Study) -> None:
    """Check the prompt without examples, and what examples are drawn, on real texts."""
    texts, answers = study.pool.texts[:64], [study.pool.texts[i] for i in study.positives[:64]]
    texts = [*texts[: len(answers)], texts[0].upper() + " !"]  # the first row once more, as another would write it
    answers = [*answers, "another answer"]
    plain = [
        query_text(TASK, text, style="in-context") == f"<instruct>{TASK}\n<query>{text}\n<response>" for text in texts
    ]
    outcome.invariant("plain-prompt", all(plain), f"{len(plain)} prompts")
    rng, shown, bad = np.random.default_rng(0), 0, 0
    for row, text in enumerate(texts):
        drawn = draw_examples(texts, answers, row, k=len(texts), rng=rng)
        shown += len(drawn)
        bad += sum(normal_text(example.query) == normal_text(text) for example in drawn)
    outcome.invariant("own-row-hidden", bad == 0, f"{bad} of {shown} examples, one row is there in two spellings")


def check_losses(outcome: Outcome, study: Study, labels: CandidateLabels) -> None:
    """Check the loss at weight 0 and the bound of soft labels, on real vectors."""
    rows = torch.tensor([[int(i or 0) for i in row] for row in labels.ids[:32]])
    vectors = torch.from_numpy(study.pool.vectors)
    q, docs = vectors[study.anchors[:32]], vectors[rows]
    scores, keep = torch.from_numpy(labels.scores[:32]), torch.from_numpy(labels.keep[:32])
    student = (docs @ q[:, :, None]).squeeze(-1)
    b, k = rows.shape
    own = torch.eye(b, dtype=torch.bool)[:, :, None].expand(b, b, k) & keep
    reference = info_nce(q, docs.reshape(b * k, -1), targets=torch.arange(b) * k, drop=~own.reshape(b, b * k))
    gap = float((both_losses(student, scores, keep, (1.0, 0.0), 0.05) - reference).abs())
    outcome.invariant("weight-zero", gap < 1e-5, f"difference {gap:.1e}")
    entropy = soft_labels(scores, keep=keep)[1].mean()
    above = float(listwise_distillation(student, scores, temperature=0.3, keep=keep, divergence="ce") - entropy)
    equal = float(listwise_distillation(scores, scores, keep=keep, divergence="ce") - entropy)
    outcome.invariant("entropy-bound", above >= 0 and abs(equal) < 1e-5, f"above by {above:.4f}, equal to {equal:.1e}")
