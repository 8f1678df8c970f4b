"""WhitenedCSE: a whitening layer of shuffled channel groups between the encoder and its contrastive head.

Two questions. What does whitening do to vectors as they are, with statistics of training texts alone? And does the
layer, in training, give better vectors than dropout views without it? The encoder of the second is a small BERT that
knows masked language modelling and nothing else. There the layer does the spreading itself and relieves the encoder:
its pairs lie closer, its vectors fill less of the sphere, and similarity is the same.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from isometry.diagnostics import alignment, uniformity
from isometry.errors import RecipeError
from isometry.lab import Card, Claim, Lab, Outcome, Plot
from isometry.modules import GroupWhitening
from isometry.negatives import DistinctBatches, same_text
from isometry.negatives.masks import text_key
from isometry.objectives import MultiView
from isometry.spaces import Whitening
from isometry.stats import bootstrap_mean_ci
from isometry.tasks.sts import spearman_units
from isometry.training import Plan, Tuning, layer_features, raw_encoder, seeded, train
from isometry.types import FloatArray, Scores

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

CARD = Card(
    slug="whitenedcse",
    title="Whitening-based Contrastive Learning of Sentence Embeddings",
    arxiv="2305.17746",
    year=2023,
    kind="training method",
    summary=(
        "SimCSE with a whitening layer between encoder and projection: channels are dealt into random groups, each "
        "group is whitened over the batch, and every view of a sentence is dealt anew. Whitening spreads the batch "
        "over the space, several differently whitened views give several positives. As a transform of finished vectors "
        "whitening helps those never tuned for similarity, more with larger groups, and does nothing or harm to those "
        "that were."
    ),
    mechanism=(
        "isometry.modules.group_whitening:GroupWhitening",
        "isometry.objectives.views:MultiView",
        "isometry.spaces.whitening:Whitening",
    ),
    parts=(
        "isometry.objectives.views:multi_view",
        "isometry.diagnostics.isotropy:uniformity",
        "isometry.diagnostics.isotropy:alignment",
        "isometry.training.masked_language:raw_encoder",
        "isometry.training.students:layer_features",
    ),
    needs=("sts",),
    aliases=("shuffled group whitening", "ZCA whitening", "BERT-whitening", "SimCSE", "dropout views"),
    aspects={"task": "sentence similarity", "method": "whitening, contrastive learning", "data": "sentences"},
    headline="78.78 mean Spearman on seven STS sets with BERT-base, 2.53 above SimCSE",
    claims=(
        Claim(
            "full ZCA with statistics of training sentences raises the similarity of weak features (layer 2)",
            key="weak-gain",
            task="sts/stsb",
            metric="spearman",
            baseline="raw",
        ),
        Claim(
            "the gain grows with the group: full ZCA is above groups of 6 channels",
            key="larger-groups",
            task="sts/stsb",
            metric="spearman",
            baseline="groups of 6",
        ),
        Claim(
            "full ZCA lowers the similarity of sentence-tuned vectors",
            key="tuned-loss",
            task="sts/stsb",
            metric="spearman",
            baseline="raw",
            sign="<",
        ),
        Claim(
            "trained with the layer, an encoder is better than with three dropout views alone",
            key="training-gain",
            task="sts/stsb",
            metric="spearman",
            baseline="SimCSE, 3 views",
            seeds=6,
        ),
        Claim(
            "its vectors are more uniform",
            key="training-uniformity",
            task="sts/stsb",
            metric="uniformity",
            baseline="SimCSE, 3 views",
            sign="<",
            seeds=6,
        ),
        Claim(
            "and pairs that belong together lie closer",
            key="training-alignment",
            task="sts/stsb",
            metric="alignment",
            baseline="SimCSE, 3 views",
            sign="<",
            seeds=6,
        ),
        Claim("every group of a batch has mean 0 and covariance I", key="white", invariant=True),
        Claim("one channel a group standardises; one group is full ZCA", key="limits", invariant=True),
        Claim("of all whitenings ZCA moves the vectors least", key="closest", invariant=True),
    ),
    presets={
        "smoke": {"seeds": 2, "steps": 4, "batch": 32, "groups": 8, "mlm_steps": 4, "vocab": 800, "dim": 64,
                  "layers": 1, "texts": 600, "pairs": 150, "lr": 5e-4, "temperature": 0.05, "views": 3, "backbone": "",
                  "newton": 12},
        "laptop": {"seeds": 6, "steps": 100, "batch": 48, "groups": 16, "mlm_steps": 400, "vocab": 6000, "dim": 128,
                   "layers": 2, "texts": 4000, "pairs": 0, "lr": 5e-4, "temperature": 0.05, "views": 3, "backbone": "",
                   "newton": 12},
        "paper": {"seeds": 5, "steps": 7800, "batch": 128, "groups": 128, "texts": 1000000, "pairs": 0, "lr": 1e-5,
                  "temperature": 0.05, "views": 3, "backbone": "bert-base-uncased", "newton": 0},
    },
)  # fmt: skip

WEAK_LAYER = 2


@dataclass(frozen=True)
class Study:
    """Texts to learn from, scored pairs to judge by."""

    texts: list[str]
    left: list[str]
    right: list[str]
    gold: np.ndarray
    task: str

    def spearman(self, left: FloatArray, right: FloatArray, system: str) -> Scores:
        """Score every pair: its share of the rank correlation."""
        units = spearman_units(_cosine(left, right), self.gold)
        return Scores.of(self.task, system, {"spearman": {str(i): v for i, v in enumerate(units.tolist())}})


def plan(tuning: Tuning) -> Plan:
    """Train on dropout views of the first column of texts, whitened in shuffled groups; labels are not looked at."""
    width = int(tuning.model.get_embedding_dimension() or 0)
    with seeded(tuning.seed):
        loss = MultiView(tuning.model, views=3, whitening=GroupWhitening(width), head=_head(width), mask=same_text)
    return Plan(loss, note="unsupervised: only the first text of each row is used")


def run(lab: Lab) -> Outcome:
    """Whiten finished vectors, then train with and without the layer."""
    outcome = Outcome()
    study = _read(lab)
    _transform(lab, study, outcome)
    _train(lab, study, outcome)
    return outcome


def _read(lab: Lab) -> Study:
    if lab.user_data is None:
        learn, judge = lab.sts("sts/stsb", "train"), lab.sts("sts/stsb", "test")
        texts, rows = [*learn.left, *learn.right], list(range(len(judge.left)))
    else:
        judge = lab.sts("")
        order = np.random.default_rng(0).permutation(len(judge.left)).tolist()
        rest, rows = order[: len(order) // 2], order[len(order) // 2 :]
        texts = [side[i] for side in (judge.left, judge.right) for i in rest]
    texts = sorted(set(texts))
    texts = [texts[i] for i in np.random.default_rng(0).permutation(len(texts))[: lab.config["texts"]]]
    rows = rows[: lab.config["pairs"] or None]
    if len(texts) < 2 * lab.config["batch"] or len(rows) < 10:
        raise RecipeError(f"Whitening is learned from {len(texts)} texts and judged on {len(rows)} pairs; give more.")
    left, right = ([side[i] for i in rows] for side in (judge.left, judge.right))
    return Study(texts, left, right, judge.scores[rows], judge.name or "sts")


def _transform(lab: Lab, study: Study, outcome: Outcome) -> None:
    """Whiten weak features and tuned vectors in groups of rising size."""
    model = lab.encoder().model
    sides = (study.texts, study.left, study.right)
    weak = [layer_features(model, texts, layer=WEAK_LAYER) for texts in sides]
    tuned = [lab.embed(texts) for texts in sides]
    series: dict[str, list[tuple[Any, float]]] = {}
    found: dict[tuple[str, str], Scores] = {}
    for name, (learn, left, right) in {f"layer {WEAK_LAYER}": weak, "whole encoder": tuned}.items():
        width = learn.shape[1]
        sizes = [size for size in (1, 2, 6, 24, 96, width) if width % size == 0 and size <= width]
        maps: dict[str, Any] = {str(size): Whitening(groups=width // size, seed=0) for size in dict.fromkeys(sizes)}
        maps |= {"PCA 128": Whitening("pca", dim=128)} if width > 128 else {}
        mean = learn.mean(axis=0)
        found[name, "raw"] = study.spearman(left, right, "raw")
        found[name, "centred"] = study.spearman(left - mean, right - mean, "centred")
        for label, space in maps.items():
            space.set_params(shrinkage=1e-4).fit(learn)
            found[name, label] = study.spearman(space.transform(left), space.transform(right), label)
        found[name, "full"], found[name, "six"] = found[name, str(width)], found[name, "6" if width % 6 == 0 else "2"]
        values = {
            label: round(s.mean("spearman"), 4)
            for (n, label), s in found.items()
            if n == name and label not in ("full", "six")
        }
        outcome.fact(f"spearman by channels in a group, {name}", values)
        series[name] = [(size, values[str(size)]) for size in sizes]
        series[f"{name}, raw"] = [(sizes[0], values["raw"]), (sizes[-1], values["raw"])]
    weak_name = f"layer {WEAK_LAYER}"
    outcome.compare("weak-gain", found[weak_name, "full"], found[weak_name, "raw"])
    outcome.compare("larger-groups", found[weak_name, "full"], found[weak_name, "six"])
    outcome.compare("tuned-loss", found["whole encoder", "full"], found["whole encoder", "raw"])
    outcome.plot("groups", Plot("Whitening of finished vectors (ZCA, statistics of training texts)",
                                "channels in a group", "STS Spearman", series, log_x=True))  # fmt: skip
    _invariants(weak[0], outcome)


def _invariants(x: FloatArray, outcome: Outcome) -> None:
    """Check the layer on real features."""
    batch = torch.from_numpy(x[:512]).double()[:, :96]
    batch = batch - batch.mean(0)
    dealt = torch.randperm(96, generator=torch.Generator().manual_seed(0))
    y = GroupWhitening(96, 16, eps=1e-9)(batch, dealt)[:, dealt].reshape(len(batch), 16, 6)
    errors = [(y[:, g].T @ y[:, g] / len(y) - torch.eye(6)).abs().max() for g in range(16)]
    mean, worst = float(y.mean(0).abs().max()), float(max(errors))
    outcome.invariant("white", mean <= 1e-5 and worst <= 1e-3, f"mean {mean:.0e}, covariance off by {worst:.0e}")
    each = GroupWhitening(96, 96, eps=0)(batch) - batch / batch.std(0, correction=0)
    whole = GroupWhitening(96, 1, eps=0)(batch)
    u, _, v = torch.linalg.svd(batch, full_matrices=False)
    off = [float(each.abs().max()), float((whole - u @ v * len(batch) ** 0.5).abs().max())]
    outcome.invariant("limits", max(off) < 1e-6, f"off by {off[0]:.0e} and {off[1]:.0e}")
    away = {kind: float(np.linalg.norm(Whitening(kind).fit_transform(batch) - batch.numpy())) for kind in
            ("zca", "pca", "cholesky")}  # fmt: skip
    outcome.invariant("closest", away["zca"] == min(away.values()), ", ".join(f"{k} {v:.1f}" for k, v in away.items()))


def _train(lab: Lab, study: Study, outcome: Outcome) -> None:
    """Train one encoder from the same start with and without the layer, by seed."""
    start = _start(lab, study)
    systems = {"untrained": None, "SimCSE, 3 views": False, "shuffled group whitening": True}
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for name, whitened in systems.items():
        values: dict[str, dict[str, float]] = {}
        for seed in lab.seeds if whitened is not None else lab.seeds[:1]:
            lab.progress(name, seed, len(lab.seeds))
            model = start if whitened is None else _fit(lab, start, study.texts, whitened, seed)
            for metric, value in _judge(model, study).items():
                values.setdefault(metric, {})[f"seed {seed}"] = value
        metrics[name] = values
        means = {m: round(float(np.mean(list(v.values()))), 4) for m, v in values.items()}
        outcome.fact(f"trained encoder, {name}", means)
        if len(values["spearman"]) > 2:
            bounds = {m: np.round(bootstrap_mean_ci(list(v.values())), 4).tolist() for m, v in values.items()}
            outcome.fact(f"95% intervals over seeds, {name}", bounds)
    base, ours = (Scores.of(study.task, name, metrics[name]) for name in list(systems)[1:])
    for key, metric in (("gain", "spearman"), ("uniformity", "uniformity"), ("alignment", "alignment")):
        outcome.compare(f"training-{key}", ours, base, metric=metric)
    points = {name: list(zip(v["uniformity"].values(), v["alignment"].values(), strict=True))
              for name, v in metrics.items()}  # fmt: skip
    title = "Trained encoders, one point a seed (lower is better both ways)"
    outcome.plot("training", Plot(title, "uniformity", "alignment of near pairs", points, kind="scatter"))


def _start(lab: Lab, study: Study) -> SentenceTransformer:
    """Load the backbone, or train a small masked language model."""
    config = lab.config
    if config["backbone"]:
        from isometry.encoders import load

        return load(config["backbone"], engine="torch", pooling="cls").model

    sizes = {name: config[name] for name in ("vocab", "dim", "layers")}
    return raw_encoder(study.texts, **sizes, steps=config["mlm_steps"],
                       progress=lambda done, all_: lab.progress("language model", done, all_))  # fmt: skip


def _fit(lab: Lab, start: SentenceTransformer, texts: list[str], whitened: bool, seed: int) -> SentenceTransformer:
    config, model = lab.config, copy.deepcopy(start)
    width = int(model.get_embedding_dimension() or 0)
    layer = GroupWhitening(width, config["groups"], stop_gradient=False, newton=config["newton"]) if whitened else None
    with seeded(seed):
        head = _head(width)
    objective = MultiView(model, views=config["views"], whitening=layer, head=head, temperature=config["temperature"])

    def loss(module: nn.Module, rows: list[int]) -> Tensor:
        value: Tensor = module([model.preprocess([texts[row] for row in rows])])
        return value

    batches = DistinctBatches([{text_key(text)} for text in texts], config["batch"], seed=seed)
    train(objective, batches, loss, steps=config["steps"], lr=config["lr"], seed=seed)
    return model.eval()


def _head(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.Tanh())


def _judge(model: SentenceTransformer, study: Study) -> dict[str, float]:
    left, right = (np.asarray(model.encode(side, show_progress_bar=False)) for side in (study.left, study.right))
    near = study.gold >= 0.8 * study.gold.max()
    return {
        "spearman": study.spearman(left, right, "").mean("spearman"),
        "uniformity": uniformity(np.concatenate([left, right])),
        "alignment": alignment(left[near], right[near]),
    }


def _cosine(left: FloatArray, right: FloatArray) -> FloatArray:
    products = (left * right).sum(1)
    return np.asarray(products / (np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)), np.float32)
