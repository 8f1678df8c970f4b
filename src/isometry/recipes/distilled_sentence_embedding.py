"""DSE: a bi-encoder with a small comparison head learns a cross-encoder's logits and scores cached candidates.

The teacher reads both sentences together and is trained on pairs called alike or not. The student encodes sentences
apart, by its first layers, and is trained end to end: to the labels, to the teacher's logits, or to both, also on
pairs nobody labelled. Every way of teaching has the same steps, rate, seeds and judgements on held-out pairs, after the
best of which it stops. Judged by rank correlation with people's graded scores, pair by pair, beside its teacher. The
dot product is one of unit vectors: plain products of means of states follow their lengths and did not learn at all.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from isometry.errors import RecipeError
from isometry.lab import Card, Claim, Lab, Outcome, Plot
from isometry.modules import ComparisonHead, DotHead, PairStudent, cut_layers
from isometry.modules.pooling import top_layers_pool, with_top_layers
from isometry.modules.pooling.top_layers import without_first
from isometry.negatives import mine
from isometry.ranking import CrossEncoderScorer
from isometry.tasks.sts import spearman_units
from isometry.training import train_cross_encoder, train_pair_student
from isometry.training.best_weights import BestWeights
from isometry.training.cross_encoder import Schedule, cross_encoder, pointwise_loss
from isometry.training.pair_distillation import MeanTeacher, Pair, PairScorer, cross_fitted, unit_logits
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
        "isometry.training.pair_distillation:train_pair_student",
        "isometry.training.pair_distillation:cross_fitted",
        "isometry.training.pair_distillation:MeanTeacher",
        "isometry.training.pair_distillation:unit_logits",
        "isometry.training.best_weights:BestWeights",
        "isometry.negatives.mining:mine",
        "isometry.tasks.sts:spearman_units",
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
            seeds=3,
        ),
        Claim(
            "the teacher's logits help on the labelled pairs alone",
            key="logits-help",
            task="sts/stsb",
            metric="spearman",
            baseline="labels alone",
            seeds=3,
        ),
        Claim(
            "the comparison network is better than a dot product of projected vectors",
            key="network-beats-dot",
            task="sts/stsb",
            metric="spearman",
            baseline="dot product",
            seeds=3,
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
        "smoke": {"seeds": 1, "pairs": 48, "extra": 32, "dev": 12, "tests": 40, "teacher": "", "student": "",
                  "layers": 1, "last": 1, "folds": 2, "teacher_epochs": 1, "teacher_lr": 1e-4, "steps": 4, "lr": 1e-3,
                  "batch": 16, "hidden": 64, "words": False, "timed": 4, "candidates": 10_000,
                  "weight_decay": 0.0},
        "laptop": {"seeds": 3, "pairs": 2000, "extra": 4000, "dev": 200, "tests": 1000, "teacher": "", "student": "",
                   "layers": 2, "last": 2, "folds": 1, "teacher_epochs": 2, "teacher_lr": 1e-4, "steps": 120,
                   "lr": 5e-4, "batch": 16, "hidden": 512, "words": False, "timed": 40, "candidates": 10_000,
                   "weight_decay": 0.0},
        "paper": {"seeds": 5, "pairs": 0, "extra": 10_000, "dev": 0, "tests": 0,
                  "teacher": "google-bert/bert-large-uncased-whole-word-masking",
                  "student": "google-bert/bert-base-uncased", "layers": 0, "last": 4, "folds": 1, "teacher_epochs": 3,
                  "teacher_lr": 2e-5, "steps": 1400, "lr": 2e-5, "batch": 32, "hidden": 512, "words": True,
                  "timed": 40, "candidates": 10_000, "weight_decay": 0.01},
    },
)  # fmt: skip

METRIC, ALIKE = "spearman", 0.6  # a pair is called alike from three of five points on
JUDGEMENTS, REPEATS = 3, 5
WAYS = {  # weight of the teacher, whether it also scores unlabelled pairs, head
    "labels alone": (0.0, False, "network"),
    "labels and logits": (0.5, False, "network"),
    "logits alone": (1.0, False, "network"),
    "labels and logits, more pairs": (0.5, True, "network"),
    "dot product": (0.5, False, "dot"),
}


@dataclass(frozen=True)
class Scored:
    """Pairs with people's scores in 0..1."""

    pairs: list[Pair]
    scores: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """1 for pairs called alike."""
        labels: np.ndarray = (self.scores >= ALIKE).astype(np.float32)
        return labels


@dataclass(frozen=True)
class Study:
    """Pairs to learn from, to stop by and to judge by."""

    learn: Scored
    dev: Scored
    test: Scored
    task: str


