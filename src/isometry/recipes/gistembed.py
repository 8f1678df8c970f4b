"""GISTEmbed: a frozen guide removes false negatives from the batch while a small student is trained.

The student is a head on frozen features of layer 2 of the encoder; the guide is the whole encoder. Guided and
unguided training differ in the mask alone. Whatever the guide knows reaches the student only through which negatives it
forbids: where the guide is the sole source of knowledge, distilling its vectors directly teaches more. Batches hold no
text twice, so the plainest false negatives are gone before the guide looks, and its gain is small: hence many seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from isometry.errors import InputError, RecipeError
from isometry.lab import Card, Claim, Lab, Outcome
from isometry.negatives import DistinctBatches, check_guide, gist_loss, guided_mask, mask_quality
from isometry.negatives.masks import text_key
from isometry.objectives import own_entries, score_blocks
from isometry.objectives.info_nce import info_nce
from isometry.training import Plan, Tuning, apply_head, layer_features, mlp_head, train
from isometry.types import FloatArray, Scores

CARD = Card(
    slug="gistembed",
    title="GISTEmbed: Guided In-sample Selection of Training Negatives for Text Embedding Fine-tuning",
    arxiv="2402.16829",
    year=2024,
    kind="system",
    summary=(
        "Contrastive fine-tuning in which a frozen, stronger guide looks at every batch: a candidate that the guide "
        "places closer to a row than the row's own positive is probably an unlabelled positive, and is left out of "
        "the denominator. Nothing is mined beforehand and no threshold is tuned, because each positive's own guide "
        "score is the threshold. The same idea fails when positives are only loosely related: the threshold drops and "
        "true negatives are removed."
    ),
    mechanism=("isometry.negatives.guided:guided_mask", "isometry.negatives.guided:gist_loss"),
    parts=(
        "isometry.objectives.info_nce:info_nce",
        "isometry.negatives.guided:Guide",
        "isometry.negatives.quality:mask_quality",
        "isometry.negatives.sampling:DistinctBatches",
        "isometry.training.loop:train",
        "isometry.training.students:layer_features",
    ),
    needs=("sts", "pairs"),
    aliases=("guided in-sample selection", "false negative removal", "guided negatives", "GIST"),
    aspects={"task": "sentence similarity", "method": "contrastive fine-tuning with a guide", "data": "text pairs"},
    headline="Average MTEB gains of one to two points over small bases such as MiniLM; single tasks lose",
    claims=(
        Claim(
            "a student trained on paraphrases under a guide's mask is better than one trained without",
            key="beats-unguided",
            task="sts/stsb",
            metric="spearman",
            baseline="unguided",
            seeds=30,
        ),
        Claim(
            "the guide's knowledge does it, not masking as such: a guide of random vectors is worse",
            key="beats-random-guide",
            task="sts/stsb",
            metric="spearman",
            baseline="random guide",
            seeds=30,
        ),
        Claim("a larger margin masks a superset", key="mask-superset", invariant=True),
        Claim("masking never raises a row's loss", key="masked-loss-lower", invariant=True),
        Claim(
            "the better the guide, the more of what it masks is a false negative (random < layer 2 < whole encoder)",
            key="precision-rises",
            invariant=True,
        ),
    ),
    presets={
        "smoke": {"seeds": 2, "steps": 20, "batch": 32, "rows": 128, "intents": 6, "each": 12, "batches": 10},
        "laptop": {"seeds": 30, "steps": 300, "batch": 32, "rows": 0, "intents": 25, "each": 0, "batches": 200},
        "paper": {"seeds": 10, "steps": 3000, "batch": 16, "rows": 0, "intents": 77, "each": 0, "batches": 2000},
    },
)

BLOCKS = ("qd", "qq", "pp")
Guides = tuple[FloatArray, FloatArray] | None
LAYER, TEMPERATURE, LR = 2, 0.05, 1e-3
POSITIVE = {"1", "true", "yes", "entailment", "paraphrase"}


@dataclass(frozen=True)
class Side:
    """One side of pairs: its texts, the student's frozen features and the guide's vectors."""

    texts: list[str]
    features: FloatArray
    guide: FloatArray


@dataclass(frozen=True)
class Study:
    """Pairs to train on, pairs to judge by; ``gold`` is None where those are positives without a score."""

    train: tuple[Side, Side]
    test: tuple[Side, Side]
    gold: np.ndarray | None
    task: str

    @property
    def metric(self) -> str:
        """How a student is judged."""
        return "mrr" if self.gold is None else "spearman"

    def score(self, left: FloatArray, right: FloatArray) -> float:
        """Judge normalised test vectors: rank correlation with people, or reciprocal rank of each row's partner."""
        if self.gold is not None:
            return float(spearmanr((left * right).sum(1), self.gold).statistic)
        similarity = left @ right.T
        return float((1 / (similarity >= similarity.diagonal()[:, None]).sum(1)).mean())


