"""DSE: a bi-encoder with a small comparison head learns a cross-encoder's logits and scores cached candidates.

The teacher reads both sentences together and is trained on pairs called alike or not. The student encodes sentences
apart, by its first layers, and only its head is trained where the preset freezes them: to the labels, to the teacher's
logits, or to both, also on pairs nobody labelled. Judged by rank correlation with people's graded scores.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from isometry.errors import RecipeError
from isometry.lab import Card, Claim, Lab, Outcome, Plot
from isometry.modules import ComparisonHead, DotHead, PairStudent, cut_layers
from isometry.modules.pooling import top_layers_pool, with_top_layers
from isometry.modules.pooling.top_layers import without_first
from isometry.ranking import CrossEncoderScorer
from isometry.training import train_cross_encoder, train_pair_student
from isometry.training.cross_encoder import Schedule, cross_encoder
from isometry.training.pair_distillation import Pair, TeacherLogits
from isometry.types import FloatArray, Scores

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

CARD = Card(
    slug="distilled-sentence-embedding",
    title="Scalable Attentive Sentence-Pair Modeling via Distilled Sentence Embedding",
    arxiv="1908.05161",
    year=2020,
    kind="training method",
    summary=(
        "A cross-encoder judges pairs well but must read every pair; a bi-encoder reads every sentence once. The "
        "student joins its last layers token by token, averages them without CLS, and compares two sentences by a "
        "small network on [u, v, u * v, |u - v|]; it is trained to the labels and, by squared error, to the teacher's "
        "logits. Since the network's first layer splits by input, the candidates' share of it is computed once, and a "
        "query is scored against thousands of them by one matrix product."
    ),
    mechanism=(
        "isometry.training.pair_distillation:pair_distillation_loss",
        "isometry.modules.comparison_head:ComparisonHead",
        "isometry.modules.pooling.top_layers:top_layers_pool",
    ),
    parts=(
        "isometry.modules.comparison_head:PairStudent",
        "isometry.modules.comparison_head:DotHead",
        "isometry.modules.pooling.top_layers:with_top_layers",
        "isometry.modules.layer_cut:cut_layers",
        "isometry.ranking.cross_encoder:CrossEncoderScorer",
        "isometry.training.cross_encoder:train_cross_encoder",
        "isometry.training.cross_encoder:cross_encoder",
        "isometry.training.pair_distillation:TeacherLogits",
        "isometry.training.pair_distillation:train_pair_student",
    ),
    needs=("sts",),
    aliases=("DSE", "cross-encoder distillation", "siamese comparison head", "logit distillation"),
    aspects={"task": "pair scoring", "method": "distilling a cross-encoder into a bi-encoder", "data": "text pairs"},
    headline="4.6% below fine-tuned BERT-large on five GLUE pair tasks, orders of magnitude faster on many candidates",
    claims=(
        Claim(
            "trained to labels and to the teacher's logits, also on pairs without labels, a student is better than "
            "one trained to the labels alone",
            key="unlabelled-pairs-help",
            task="sts/stsb",
            metric="spearman",
            baseline="labels alone",
            seeds=6,
        ),
        Claim(
            "the teacher's logits help on the labelled pairs alone",
            key="logits-help",
            task="sts/stsb",
            metric="spearman",
            baseline="labels alone",
            seeds=6,
        ),
        Claim(
            "the comparison network is better than a dot product of projected vectors",
            key="network-beats-dot",
            task="sts/stsb",
            metric="spearman",
            baseline="dot product",
            seeds=6,
        ),
        Claim(
            "a query is scored against 10 000 cached candidates at least 100 times faster than by the cross-encoder",
            key="faster",
            task="sts/stsb",
            metric="times faster",
            baseline="100",
        ),
        Claim("scores from cached candidates are those of the whole forward pass", key="cached-exact", invariant=True),
        Claim("with alpha 1, labels change nothing", key="alpha-one", invariant=True),
        Claim("the state of CLS has no influence on a vector", key="cls-left-out", invariant=True),
        Claim("a symmetrised head does not know which sentence came first", key="symmetric", invariant=True),
    ),
    presets={
        "smoke": {"seeds": 2, "pairs": 64, "extra": 64, "tests": 60, "teacher": "", "student": "", "layers": 2,
                  "last": 2, "teacher_steps": 3, "teacher_lr": 1e-4, "steps": 12, "lr": 1e-3, "batch": 16, "hidden": 64,
                  "freeze": True, "timed": 4, "candidates": 10_000},
        "laptop": {"seeds": 6, "pairs": 1200, "extra": 1200, "tests": 0, "teacher": "", "student": "", "layers": 2,
                   "last": 2, "teacher_steps": 80, "teacher_lr": 1e-4, "steps": 200, "lr": 1e-3, "batch": 32,
                   "hidden": 256, "freeze": True, "timed": 40, "candidates": 10_000},
        "paper": {"seeds": 5, "pairs": 0, "extra": 10_000, "tests": 0,
                  "teacher": "google-bert/bert-large-uncased-whole-word-masking",
                  "student": "google-bert/bert-base-uncased", "layers": 0, "last": 4, "teacher_steps": 540,
                  "teacher_lr": 2e-5, "steps": 1400, "lr": 2e-5, "batch": 32, "hidden": 512,
                  "freeze": False, "timed": 40, "candidates": 10_000},
    },
)  # fmt: skip

METRIC, ALIKE = "spearman", 0.6  # a pair is called alike from three of five points on
REPEATS = 5


@dataclass(frozen=True)
class Study:
    """Pairs with yes/no labels to train on, pairs without, pairs with people's scores to judge by."""

    pairs: list[Pair]
    labels: np.ndarray
    extra: list[Pair]
    test: list[Pair]
    gold: np.ndarray
    task: str