def run(lab: Lab) -> Outcome:
    """Train a teacher, then students on its logits, and time both."""
    outcome, config = Outcome(), lab.config
    study = prepare(lab)
    base = model_named(lab, config["student"])
    encoder = with_top_layers(cut_layers(base, config["layers"]) if config["layers"] else base, last=config["last"])
    extra = more_pairs(study, encoder, config["extra"])
    known, teachers = cross_fitted(study.learn.pairs, lambda rows: taught(lab, study, rows), folds=config["folds"])
    teacher = MeanTeacher(teachers)
    judged = judge_teacher(study, known, teacher, outcome)
    logits = unit_logits(np.concatenate([known, teacher.logits(extra)]) if extra else known, len(known))
    student = compare_students(lab, study, extra, logits, encoder, outcome, judged)
    measure_speed(lab, study, teachers[0], student, outcome)
    check_invariants(study, student, logits, outcome)
    return outcome


def prepare(lab: Lab) -> Study:
    """Read scored pairs in three parts; the user's are drawn apart."""
    config, rng = lab.config, np.random.default_rng(0)
    if lab.user_data is None:
        sets = [lab.sts("sts/stsb", split) for split in ("train", "dev", "test")]
        parts = np.split(np.arange(sum(len(s.left) for s in sets)), np.cumsum([len(s.left) for s in sets])[:2])
    else:
        sets = [lab.sts("sts/stsb")]
        parts = np.split(rng.permutation(n := len(sets[0].left)), [round(0.6 * n), round(0.75 * n)])
    pairs = [pair for s in sets for pair in zip(s.left, s.right, strict=True)]
    scores = np.concatenate([s.scores for s in sets])
    scores = (scores - scores.min()) / max(float(np.ptp(scores)), 1e-9)
    kept = [rng.permutation(part)[: size or None] for part, size in
            zip(parts, (config["pairs"], config["dev"], config["tests"]), strict=True)]  # fmt: skip
    learn, dev, test = (Scored([pairs[i] for i in rows], scores[rows]) for rows in kept)
    if min(len(set(part.tolist())) for part in (dev.scores, test.scores, learn.labels)) < 2:
        raise RecipeError(
            "This needs scored pairs, some alike and some not, to learn from, to stop by and to judge by."
        )
    return Study(learn, dev, test, "sts/stsb" if lab.user_data is None else lab.user_data.name)


def model_named(lab: Lab, name: str) -> SentenceTransformer:
    """Return a model by name, or the lab's encoder."""
    from isometry.encoders import load

    return load(name, engine="torch", pooling="mean").model if name else lab.encoder().model