def run(lab: Lab) -> Outcome:
    """Train the student unguided, guided, and guided at random; measure masks where the truth is known."""
    outcome = Outcome()
    study = prepare(lab)
    guide = (study.train[0].guide, study.train[1].guide)
    rng = np.random.default_rng(0)
    left, right = (rng.normal(size=side.shape).astype(np.float32) for side in guide)
    systems: dict[str, Guides] = {"unguided": None, "guided": guide, "random guide": (left, right)}
    scores = {name: measure(lab, study, name, vectors) for name, vectors in systems.items()}
    outcome.compare("beats-unguided", scores["guided"], scores["unguided"], metric=study.metric)
    outcome.compare("beats-random-guide", scores["guided"], scores["random guide"], metric=study.metric)
    for name in ("unguided", "guided"):
        mean = measure(lab, study, f"{name}, half of each batch swapped copies", systems[name], copies=True)
        outcome.fact(f"{study.metric}, {name}, half of each batch swapped copies", mean.mean(study.metric))
        outcome.fact(f"{study.metric}, {name}", scores[name].mean(study.metric))
    outcome.fact(f"{study.metric}, random guide", scores["random guide"].mean(study.metric))
    check_invariants(lab, study, outcome)
    if lab.user_data is None:
        judge_masks(lab, outcome)
    return outcome


def read_pairs(lab: Lab) -> tuple[list[str], list[str], np.ndarray | None, int]:
    """Return left and right texts, scores where there are some, and how many rows come first to train on."""
    if lab.user_data is None:
        first, second = lab.sts("sts/stsb", "train"), lab.sts("sts/stsb", "test")
        both = np.concatenate([first.scores, second.scores])
        return [*first.left, *second.left], [*first.right, *second.right], both, len(first.left)
    gold: np.ndarray | None = None
    try:
        scored = lab.sts("sts/stsb")
        left, right = list(scored.left), list(scored.right)
        gold = scored.scores
    except RecipeError:
        pairs = lab.pairs("pairs/mrpc")
        labels = pairs.labels or ["1"] * len(pairs.left)
        keep = [i for i, label in enumerate(labels) if label.lower() in POSITIVE]
        left, right = [pairs.left[i] for i in keep], [pairs.right[i] for i in keep]
    order = np.random.default_rng(0).permutation(len(left))
    left, right = [left[i] for i in order], [right[i] for i in order]
    return left, right, None if gold is None else gold[order], round(0.7 * len(left))