class Remembering(PairStudent):
    """A pair student whose encoder is frozen: every text is encoded once and its vector standardised."""

    def __init__(self, encoder: SentenceTransformer, head: ComparisonHead | DotHead, table: dict[str, Tensor]) -> None:
        super().__init__(encoder, head)
        self.table = table

    def encode(self, texts: Sequence[str], *, batch_size: int = 64) -> Tensor:
        """Vectors ``[n, d]`` from the table."""
        return torch.stack([self.table[text] for text in texts])


def run(lab: Lab) -> Outcome:
    """Train a teacher, then students on its logits, and time both."""
    outcome, config = Outcome(), lab.config
    study = prepare(lab)
    base = model_named(lab, config["student"])
    encoder = with_top_layers(cut_layers(base, config["layers"]) if config["layers"] else base, last=config["last"])
    extra = more_pairs(study, encoder, config["extra"])
    scorer = train_teacher(lab, study, outcome)
    teacher = TeacherLogits(scorer)
    logits = teacher([*study.pairs, *extra])
    outcome.fact("standard deviation of the teacher's logits", round(float(logits.std()), 3))
    table = remembered(encoder, study, extra) if config["freeze"] else None
    scores = compare_students(lab, study, extra, logits, encoder, table)
    base_scores = scores["labels alone"]
    outcome.compare("unlabelled-pairs-help", scores["labels and logits, more pairs"], base_scores)
    outcome.compare("logits-help", scores["labels and logits"], base_scores)
    outcome.compare("network-beats-dot", scores["labels and logits"], scores["dot product"])
    judged = float(spearmanr(scorer.predict(study.test), study.gold).statistic)
    means = {"teacher": judged, **{name: s.mean(METRIC) for name, s in scores.items()}}
    outcome.fact("spearman", {name: round(value, 4) for name, value in means.items()})
    bars = Plot(
        "Rank correlation with people's scores", "", "Spearman", {"test pairs": list(means.items())}, kind="bar"
    )
    outcome.plot("students", bars)
    student = make(lab, encoder, table, "network", seed=0)
    measure_speed(lab, study, scorer, encoder, student, outcome)
    check_invariants(study, encoder, student, logits, outcome)
    return outcome


def prepare(lab: Lab) -> Study:
    """Read scored pairs; those to train on become yes or no."""
    config, rng = lab.config, np.random.default_rng(0)
    if lab.user_data is None:
        first, second = lab.sts("sts/stsb", "train"), lab.sts("sts/stsb", "test")
        left, right = [*first.left, *second.left], [*first.right, *second.right]
        scores, cut = np.concatenate([first.scores, second.scores]), len(first.left)
    else:
        own = lab.sts("sts/stsb")
        order = rng.permutation(len(own.left))
        left, right = [own.left[i] for i in order], [own.right[i] for i in order]
        scores, cut = own.scores[order], round(0.6 * len(order))
    scores = (scores - scores.min()) / max(float(np.ptp(scores)), 1e-9)
    rows = rng.permutation(cut)[: config["pairs"] or cut]
    test = np.arange(cut, len(left))[: config["tests"] or len(left)]
    labels = (scores[rows] >= ALIKE).astype(np.float32)
    if len(test) < 5 or not 0 < labels.mean() < 1:
        raise RecipeError("Training needs scored pairs, some alike and some not, and at least 5 more to judge by.")
    pairs = [[(left[i], right[i]) for i in part] for part in (rows, test)]
    task = "sts/stsb" if lab.user_data is None else lab.user_data.name
    return Study(pairs[0], labels, [], pairs[1], scores[test], task)