def more_pairs(study: Study, encoder: SentenceTransformer, n: int) -> list[Pair]:
    """Pairs of training sentences that nobody labelled: half at random, half a sentence and its nearest other."""
    mates: dict[str, set[str]] = {}
    for a, b in study.learn.pairs:
        mates.setdefault(a, set()).add(b)
        mates.setdefault(b, set()).add(a)
    texts = sorted(mates)
    place, rng = {text: row for row, text in enumerate(texts)}, np.random.default_rng(1)
    far = [(texts[i], texts[j]) for i, j in rng.integers(len(texts), size=(n - n // 2, 2))]
    vectors = PairStudent(encoder, DotHead(int(encoder.get_embedding_dimension()))).encode(texts).numpy()
    vectors -= vectors.mean(0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    some = rng.permutation(len(texts))[: n // 2]
    asked = [texts[i] for i in some]
    nearest = mine(vectors[some], vectors, [{place[t] for t in mates[text]} for text in asked], k=1,
                   texts=(asked, texts)).rows[:, 0]  # fmt: skip
    near = [(text, texts[row]) for text, row in zip(asked, nearest.tolist(), strict=True) if row >= 0]
    return [(a, b) for a, b in dict.fromkeys(near + far) if a != b and b not in mates[a]]


def taught(lab: Lab, study: Study, rows: list[int]) -> CrossEncoderScorer:
    """Train a cross-encoder on the labels of some pairs."""
    config = lab.config
    model = cross_encoder(model_named(lab, config["teacher"]))
    model[0].auto_model.get_input_embeddings().requires_grad_(config["words"])
    steps = max(1, config["teacher_epochs"] * len(rows) // config["batch"])

    def report(done: int, total: int | None) -> None:
        lab.progress("training the teacher", done, total)

    train_cross_encoder(model, [study.learn.pairs[row] for row in rows], study.learn.labels[rows],
                        Schedule(steps, config["batch"], lr=config["teacher_lr"]), progress=report)  # fmt: skip
    return CrossEncoderScorer(model)


def judge_teacher(study: Study, known: FloatArray, teacher: MeanTeacher, outcome: Outcome) -> float:
    """Return the teacher's rank correlation; a log loss far lower on pairs it learned would mean it knows them."""
    logits = {"pairs to learn from": known, "test pairs": teacher.logits(study.test.pairs)}
    sides = dict(zip(logits, (study.learn, study.test), strict=True))
    loss = {name: float(pointwise_loss(torch.from_numpy(z), torch.from_numpy(sides[name].labels), "bce"))
            for name, z in logits.items()}  # fmt: skip
    ranks = {name: float(spearman_units(z[:, 0], sides[name].scores).mean()) for name, z in logits.items()}
    outcome.fact("teacher's log loss", {name: round(value, 4) for name, value in loss.items()})
    outcome.fact("teacher's spearman", {name: round(value, 4) for name, value in ranks.items()})
    outcome.fact("standard deviation of the teacher's logits, before it is made 1", round(float(known.std()), 3))
    return ranks["test pairs"]


def untrained(lab: Lab, study: Study, encoder: SentenceTransformer, head: str, seed: int) -> PairStudent:
    """Return a student with an encoder of its own; a dot product's logits begin with mean 0 and deviation 1."""
    dim, some = int(encoder.get_embedding_dimension()), study.learn.pairs[:200]
    chosen = DotHead(dim, seed=seed) if head == "dot" else ComparisonHead(dim, hidden=lab.config["hidden"], seed=seed)
    own = cut_layers(encoder, encoder[0].auto_model.config.num_hidden_layers)
    own[0].auto_model.get_input_embeddings().requires_grad_(lab.config["words"])
    student = PairStudent(own, chosen)
    if isinstance(chosen, DotHead):
        chosen.calibrate(*(student.encode([pair[side] for pair in some]) for side in (0, 1)))
    return student


def compare_students(
    lab: Lab, study: Study, extra: list[Pair], logits: FloatArray, encoder: SentenceTransformer, outcome: Outcome,
    teacher: float,
) -> PairStudent:  # fmt: skip
    """Train a student per seed and way of teaching; units are test pairs, means over seeds. Return one of them."""
    config, kept = lab.config, list[PairStudent]()
    units: dict[str, list[np.ndarray]] = {name: [] for name in WAYS}
    curves: dict[str, list[list[tuple[int, float]]]] = {name: [] for name in WAYS}
    for name, (alpha, more, head) in WAYS.items():
        pairs = [*study.learn.pairs, *(extra if more else [])]
        targets = np.concatenate([study.learn.labels, np.full(len(pairs) - len(study.learn.pairs), np.nan, np.float32)])
        for seed in lab.seeds:
            lab.progress(f"student, {name}", seed, len(lab.seeds))
            student = untrained(lab, study, encoder, head, seed)
            best = BestWeights(student, lambda s: float(agreement(s, study.dev).mean()),
                               every=-(-config["steps"] // JUDGEMENTS))  # fmt: skip
            plan = Schedule(config["steps"], config["batch"], config["lr"], seed=seed,
                            weight_decay=config["weight_decay"])  # fmt: skip
            train_pair_student(student, pairs, targets, logits[: len(pairs)], plan, alpha=alpha, best=best)
            units[name].append(agreement(student, study.test))
            curves[name].append(best.history)
        kept.append(student)
    reader = PairStudent(encoder, DotHead(int(encoder.get_embedding_dimension())))
    left, right = (reader.encode([pair[side] for pair in study.test.pairs]) for side in (0, 1))
    start = float(spearman_units(torch.cosine_similarity(left, right).numpy(), study.test.scores).mean())
    outcome.fact("spearman of cosines before any training", round(start, 4))
    report_students(study, units, curves, teacher, outcome)
    return kept[list(WAYS).index("labels and logits")]


def agreement(student: PairStudent, scored: Scored) -> np.ndarray:
    """Each pair's share of the rank correlation between a student and people."""
    units: np.ndarray = spearman_units(student.predict(scored.pairs), scored.scores)
    return units


def report_students(
    study: Study, units: dict[str, list[np.ndarray]], curves: dict[str, list[list[tuple[int, float]]]], teacher: float,
    outcome: Outcome,
) -> None:  # fmt: skip
    """Compare ways of teaching, and every one of them with the teacher."""
    scores = {
        name: Scores.of(study.task, name, {METRIC: {f"pair {i}": float(v) for i, v in enumerate(np.mean(runs, 0))}})
        for name, runs in units.items()
    }
    labels = scores["labels alone"]
    outcome.compare("unlabelled-pairs-help", scores["labels and logits, more pairs"], labels)
    outcome.compare("logits-help", scores["labels and logits"], labels)
    outcome.compare("network-beats-dot", scores["labels and logits"], scores["dot product"])
    means = {"teacher": teacher, **{name: s.mean(METRIC) for name, s in scores.items()}}
    outcome.fact("spearman", {name: round(value, 4) for name, value in means.items()})
    outcome.fact("spearman by seed", {name: [round(float(run.mean()), 4) for run in runs]
                                      for name, runs in units.items()})  # fmt: skip
    outcome.fact("below the teacher, percent", {name: round(100 * (1 - value / teacher), 1)
                                                for name, value in means.items() if name != "teacher"})  # fmt: skip
    outcome.plot("students", Plot("Rank correlation with people's scores", "", "Spearman",
                                  {"test pairs": list(means.items())}, kind="bar"))  # fmt: skip
    means_by_step = {name: [(step, float(np.mean([run[i][1] for run in runs]))) for i, (step, _) in enumerate(runs[0])]
                     for name, runs in curves.items()}  # fmt: skip
    outcome.plot("training", Plot("Held-out pairs while students learn", "step", "Spearman", means_by_step))


def measure_speed(lab: Lab, study: Study, scorer: PairScorer, student: PairStudent, outcome: Outcome) -> None:
    """Time one query against many cached candidates, and the cross-encoder on a few pairs, warm."""
    m, timed = lab.config["candidates"], lab.config["timed"]
    vectors = torch.randn(m, student.head.dim, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        prepared = student.head.prepare(vectors)
    ratios, ours, theirs = {}, [], []
    for turn in range(REPEATS + 1):
        pairs = [study.test.pairs[(turn * timed + i) % len(study.test.pairs)] for i in range(timed)]
        started = time.perf_counter()
        with torch.no_grad():
            student.head.score(student.encode([pairs[0][0]])[0], vectors, prepared)
        middle = time.perf_counter()
        scorer.logits(pairs)
        if turn:  # the first turn warms up
            ours.append(middle - started)
            theirs.append(time.perf_counter() - middle)
            ratios[f"repeat {turn}"] = theirs[-1] / timed * m / ours[-1]
    outcome.compare("faster", Scores.of(study.task, "student", {"times faster": ratios}), 100.0)
    seconds = {"student": float(np.median(ours)), "cross-encoder": float(np.median(theirs)) / timed * m}
    outcome.fact(f"seconds of the cross-encoder for {REPEATS * timed} pairs", round(sum(theirs), 3))
    outcome.fact(f"seconds for one query and {m} candidates, {torch.get_num_threads()} thread (the cross-encoder's "
                 "extrapolated)", {name: round(s, 3) for name, s in seconds.items()})  # fmt: skip
    outcome.plot("speed", Plot(f"One query and {m} candidates", "", "seconds", {"time": list(seconds.items())},
                               kind="bar", log_y=True))  # fmt: skip


@torch.no_grad()
def check_invariants(study: Study, student: PairStudent, logits: FloatArray, outcome: Outcome) -> None:
    """Check on the trained student and real pairs what must hold exactly."""
    texts = [text for pair in study.test.pairs[:20] for text in pair]
    vectors, head = student.encode(texts), student.head.eval()
    whole = student([texts[0]] * len(texts), texts)
    worst = float((head.score(vectors[0], vectors, head.prepare(vectors)) - whole).abs().max())
    outcome.invariant("cached-exact", worst <= 1e-5, f"largest difference of a logit: {worst:.1e}")
    fair = ComparisonHead(head.dim, hidden=64, symmetric=True).eval()
    u, v = vectors[::2], vectors[1::2]
    turned = float((fair(u, v) - fair(v, u)).abs().max())
    outcome.invariant("symmetric", turned <= 1e-5, f"largest difference of a logit: {turned:.1e}")
    plain = float((head(u, v) - head(v, u)).abs().mean())
    outcome.fact("mean difference of a logit when sentences change places, plain head", round(plain, 4))
    check_alpha(study, student.encoder, logits, outcome)
    features = student.encoder.preprocess(texts[:8])
    states = list(student.encoder[0](dict(features))["all_layer_embeddings"][1:])
    changed = [state.clone() for state in states]
    for state in changed:
        state[:, 0] += 100
    kept, last = without_first(features["attention_mask"]), student.encoder[1].last
    pooled = [top_layers_pool(given, kept, last=last) for given in (states, changed)]
    outcome.invariant("cls-left-out", torch.equal(*pooled), "vectors with CLS moved by 100 in every number")


@torch.enable_grad()
def check_alpha(study: Study, encoder: SentenceTransformer, logits: FloatArray, outcome: Outcome) -> None:
    """Train a head by the teacher alone, on labels and on their opposite."""
    encoder, weights = encoder.requires_grad_(False), []
    for labels in (study.learn.labels[:32], 1 - study.learn.labels[:32]):
        student = PairStudent(encoder, ComparisonHead(int(encoder.get_embedding_dimension()), hidden=16))
        train_pair_student(student, study.learn.pairs[:32], labels, logits[:32], Schedule(3, 16, lr=1e-3), alpha=1.0)
        weights.append(torch.cat([p.detach().flatten() for p in student.head.parameters()]))
    outcome.invariant("alpha-one", torch.equal(*weights), "weights with labels and with their opposite")