def prepare(lab: Lab) -> Study:
    """Embed the pairs: training rows are those scored at least four fifths of the highest score."""
    left, right, gold, cut = read_pairs(lab)
    train_rows = np.arange(cut) if gold is None else np.flatnonzero(gold[:cut] >= 0.8 * gold.max())
    test_rows = np.arange(cut, len(left))
    if limit := lab.config["rows"]:
        train_rows, test_rows = train_rows[:limit], test_rows[:limit]
    if len(train_rows) < lab.config["batch"] or len(test_rows) < 2:
        raise RecipeError(
            f"Training needs at least {lab.config['batch']} positive pairs and judging 2 more; "
            f"got {len(train_rows)} and {len(test_rows)}."
        )
    sides = [[embed_side(lab, [texts[i] for i in rows]) for texts in (left, right)] for rows in (train_rows, test_rows)]
    task = "sts/stsb" if lab.user_data is None else lab.user_data.name
    return Study(
        (sides[0][0], sides[0][1]), (sides[1][0], sides[1][1]), None if gold is None else gold[test_rows], task
    )


def plan(tuning: Tuning) -> Plan:
    """InfoNCE over query-document, query-query and positive-positive pairs, guided by the model as it was."""
    if tuning.kind == "sts":
        raise InputError("GISTEmbed masks negatives; graded similarities have none. Give pairs, triplets or classes.")
    loss = gist_loss(tuning.model, tuning.start, temperature=TEMPERATURE)
    return Plan(loss, note="The guide is the model as it was.")


def embed_side(lab: Lab, texts: list[str]) -> Side:
    """Embed texts as the student sees them and as the guide does."""
    features = layer_features(lab.encoder().model, texts, layer=LAYER)
    return Side(texts, features, lab.embed(texts))


def measure(lab: Lab, study: Study, system: str, guide: Guides, *, copies: bool = False) -> Scores:
    """Train one student a seed and judge each: the units are seeds."""
    values: dict[str, float] = {}
    for seed in lab.seeds:
        lab.progress(system, len(values), len(lab.seeds))
        head = fit(lab, study, guide, seed, copies)
        left, right = (apply_head(head, side.features) for side in study.test)
        values[f"seed {seed}"] = study.score(left, right)
    return Scores.of(study.task, system, {study.metric: values})


