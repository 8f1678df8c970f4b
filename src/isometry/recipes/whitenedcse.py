"""WhitenedCSE: a whitening layer of shuffled channel groups between the encoder and its contrastive head.

Two questions. What does whitening do to vectors as they are, with statistics of training texts alone? And does the
layer, in training, give better vectors than dropout views without it? The encoder of the second is a small BERT after
about a thousand steps of masked language modelling on encyclopedia sentences and the training texts, mean-pooled since
its CLS token never learned anything; the gradient passes through the whitening. Both systems take the learning rate and
the checkpoint that are best on the development pairs, as the paper takes its checkpoints. At the laptop's scale both
take the higher rate and the last checkpoint, so neither has stopped gaining. The layer spreads the batch itself, and
relieves the encoder of it: pairs lie closer, while the encoder's own vectors fill less of the sphere.
"""

from __future__ import annotations

import copy
import gzip
from collections.abc import Sequence
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
from isometry.objectives import MultiView
from isometry.spaces import Whitening
from isometry.stats import bootstrap_mean_ci
from isometry.tasks.sts import spearman_units
from isometry.training import Plan, Tuning, layer_features, raw_encoder, seeded, train
from isometry.types import FloatArray, Scores, normal_text

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from isometry.data.schemas import STS

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
        Claim("full ZCA with statistics of training sentences raises the similarity of weak features (layer 2)",
              key="weak-gain", task="sts/stsb", metric="spearman", baseline="raw"),
        Claim("the gain grows with the group: full ZCA is above groups of 6 channels",
              key="larger-groups", task="sts/stsb", metric="spearman", baseline="groups of 6"),
        Claim("full ZCA lowers the similarity of sentence-tuned vectors",
              key="tuned-loss", task="sts/stsb", metric="spearman", baseline="raw", sign="<"),
        Claim("trained with the layer, an encoder is better than with three dropout views alone",
              key="training-gain", task="sts/stsb", metric="spearman", baseline="SimCSE, 3 views", seeds=6),
        Claim("its vectors are more uniform",
              key="training-uniformity", task="sts/stsb", metric="uniformity", baseline="SimCSE, 3 views", sign="<",
              seeds=6),
        Claim("and pairs that belong together lie closer",
              key="training-alignment", task="sts/stsb", metric="alignment", baseline="SimCSE, 3 views", sign="<",
              seeds=6),
        Claim("every group of a batch has mean 0 and covariance I", key="white", invariant=True),
        Claim("one channel a group standardises; one group is full ZCA", key="limits", invariant=True),
        Claim("of all whitenings ZCA moves the vectors least", key="closest", invariant=True),
    ),
    presets={
        "smoke": {"seeds": 2, "steps": 4, "every": 2, "batch": 32, "groups": 8, "text": 100, "mlm_steps": 4,
                  "vocab": 800, "dim": 64, "layers": 1, "texts": 600, "pairs": 150, "rates": (1e-4, 5e-4),
                  "temperature": 0.05, "views": 3, "backbone": "", "newton": 12},
        "laptop": {"seeds": 6, "steps": 100, "every": 25, "batch": 64, "groups": 16, "text": 15000, "mlm_steps": 900,
                   "vocab": 6000, "dim": 128, "layers": 2, "texts": 4000, "pairs": 0, "rates": (1e-4, 5e-4),
                   "temperature": 0.05, "views": 3, "backbone": "", "newton": 12},
        "paper": {"seeds": 5, "steps": 7800, "every": 125, "batch": 128, "groups": 128, "texts": 1000000, "pairs": 0,
                  "rates": (1e-5,), "temperature": 0.05, "views": 3, "backbone": "bert-base-uncased", "newton": 0},
    },
)  # fmt: skip

WEAK_LAYER = 2
SYSTEMS = {"SimCSE, 3 views": False, "shuffled group whitening": True}