def model_named(lab: Lab, name: str) -> SentenceTransformer:
    """Return a model by name, or the lab's encoder."""
    from isometry.encoders import load

    return load(name, engine="torch", pooling="mean").model if name else lab.encoder().model


def more_pairs(study: Study, encoder: SentenceTransformer, n: int) -> list[Pair]:
    """Pairs of training sentences that nobody labelled: half at random, half a sentence and its nearest other."""
    texts = sorted({text for pair in study.pairs for text in pair})
    rng = np.random.default_rng(1)
    chosen = rng.permutation(len(texts))[: min(len(texts), 1500)]
    found = PairStudent(encoder, DotHead(int(encoder.get_embedding_dimension()))).encode([texts[i] for i in chosen])
    vectors = torch.nn.functional.normalize(found - found.mean(0), dim=1)
    nearest = (vectors @ vectors.T).fill_diagonal_(-1).argmax(1).tolist()
    near = [(texts[i], texts[chosen[j]]) for i, j in zip(chosen, nearest, strict=True)][: n // 2]
    far = [(texts[i], texts[j]) for i, j in rng.integers(len(texts), size=(n - len(near), 2)) if i != j]
    return near + far


def train_teacher(lab: Lab, study: Study, outcome: Outcome) -> CrossEncoderScorer:
    """Train the cross-encoder on yes/no labels."""
    config = lab.config
    model = cross_encoder(model_named(lab, config["teacher"]))
    model[0].auto_model.embeddings.requires_grad_(False)

    def report(done: int, total: int | None) -> None:
        lab.progress("training the teacher", done, total)

    plan = Schedule(config["teacher_steps"], 16, lr=config["teacher_lr"])
    losses = train_cross_encoder(model, study.pairs, study.labels, plan, progress=report)
    tenth = max(1, len(losses) // 10)
    ends = {"first tenth": losses[:tenth], "last tenth": losses[-tenth:]}
    outcome.fact("teacher's loss", {name: round(float(np.mean(part)), 4) for name, part in ends.items()})
    return CrossEncoderScorer(model)


def remembered(encoder: SentenceTransformer, study: Study, extra: list[Pair]) -> dict[str, Tensor]:
    """Standardised vectors of every text."""
    texts = sorted({t for pair in (*study.pairs, *extra, *study.test) for t in pair}, key=lambda t: (len(t), t))
    vectors = PairStudent(encoder, DotHead(int(encoder.get_embedding_dimension()))).encode(texts)
    known = vectors[[i for i, t in enumerate(texts) if t in {t for pair in study.pairs for t in pair}]]
    vectors = (vectors - known.mean(0)) / known.std(0).clamp_min(1e-6)
    return dict(zip(texts, vectors, strict=True))


def make(lab: Lab, encoder: SentenceTransformer, table: dict[str, Tensor] | None, head: str, seed: int) -> PairStudent:
    """Return an untrained student; its encoder is a copy unless it is frozen."""
    dim = int(encoder.get_embedding_dimension())
    chosen = DotHead(dim, seed=seed) if head == "dot" else ComparisonHead(dim, hidden=lab.config["hidden"], seed=seed)
    if table is not None:
        return Remembering(encoder, chosen, table)
    return PairStudent(cut_layers(encoder, encoder[0].auto_model.config.num_hidden_layers), chosen)


def compare_students(
    lab: Lab, study: Study, extra: list[Pair], logits: FloatArray, encoder: SentenceTransformer,
    table: dict[str, Tensor] | None,
) -> dict[str, Scores]:  # fmt: skip
    """Train a student per seed and way of teaching: the units are seeds."""
    config, n = lab.config, len(study.pairs)
    ways = {
        "labels alone": (0.0, 0, "network"),
        "labels and logits": (0.5, 0, "network"),
        "logits alone": (1.0, 0, "network"),
        "labels and logits, more pairs": (0.5, len(extra), "network"),
        "dot product": (0.5, 0, "dot"),
    }
    found = {}
    for name, (alpha, more, head) in ways.items():
        values = {}
        for seed in lab.seeds:
            lab.progress(f"student, {name}", seed, len(lab.seeds))
            student = make(lab, encoder, table, head, seed)
            targets = np.concatenate([study.labels, np.full(more, np.nan, np.float32)])
            plan = Schedule(config["steps"], config["batch"], lr=config["lr"], seed=seed)
            train_pair_student(student, [*study.pairs, *extra[:more]], targets, logits[: n + more], plan,
                               alpha=alpha, freeze_encoder=config["freeze"])  # fmt: skip
            values[f"seed {seed}"] = float(spearmanr(student.predict(study.test), study.gold).statistic)
        found[name] = Scores.of(study.task, name, {METRIC: values})
    return found


def measure_speed(
    lab: Lab, study: Study, scorer: CrossEncoderScorer, encoder: SentenceTransformer, student: PairStudent,
    outcome: Outcome,
) -> None:  # fmt: skip
    """Time one query against many cached candidates, and the cross-encoder on a few pairs, warm."""
    m, timed = lab.config["candidates"], lab.config["timed"]
    vectors = torch.randn(m, student.head.dim, generator=torch.Generator().manual_seed(0))
    reader = PairStudent(encoder, student.head).eval()
    with torch.no_grad():
        prepared = student.head.prepare(vectors)
    ratios, ours, theirs = {}, [], []
    for turn in range(REPEATS + 1):
        pairs = [study.test[(turn * timed + i) % len(study.test)] for i in range(timed)]
        started = time.perf_counter()
        with torch.no_grad():
            student.head.score(reader.encode([pairs[0][0]])[0], vectors, prepared)
        middle = time.perf_counter()
        scorer.predict(pairs)
        if turn:
            ours.append(middle - started)
            theirs.append((time.perf_counter() - middle) / timed * m)
            ratios[f"repeat {turn}"] = theirs[-1] / ours[-1]
    outcome.compare("faster", Scores.of(study.task, "student", {"times faster": ratios}), 100.0)
    seconds = {"student": float(np.median(ours)), "cross-encoder": float(np.median(theirs))}
    outcome.fact(f"seconds for one query and {m} candidates (the cross-encoder's from {timed} pairs at a time)",
                 {name: round(s, 3) for name, s in seconds.items()})  # fmt: skip
    outcome.plot("speed", Plot(f"One query and {m} candidates", "", "seconds", {"time": list(seconds.items())},
                               kind="bar", log_y=True))  # fmt: skip


def check_invariants(
    study: Study, encoder: SentenceTransformer, student: PairStudent, logits: FloatArray, outcome: Outcome
) -> None:
    """Check on real vectors what must hold exactly."""
    reader = PairStudent(encoder, student.head).eval()
    texts = [text for pair in study.test[:20] for text in pair]
    vectors = reader.encode(texts)
    with torch.no_grad():
        query = vectors[0]
        whole = student.head.eval()(query.expand_as(vectors), vectors)
        worst = float((student.head.score(query, vectors, student.head.prepare(vectors)) - whole).abs().max())
        fair = ComparisonHead(student.head.dim, hidden=64, symmetric=True).eval()
        turned = float((fair(vectors[::2], vectors[1::2]) - fair(vectors[1::2], vectors[::2])).abs().max())
        plain = student.head(vectors[::2], vectors[1::2]) - student.head(vectors[1::2], vectors[::2])
    outcome.invariant("cached-exact", worst <= 1e-4, f"largest difference of a logit: {worst:.1e}")
    outcome.invariant("symmetric", turned <= 1e-5, f"largest difference of a logit: {turned:.1e}")
    outcome.fact(
        "mean difference of a logit when sentences change places, plain head", round(float(plain.abs().mean()), 4)
    )
    weights = []
    for labels in (study.labels[:32], 1 - study.labels[:32]):
        head = ComparisonHead(student.head.dim, hidden=16)
        trained = PairStudent(encoder, head)
        train_pair_student(trained, study.pairs[:32], labels, logits[:32], Schedule(3, 16, lr=1e-3), alpha=1.0,
                           freeze_encoder=True)  # fmt: skip
        weights.append(torch.cat([p.detach().flatten() for p in head.parameters()]))
    outcome.invariant("alpha-one", torch.equal(*weights), "weights with labels and with their opposite")
    features = encoder.preprocess(texts[:8])
    with torch.no_grad():
        states = list(encoder[0](dict(features))["all_layer_embeddings"][1:])
        changed = [state.clone() for state in states]
        for state in changed:
            state[:, 0] += 100
        kept, last = without_first(features["attention_mask"]), encoder[1].last
        pooled = [top_layers_pool(given, kept, last=last) for given in (states, changed)]
    outcome.invariant("cls-left-out", torch.equal(*pooled), "vectors with CLS moved by 100 in every number")
