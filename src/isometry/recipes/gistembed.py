"""GISTEmbed: a frozen guide removes false negatives from the batch while a small student is trained.

The student is a head on frozen features of layer 2 of the encoder; the guide is the whole encoder. Guided and
unguided training differ in the mask alone. Batches are drawn at random, as the authors draw them, and hold the false
negatives that the data have; the same is done with batches that hold no text twice, where the plainest of them are gone
before the guide looks. The units are seeds. A student trained end to end is reported beside them. Whatever the guide
knows reaches the student only through which negatives it forbids: where the guide is the sole source of knowledge,
distilling its vectors directly teaches more.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from isometry.errors import InputError
from isometry.lab import Card, Claim, Lab, Outcome, Plot
from isometry.lab.paraphrases import Paraphrases, paraphrases
from isometry.modules import cut_layers
from isometry.negatives import DistinctBatches, check_guide, gist_loss, guided_mask, mask_quality
from isometry.objectives import own_entries, score_blocks
from isometry.objectives.info_nce import info_nce
from isometry.training import FrozenFeatures, Plan, Tuning, apply_head, mlp_head, train
from isometry.training.fine_tuning import Settings
from isometry.training.rows import Rows
from isometry.training.sizes import tune_in_memory
from isometry.types import FloatArray, Scores, normal_text

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

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
        "isometry.negatives.guided_hinge:guided_triplet",
        "isometry.negatives.guided:Guide",
        "isometry.negatives.quality:mask_quality",
        "isometry.negatives.sampling:DistinctBatches",
        "isometry.training.loop:train",
        "isometry.training.frozen_features:FrozenFeatures",
    ),
    needs=("sts", "pairs"),
    aliases=("guided in-sample selection", "false negative removal", "guided negatives", "GIST"),
    aspects={"task": "sentence similarity", "method": "contrastive fine-tuning with a guide", "data": "text pairs"},
    headline="Average MTEB gains of one to two points over small bases such as MiniLM; single tasks lose",
    claims=(
        Claim("a student trained on paraphrases under a guide's mask is better than one trained without",
              key="beats-unguided", task="sts/stsb", metric="spearman", baseline="unguided", seeds=20),
        Claim("so it is where batches hold no text twice, without the plainest false negatives",
              key="beats-distinct", task="sts/stsb", metric="spearman", baseline="unguided, no text twice", seeds=20),
        Claim("the guide's knowledge does it, not masking as such: a guide of random vectors is worse",
              key="beats-random-guide", task="sts/stsb", metric="spearman", baseline="random guide", seeds=20),
        Claim("where half of each batch are copies with sides swapped, the guide does harm",
              key="copies-harm", task="sts/stsb", metric="spearman", baseline="unguided, copies", sign="<", seeds=20),
        Claim("a larger margin masks a superset", key="mask-superset", invariant=True),
        Claim("masking never raises a row's loss", key="masked-loss-lower", invariant=True),
        Claim(
            "the better the guide, the more of what it masks is a false negative (random < layer 2 < whole encoder)",
            key="precision-rises",
            invariant=True,
        ),
    ),
    presets={
        "smoke": {
            "seeds": 2, "steps": 20, "batch": 32, "rows": 128, "intents": 6, "each": 12, "batches": 10, "backbone": "",
            "guide": "", "tuned_steps": 2, "tuned_batch": 8, "tuned_lr": 1e-4, "tuned_temperature": 0.05,
        },
        "laptop": {
            "seeds": 20, "steps": 300, "batch": 32, "rows": 0, "intents": 25, "each": 0, "batches": 200, "backbone": "",
            "guide": "", "tuned_steps": 60, "tuned_batch": 32, "tuned_lr": 1e-4, "tuned_temperature": 0.05,
        },
        "paper": {
            "seeds": 10, "steps": 3000, "batch": 16, "rows": 0, "intents": 77, "each": 0, "batches": 2000,
            "backbone": "BAAI/bge-small-en-v1.5", "guide": "WhereIsAI/UAE-Large-V1", "tuned_steps": 100_000,
            "tuned_batch": 16, "tuned_lr": 5e-6, "tuned_temperature": 0.01,
        },
    },
)  # fmt: skip

BLOCKS = ("qd", "qq", "pp")
Pair = tuple[FloatArray, FloatArray]
LAYER, TEMPERATURE, LR = 2, 0.05, 1e-3
COPIES = ", copies"
DISTINCT = ", no text twice"


@dataclass(frozen=True)
class Study:
    """Pairs to train on and to judge by; of both the student's frozen features, of the former the guide's vectors."""

    data: Paraphrases
    features: Pair
    guide: Pair
    test: Pair
    task: str


def run(lab: Lab) -> Outcome:
    """Train the student unguided, guided, and guided at random; measure masks where the truth is known."""
    outcome, study = Outcome(), prepare(lab)
    rng, metric = np.random.default_rng(0), study.data.metric
    left, right = (rng.normal(size=side.shape).astype(np.float32) for side in study.guide)
    guides: dict[str, Pair | None] = {"unguided": None, "guided": study.guide, "random guide": (left, right)}
    scores = {name: measure(lab, study, name, guide) for name, guide in guides.items()}
    for kind in (DISTINCT, COPIES):
        for name in ("unguided", "guided"):
            scores[name + kind] = measure(lab, study, name + kind, guides[name])
    for key, method, baseline in (
        ("beats-unguided", "guided", "unguided"), ("beats-distinct", "guided" + DISTINCT, "unguided" + DISTINCT),
        ("beats-random-guide", "guided", "random guide"), ("copies-harm", "guided" + COPIES, "unguided" + COPIES),
    ):  # fmt: skip
        outcome.compare(key, scores[method], scores[baseline], metric=metric)
    before = {"layer 2": study.test, "guide": [lab.embed(side) for side in study.data.test]}
    alone = partial(apply_head, nn.Identity())
    found = {f"{name} as it is": study.data.score(*map(alone, sides)) for name, sides in before.items()}
    found |= {name: score.mean(metric) for name, score in scores.items()}
    outcome.fact(metric, {name: round(value, 4) for name, value in found.items()})
    check_invariants(study, outcome)
    tune_whole(lab, study, outcome)
    if lab.user_data is None:
        judge_masks(lab, outcome)
    return outcome


def prepare(lab: Lab) -> Study:
    """Read the pairs and embed them as the student sees them and as the guide does."""
    data = paraphrases(lab, limit=lab.config["rows"], least=lab.config["batch"])
    bank = FrozenFeatures(lab.encoder().model, layer=LAYER)
    task = "sts/stsb" if lab.user_data is None else lab.user_data.name
    sides = (data.left, data.right)
    (left, right), (one, two), (a, b) = [map(bank, sides), map(lab.embed, sides), map(bank, data.test)]
    return Study(data, (left, right), (one, two), (a, b), task)


def plan(tuning: Tuning) -> Plan:
    """InfoNCE over query-document, query-query and positive-positive pairs, guided by the model as it was."""
    if tuning.kind == "sts":
        raise InputError("GISTEmbed masks negatives; graded similarities have none. Give pairs, triplets or classes.")
    loss = gist_loss(tuning.model, tuning.start, temperature=TEMPERATURE)
    return Plan(loss, note="The guide is the model as it was.")


def measure(lab: Lab, study: Study, system: str, guide: Pair | None) -> Scores:
    """Train one student a seed and judge each: the units are seeds."""
    values: dict[str, float] = {}
    for seed in lab.seeds:
        lab.progress(system, len(values), len(lab.seeds))
        head = fit(lab, study, guide, seed, copies=system.endswith(COPIES), distinct=system.endswith(DISTINCT))
        values[f"seed {seed}"] = study.data.score(*(apply_head(head, side) for side in study.test))
    return Scores.of(study.task, system, {study.data.metric: values})


def fit(lab: Lab, study: Study, guide: Pair | None, seed: int, *, copies: bool, distinct: bool) -> nn.Module:
    """Train a head with masked InfoNCE; with ``copies`` each batch holds half its rows twice, sides swapped."""
    config = lab.config
    targets = torch.arange(config["batch"])

    def take(sides: Pair, rows: list[int]) -> tuple[Tensor, Tensor]:
        q, p = (torch.from_numpy(side[rows]) for side in sides)
        return (torch.cat([q, p]), torch.cat([p, q])) if copies else (q, p)

    def loss(head: nn.Module, rows: list[int]) -> Tensor:
        drop = None
        if guide is not None:
            drop = guided_mask(score_blocks(*take(guide, rows), blocks=BLOCKS), targets)
        q, p = take(study.features, rows)
        return info_nce(head(q), head(p), temperature=TEMPERATURE, drop=drop, blocks=BLOCKS)

    head = mlp_head((study.features[0].shape[1], 384, 128), seed=seed)
    pairs = zip(study.data.left, study.data.right, strict=True)
    keys = [{normal_text(a), normal_text(b)} if distinct else {str(row)} for row, (a, b) in enumerate(pairs)]
    batches = DistinctBatches(keys, config["batch"] // (2 if copies else 1), seed=seed)
    train(head, batches, loss, steps=config["steps"], lr=LR, seed=seed)
    return head


def tune_whole(lab: Lab, study: Study, outcome: Outcome) -> None:
    """Train a student end to end with and without a guide, once each, by the loss that `tune` uses."""
    from isometry.encoders import load

    config, data, found = lab.config, study.data, dict[str, float]()
    start: SentenceTransformer = (
        load(config["backbone"], engine="torch").model if config["backbone"] else cut_layers(lab.encoder().model, LAYER)
    )
    guide = load(config["guide"], engine="torch").model if config["guide"] else lab.encoder().model
    settings = Settings(config["tuned_steps"], config["tuned_batch"], config["tuned_lr"], max_tokens=512)
    for name, chosen in (("before", None), ("unguided", None), ("guided", guide)):
        model = copy.deepcopy(start)
        if name != "before":
            loss = gist_loss(model, chosen, temperature=config["tuned_temperature"])
            rows = Rows("pairs", (data.left, data.right))
            tune_in_memory(model, rows, loss, settings, progress=partial(lab.progress, f"end to end, {name}"))
        sides = [model.encode(side, normalize_embeddings=True, show_progress_bar=False) for side in data.test]
        found[name] = round(data.score(*sides), 4)
    outcome.fact(f"{data.metric}, student trained end to end", found)


def check_invariants(study: Study, outcome: Outcome) -> None:
    """Check on real vectors what must hold exactly, and whether the guide is stronger than the student."""
    (q, p), (gq, gp) = [[torch.from_numpy(side[:256]) for side in pair] for pair in (study.features, study.guide)]
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
    texts = [data.texts[i] for rows in members for i in rows]
    features, guide = FrozenFeatures(lab.encoder().model, layer=LAYER)(texts), lab.embed(texts)
    labels = torch.repeat_interleave(torch.arange(len(members)), torch.tensor([len(rows) for rows in members]))
    rng = np.random.default_rng(0)
    noise = rng.normal(size=guide.shape).astype(np.float32)
    shape = (lab.config["batches"], lab.config["batch"])
    anchors = torch.from_numpy(np.stack([rng.permutation(len(labels))[: shape[1]] for _ in range(shape[0])]))
    chance = torch.from_numpy(rng.random((*shape, 1)))
    found = {}
    for kind, nearest in (("random", len(labels)), ("near", 3)):
        positives = partners(torch.from_numpy(guide), labels, anchors, chance, nearest)
        for name, vectors in {"random": noise, "layer": features, "whole": guide}.items():
            quality = judge(torch.from_numpy(vectors), labels, anchors, positives)
            found[kind, name] = quality
            outcome.fact(f"mask of guide {name!r}, {kind} positives", quality)
    guides = ("random", "layer", "whole")
    curves = {f"{kind} positives": [(name, found[kind, name]["precision"]) for name in guides]
              for kind in ("random", "near")}  # fmt: skip
    title = "What a guide masks in batches of one class a pair"
    outcome.plot("mask-precision", Plot(title, "guide", "share that is of the row's class", curves, "bar"))
    curve = [found["random", name]["precision"] for name in guides]
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