@dataclass(frozen=True)
class Scored:
    """Pairs of texts with people's scores."""

    left: list[str]
    right: list[str]
    gold: np.ndarray

    @classmethod
    def of(cls, data: STS, rows: Sequence[int]) -> Scored:
        """Take some rows of scored pairs."""
        return cls([data.left[i] for i in rows], [data.right[i] for i in rows], data.scores[list(rows)])


@dataclass(frozen=True)
class Study:
    """Texts to learn from, scored pairs to choose by and to judge by."""

    texts: list[str]
    dev: Scored
    test: Scored
    task: str

    def spearman(self, left: FloatArray, right: FloatArray, system: str) -> Scores:
        """Score every test pair: its share of the rank correlation."""
        units = spearman_units(_cosine(left, right), self.test.gold)
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
        learn, choose, judge = (lab.sts("sts/stsb", split) for split in ("train", "dev", "test"))
        texts, rest, rows = [*learn.left, *learn.right], list(range(len(choose.left))), list(range(len(judge.left)))
    else:
        choose = judge = lab.sts("")
        order = np.random.default_rng(0).permutation(len(judge.left)).tolist()
        rest, rows = order[: len(order) // 2], order[len(order) // 2 :]
        texts = [side[i] for side in (judge.left, judge.right) for i in rest]
    texts = sorted(set(texts))
    texts = [texts[i] for i in np.random.default_rng(0).permutation(len(texts))[: lab.config["texts"]]]
    dev, test = (Scored.of(data, part[: lab.config["pairs"] or None]) for data, part in ((choose, rest), (judge, rows)))
    if len(texts) < 2 * lab.config["batch"] or len(test.left) < 10:
        raise RecipeError(
            f"Whitening is learned from {len(texts)} texts and judged on {len(test.left)} pairs; give more."
        )
    return Study(texts, dev, test, judge.name or "sts")


def _transform(lab: Lab, study: Study, outcome: Outcome) -> None:
    """Whiten weak features and tuned vectors in groups of rising size."""
    model = lab.encoder().model
    sides = (study.texts, study.test.left, study.test.right)
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
    start = _start(lab, study, outcome)
    metrics = {"untrained": {metric: {"": value} for metric, value in _judge(start, study).items()}}
    for name, whitened in SYSTEMS.items():
        lab.progress(name, 0, len(lab.seeds))
        tried = {rate: _fit(lab, start, study, whitened, rate, lab.seeds[0]) for rate in lab.config["rates"]}
        rate = max(tried, key=lambda rate: tried[rate].dev)
        runs = [tried[rate], *(_fit(lab, start, study, whitened, rate, seed) for seed in lab.seeds[1:])]
        found = [_judge(run.model, study) for run in runs]
        metrics[name] = {metric: {f"seed {seed}": values[metric] for seed, values in enumerate(found)}
                         for metric in found[0]}  # fmt: skip
        outcome.fact(f"development pairs by learning rate, {name}", {str(r): round(t.dev, 4) for r, t in tried.items()})
        outcome.fact(f"step of the best checkpoint by seed, {name}", [run.step for run in runs])
        outcome.fact(
            f"loss, first and last step, {name}", np.mean([run.ends for run in runs], axis=0).round(4).tolist()
        )
        bounds = {m: np.round(bootstrap_mean_ci(list(v.values())), 4).tolist() for m, v in metrics[name].items()}
        outcome.fact(f"95% intervals over seeds, {name}", bounds)
    for name, values in metrics.items():
        means = {metric: round(float(np.mean(list(v.values()))), 4) for metric, v in values.items()}
        outcome.fact(f"trained encoder, {name}", means)
    base, ours = (Scores.of(study.task, name, metrics[name]) for name in SYSTEMS)
    for key, metric in (("gain", "spearman"), ("uniformity", "uniformity"), ("alignment", "alignment")):
        outcome.compare(f"training-{key}", ours, base, metric=metric)
    points = {name: list(zip(v["uniformity"].values(), v["alignment"].values(), strict=True))
              for name, v in metrics.items()}  # fmt: skip
    title = "Trained encoders, one point a seed (lower is better both ways)"
    outcome.plot("training", Plot(title, "uniformity", "alignment of near pairs", points, kind="scatter"))


def _start(lab: Lab, study: Study, outcome: Outcome) -> SentenceTransformer:
    """Load the backbone, or train a small masked language model."""
    config = lab.config
    if config["backbone"]:
        from isometry.encoders import load

        return load(config["backbone"], engine="torch", pooling="cls", max_tokens=32).model
    texts = list(study.texts)
    if lab.user_data is None:
        with gzip.open(lab.path("text") / "en" / "wikipedia-106.txt.gz", "rt", encoding="utf-8") as file:
            lines = [line.strip() for line in file if 3 <= len(line.split()) <= 25]
        texts += [lines[i] for i in np.random.default_rng(0).permutation(len(lines))[: config["text"]]]
    sizes = {name: config[name] for name in ("vocab", "dim", "layers")}
    raw = raw_encoder(texts, **sizes, steps=config["mlm_steps"],
                      progress=lambda done, all_: lab.progress("language model", done, all_))  # fmt: skip
    tenth = -(-len(raw.losses) // 10)
    ends = [round(float(np.mean(part)), 4) for part in (raw.losses[:tenth], raw.losses[-tenth:])]
    outcome.fact("loss of the language model, first and last tenth of its steps", ends)
    return raw.model


@dataclass(eq=False)
class Run:
    """A model at its best checkpoint on the development pairs, and the first and last loss of its training."""

    model: SentenceTransformer
    dev: float = -1.0
    step: int = 0
    ends: tuple[float, float] = (0.0, 0.0)


def _fit(lab: Lab, start: SentenceTransformer, study: Study, whitened: bool, rate: float, seed: int) -> Run:
    config, texts, run = lab.config, study.texts, Run(copy.deepcopy(start))
    width, best = int(start.get_embedding_dimension() or 0), dict[str, Tensor]()
    layer = GroupWhitening(width, config["groups"], stop_gradient=False, newton=config["newton"]) if whitened else None
    with seeded(seed):
        head = _head(width)
    views = {"views": config["views"], "temperature": config["temperature"]}
    objective = MultiView(run.model, whitening=layer, head=head, **views)

    def loss(module: nn.Module, rows: list[int]) -> Tensor:
        value: Tensor = module([run.model.preprocess([texts[row] for row in rows])])
        return value

    def keep(done: int, total: int | None) -> None:
        if done % config["every"] and done != total:
            return
        left, right = _encode(run.model, study.dev)
        value = float(spearman_units(_cosine(left, right), study.dev.gold).mean())
        if value > run.dev:
            run.dev, run.step = value, done
            best.update({name: tensor.clone() for name, tensor in run.model.state_dict().items()})
        objective.train()

    batches = DistinctBatches([{normal_text(text)} for text in texts], config["batch"], seed=seed)
    losses = train(objective, batches, loss, steps=config["steps"], lr=rate, seed=seed, progress=keep)
    run.model.load_state_dict(best)
    run.model.eval()
    run.ends = (losses[0], losses[-1])
    return run


def _head(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.Tanh())


def _encode(model: SentenceTransformer, pairs: Scored) -> tuple[FloatArray, FloatArray]:
    left, right = (np.asarray(model.encode(side, show_progress_bar=False)) for side in (pairs.left, pairs.right))
    return left, right


def _judge(model: SentenceTransformer, study: Study) -> dict[str, float]:
    left, right = _encode(model, study.test)
    near = study.test.gold >= 0.8 * study.test.gold.max()
    return {
        "spearman": study.spearman(left, right, "").mean("spearman"),
        "uniformity": uniformity(np.concatenate([left, right])),
        "alignment": alignment(left[near], right[near]),
    }


def _cosine(left: FloatArray, right: FloatArray) -> FloatArray:
    products = (left * right).sum(1)
    return np.asarray(products / (np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)), np.float32)