def fit(lab: Lab, study: Study, guide: Guides, seed: int, copies: bool) -> nn.Module:
    """Train a head with masked InfoNCE; with ``copies`` each batch holds half its rows twice, sides swapped."""
    config = lab.config
    left, right = (side.features for side in study.train)
    keys = [{text_key(a), text_key(b)} for a, b in zip(study.train[0].texts, study.train[1].texts, strict=True)]
    targets = torch.arange(config["batch"])

    def take(sides: tuple[FloatArray, FloatArray], rows: list[int]) -> tuple[Tensor, Tensor]:
        q, p = (torch.from_numpy(side[rows]) for side in sides)
        return (torch.cat([q, p]), torch.cat([p, q])) if copies else (q, p)

    def loss(head: nn.Module, rows: list[int]) -> Tensor:
        drop = None
        if guide is not None:
            drop = guided_mask(score_blocks(*take(guide, rows), blocks=BLOCKS), targets)
        q, p = take((left, right), rows)
        return info_nce(head(q), head(p), temperature=TEMPERATURE, drop=drop, blocks=BLOCKS)

    head = mlp_head((left.shape[1], 384, 128), seed=seed)
    batches = DistinctBatches(keys, config["batch"] // (2 if copies else 1), seed=seed)
    train(head, batches, loss, steps=config["steps"], lr=LR, seed=seed)
    return head


def check_invariants(lab: Lab, study: Study, outcome: Outcome) -> None:
    """Check on real vectors what must hold exactly, and whether the guide is stronger than the student."""
    (q, p), (gq, gp) = [
        [torch.from_numpy(getattr(side, name)[:256]) for side in study.train] for name in ("features", "guide")
    ]
    targets = torch.arange(len(q))
    scores = score_blocks(gq, gp, blocks=BLOCKS)
    masks = [guided_mask(scores, targets, margin=margin) for margin in (0.0, 0.05, 0.1)]
    lost = sum(int((a[block] & ~b[block]).sum()) for a, b in pairwise(masks) for block in BLOCKS)
    sizes = [sum(int(mask.sum()) for mask in by_block.values()) for by_block in masks]
    outcome.invariant("mask-superset", lost == 0, f"masked at margins 0, 0.05, 0.1: {sizes}")
    rows = [
        info_nce(q, p, temperature=TEMPERATURE, drop=drop, blocks=BLOCKS, reduction="none") for drop in (masks[0], None)
    ]
    worst = float((rows[0] - rows[1]).max())
    outcome.invariant("masked-loss-lower", worst <= 1e-5, f"largest rise of a row's loss: {worst:.1e}")
    accuracy = check_guide(score_blocks(q, p)["qd"], scores["qd"], targets)
    outcome.fact("accuracy@1 before training, student and guide", [round(a, 4) for a in accuracy])
    own = own_entries("qd", targets, len(targets))
    outcome.fact("share of negatives masked, paraphrase pairs", float((masks[0]["qd"] & ~own).sum() / (~own).sum()))


def judge_masks(lab: Lab, outcome: Outcome) -> None:
    """Hold guides of three strengths against known intents: pairs are two texts of one intent, random or near."""
    data = lab.labelled("cls/banking77", "train")
    names = sorted(set(data.labels))[: lab.config["intents"]]
    members = [[i for i, label in enumerate(data.labels) if label == name] for name in names]
    members = [rows[: lab.config["each"] or None] for rows in members]
    side = embed_side(lab, [data.texts[i] for rows in members for i in rows])
    labels = torch.repeat_interleave(torch.arange(len(members)), torch.tensor([len(rows) for rows in members]))
    rng = np.random.default_rng(0)
    noise = rng.normal(size=side.guide.shape).astype(np.float32)
    shape = (lab.config["batches"], lab.config["batch"])
    anchors = torch.from_numpy(np.stack([rng.permutation(len(labels))[: shape[1]] for _ in range(shape[0])]))
    chance = torch.from_numpy(rng.random((*shape, 1)))
    found = {}
    for kind, nearest in (("random", len(labels)), ("near", 3)):
        positives = partners(torch.from_numpy(side.guide), labels, anchors, chance, nearest)
        for name, vectors in {"random": noise, "layer": side.features, "whole": side.guide}.items():
            quality = judge(torch.from_numpy(vectors), labels, anchors, positives)
            found[kind, name] = quality
            outcome.fact(f"mask of guide {name!r}, {kind} positives", quality)
    curve = [found["random", name]["precision"] for name in ("random", "layer", "whole")]
    outcome.invariant("precision-rises", curve == sorted(set(curve)), " < ".join(f"{p:.3f}" for p in curve))


def partners(vectors: Tensor, labels: Tensor, anchors: Tensor, chance: Tensor, nearest: int) -> Tensor:
    """Choose another text of each anchor's class: any, or one of the ``nearest`` most similar; int64 like anchors."""
    scores = score_blocks(vectors, vectors)["qd"].masked_fill(labels[:, None] != labels[None, :], -torch.inf)
    ranked = scores.fill_diagonal_(-torch.inf).argsort(dim=1, descending=True, stable=True)
    choices = (labels.bincount()[labels] - 1).clamp(max=nearest)[anchors]
    chosen: Tensor = ranked[anchors].gather(-1, (chance * choices[..., None]).long()).squeeze(-1)
    return chosen


def judge(vectors: Tensor, labels: Tensor, anchors: Tensor, positives: Tensor) -> dict[str, float]:
    """Return the quality of a guide's masks over batches of anchors and positives, both int64 ``[n, b]``."""
    targets = torch.arange(anchors.shape[1])
    scores = [score_blocks(vectors[a], vectors[p]) for a, p in zip(anchors, positives, strict=True)]
    drop = torch.stack([guided_mask(s, targets)["qd"] for s in scores])
    truth = labels[anchors][:, :, None] == labels[positives][:, None, :]
    own = own_entries("qd", targets, len(targets)).expand_as(truth)
    return {name: round(value, 4) for name, value in mask_quality(drop, truth, own).to_dict().items()}
