"""Pooling and attention: five designs of decoder embedders on the same data, and the test that tells them apart.

The decoder stays frozen: what its layers hold is collected once under causal and under bidirectional attention, and
every design trains its head alone, with the same batches. States are standardised dimension by dimension: the last
token's state in the last layer is nearly the same for every text, and a head over it as it is learns nothing, so that
any other design would seem better. The claims are about one data set and many seeds; the tests over data sets are
reported beside them, with the least p their number can reach, and may say less. A fine-tuned comparison with adapters
runs for as many steps as the preset gives it; on a laptop these are too few to compare anything but the code paths.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from isometry.data.converters import Row
from isometry.data.instructions import query_text
from isometry.data.schemas import STS
from isometry.encoders import Decoder, load_decoder
from isometry.lab import Card, Claim, Lab, Outcome, Plot
from isometry.modules import DecoderTransformer, Perceiver, TrainablePooling
from isometry.modules.attention_mask import run as attend
from isometry.modules.pooling import LatentAttention, layer_context
from isometry.negatives import SourceBatches
from isometry.objectives import InfoNCE
from isometry.objectives.cosent import cosent
from isometry.stats import pairwise_signed_rank
from isometry.training import add_lora, train
from isometry.training.stages import TrainingStage, train_in_stages
from isometry.types import IntArray, Scores

CARD = Card(
    slug="pooling-and-attention",
    title="Pooling And Attention: What Are Effective Designs For LLM-Based Embedding Models?",
    arxiv="2409.02727",
    year=2024,
    kind="study",
    summary=(
        "A controlled comparison: one base model, one data set, one optimiser; only pooling and attention vary, and "
        "designs are compared by Wilcoxon's signed-rank test over the data sets of a category. Its own proposal, "
        "multi-layer trainable pooling, lets trainable latents attend to one state of every layer, each marked by a "
        "learned layer embedding. It gains on similarity and retrieval, not on clustering and classification, by one "
        "or two points. Head sizes must shrink with the backbone, or the study compares parameter counts."
    ),
    mechanism=(
        "isometry.modules.pooling.trainable:TrainablePooling",
        "isometry.stats.wilcoxon:pairwise_signed_rank",
    ),
    parts=(
        "isometry.encoders.backbones:load_decoder",
        "isometry.modules.attention_mask:run",
        "isometry.modules.decoder_transformer:DecoderTransformer",
        "isometry.modules.pooling.perceiver:Perceiver",
        "isometry.objectives.cosent:cosent",
        "isometry.training.adapters:add_lora",
        "isometry.training.stages:train_in_stages",
    ),
    needs=("sts",),
    aliases=("multi-layer trainable pooling", "EOS-last pooling", "bidirectional or causal attention"),
    aspects={"task": "sentence similarity", "method": "pooling heads over a decoder", "data": "scored pairs"},
    headline="Multi-layer pooling with bidirectional attention is best on STS and retrieval, by 0.5 to 2 points",
    claims=(
        Claim("under causal attention a head that sees all layers beats one that sees the last, on a frozen decoder",
              key="layers-causal", task="sts/stsb", metric="spearman", baseline="M2", seeds=5),
        Claim("under bidirectional attention too",
              key="layers-bidirectional", task="sts/stsb", metric="spearman", baseline="M4", seeds=5),
        Claim("with one state to look at, attention tells every latent the same, whatever its query and key weights",
              key="one-key", invariant=True),
        Claim("the order of layers matters through the layer embedding alone", key="layer-order", invariant=True),
        Claim("all designs train on the same batches, row by row", key="same-batches", invariant=True),
    ),
    presets={
        "smoke": {
            "seeds": 2, "backbone": "tiny", "layers": 3, "pairs": 64, "judged": 24, "others": 12,
            "sets": ("sts/stsb", "sts/sick"), "max_length": 16,
            "steps": 4, "batch": 16, "lr": 1e-3, "head": (4, 2, 16, 1),
            "tuned_steps": 2, "tuned_layers": 2, "tuned_batch": 4, "tuned_lr": 1e-3, "lora": (4, 8, 0.1),
        },
        "laptop": {
            "seeds": 5, "backbone": "smollm2", "layers": None, "pairs": 500, "judged": 250, "others": 60,
            "sets": ("sts/stsb", "sts/sick", "sts/sts12-15/sts12", "sts/sts12-15/sts13", "sts/sts12-15/sts14",
                     "sts/sts12-15/sts15"),
            "max_length": 24, "steps": 120, "batch": 32, "lr": 1e-3, "head": (8, 4, 64, 1),
            "tuned_steps": 6, "tuned_layers": 4, "tuned_batch": 8, "tuned_lr": 5e-4, "lora": (16, 32, 0.1),
        },
        "paper": {
            "seeds": 5, "backbone": "mistralai/Mistral-7B-v0.1", "layers": None, "pairs": 0, "judged": 0, "others": 0,
            "sets": ("sts/stsb", "sts/sick", "sts/sts12-15/sts12", "sts/sts12-15/sts13", "sts/sts12-15/sts14",
                     "sts/sts12-15/sts15"),
            "max_length": 1024, "steps": 500, "batch": 64, "lr": 1e-3, "head": (768, 32, 2048, 4),
            "tuned_steps": 1000, "tuned_layers": None, "tuned_batch": 2048, "tuned_lr": 1e-5, "lora": (16, 32, 0.1),
        },
    },
)  # fmt: skip

DESIGNS = {
    "M1": "last token, causal",
    "M2": "last layer, causal",
    "M3": "all layers, causal",
    "M4": "last layer, bidirectional",
    "M5": "all layers, bidirectional",
    "mean, causal": "mean of the last layer, causal",
    "mean, bidirectional": "mean of the last layer, bidirectional",
    "latent attention": "NV-Embed's head over the last layer, bidirectional",
}
STUDIED, PROMPT, SCALE = 5, "Retrieve sentences of the same meaning", 20.0


@dataclass(frozen=True)
class Frozen:
    """What a frozen decoder says of each text: states by layer under both kinds of attention."""

    place: Mapping[str, int]
    causal: Tensor  # last token of each layer [n, layers, d]
    bidirectional: Tensor  # mean of each layer [n, layers, d]
    mean_causal: Tensor  # mean of each layer under causal attention
    tokens: Tensor  # last layer under bidirectional attention [n, t, d]
    mask: Tensor  # [n, t]

    def rows(self, texts: Sequence[str]) -> IntArray:
        """Return the places of texts."""
        return np.array([self.place[text] for text in texts])

    def standardised(self, rows: IntArray) -> Frozen:
        """Return states with mean 0 and deviation 1 over some texts, in every layer and dimension."""

        def scaled(states: Tensor, seen: Tensor) -> Tensor:
            return (states - seen.mean(0)) / seen.std(0).clamp(min=1e-6)

        layers = (self.causal, self.bidirectional, self.mean_causal)
        causal, bidirectional, mean_causal = (scaled(states, states[rows]) for states in layers)
        tokens = scaled(self.tokens, self.tokens[rows][self.mask[rows].bool()])
        return Frozen(self.place, causal, bidirectional, mean_causal, tokens, self.mask)

    def context(self, design: str, rows: IntArray) -> tuple[Tensor, Tensor]:
        """Return what a design's head looks at, ``[b, n, d]``, and what of it counts, ``[b, n]``."""
        if design in ("M4", "latent attention"):
            return self.tokens[rows], self.mask[rows]
        source = self.mean_causal if design == "mean, causal" else self.causal
        source = self.bidirectional if design in ("M5", "mean, bidirectional") else source
        looked_at = source[rows] if design in ("M3", "M5") else source[rows][:, -1:]
        return looked_at, torch.ones(looked_at.shape[:2])


def run(lab: Lab) -> Outcome:
    """Collect the states once, train every design's head with the same batches, judge and compare."""
    outcome = Outcome()
    learn, judged = prepare(lab)
    decoder = backbone(lab, lab.config["layers"])
    texts = [text for data in (learn, *judged.values()) for text in (*data.left, *data.right)]
    frozen = collect(lab, decoder, texts)
    seen = frozen.standardised(frozen.rows([*learn.left, *learn.right]))
    found, digests = study(lab, seen, learn, judged)
    first = next(iter(judged))
    by_seed = {name: Scores.of(first, name, {"spearman": found[name][first]}) for name in DESIGNS}
    outcome.compare("layers-causal", by_seed["M3"], by_seed["M2"])
    outcome.compare("layers-bidirectional", by_seed["M5"], by_seed["M4"])
    same = {tuple(digests[name]) for name in DESIGNS}
    outcome.invariant("same-batches", len(same) == 1, f"digests of row numbers by seed: {next(iter(same))}")
    invariants(lab, outcome, frozen)
    tables(lab, outcome, frozen, found)
    curve(outcome, frozen, judged[first])
    if lab.user_data is None:
        fine_tune(lab, outcome, judged[first])
    return outcome


def prepare(lab: Lab) -> tuple[STS, dict[str, STS]]:
    """Return scored pairs to learn from and the sets to judge by, each cut to the preset's size at random."""
    config = lab.config
    if lab.user_data is not None:
        data = lab.sts("sts/stsb")
        learn = some(data, round(0.7 * len(data.left)))
        return learn, {lab.user_data.name: some(data, len(data.left) - len(learn.left), last=True)}
    first, *others = config["sets"]
    judged = {first: some(lab.sts(first), config["judged"])}
    judged |= {name: some(lab.sts(name), config["others"]) for name in others}
    return some(lab.sts("sts/stsb", "train"), config["pairs"]), judged


def some(data: STS, count: int, *, last: bool = False) -> STS:
    """Return that many pairs of a fixed random order, 0 for all of them."""
    order = np.random.default_rng(0).permutation(len(data.left))
    rows = order[-count:] if last else order[: count or None]
    return STS([data.left[i] for i in rows], [data.right[i] for i in rows], data.scores[rows], name=data.name)


def backbone(lab: Lab, layers: int | None) -> Decoder:
    """Load the decoder under study."""
    return load_decoder(lab.config["backbone"], layers=layers, tokenizer=lab.encoder().model.tokenizer)


@torch.no_grad()
def collect(lab: Lab, decoder: Decoder, texts: Sequence[str]) -> Frozen:
    """Run every text once under each kind of attention and keep what any design looks at."""
    texts = sorted(set(texts), key=len)
    body = DecoderTransformer(decoder.lm, decoder.tokenizer, max_seq_length=lab.config["max_length"], all_layers=True)
    causal, bidirectional, means, tokens, masks = [], [], [], [], []
    longest = int(body.preprocess(texts)["attention_mask"].sum(1).max())
    for start in range(0, len(texts), 32):
        lab.progress("states of all layers", start, len(texts))
        features = body.preprocess(texts[start : start + 32])
        ids, mask = features["input_ids"], features["attention_mask"]
        states = attend(body.model, mask, input_ids=ids, kind="causal", all_layers=True)[1:]
        causal.append(layer_context(states, mask, causal=True))
        means.append(layer_context(states, mask, causal=False))
        both = attend(body.model, mask, input_ids=ids, kind="bidirectional", all_layers=True)[1:]
        bidirectional.append(layer_context(both, mask, causal=False))
        room = longest - mask.shape[1]
        tokens.append(nn.functional.pad(both[-1], (0, 0, 0, room)))
        masks.append(nn.functional.pad(mask, (0, room)))
    places = {text: i for i, text in enumerate(texts)}
    return Frozen(places, *(torch.cat(part) for part in (causal, bidirectional, means, tokens, masks)))


class Linear(nn.Module):
    """The head of designs that pool without training: a linear map of the one state, at first the identity."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.map = nn.Linear(dim, dim, bias=False)
        nn.init.eye_(self.map.weight)

    def pool(self, context: Tensor, _: Tensor | None = None) -> Tensor:
        """Map ``[b, 1, d]`` to ``[b, d]``."""
        mapped: Tensor = self.map(context[:, 0])
        return mapped


def make_head(lab: Lab, design: str, dim: int, layers: int, seed: int) -> Head:
    """Return the head of a design."""
    latents, heads, head_dim, mult = lab.config["head"]
    if design == "latent attention":
        return LatentAttention(dim, latents=latents, heads=heads, head_dim=head_dim, mult=mult, seed=seed)
    if design not in ("M2", "M3", "M4", "M5"):
        return Linear(dim)
    return TrainablePooling(dim, layers=layers if design in ("M3", "M5") else None, causal=design in ("M2", "M3"),
                            latents=latents, heads=heads, head_dim=head_dim, mult=mult, seed=seed)  # fmt: skip


Head = Linear | TrainablePooling | LatentAttention
Found = dict[str, dict[str, dict[str, float]]]  # by design, data set and seed


def study(lab: Lab, frozen: Frozen, learn: STS, judged: Mapping[str, STS]) -> tuple[Found, dict[str, list[str]]]:
    """Train and judge every design for every seed; also return a digest of the batches each run saw."""
    found: Found = {name: {task: {} for task in judged} for name in DESIGNS}
    digests: dict[str, list[str]] = {name: [] for name in DESIGNS}
    for seed in lab.seeds:
        for number, name in enumerate(DESIGNS):
            lab.progress(f"heads, seed {seed}", number, len(DESIGNS))
            head, digest = fit(lab, frozen, learn, name, seed)
            digests[name].append(digest)
            for task, data in judged.items():
                with torch.no_grad():
                    left, right = (pooled(head, frozen, name, frozen.rows(side)) for side in (data.left, data.right))
                rho = spearmanr(cosine_similarity(left, right), data.scores).statistic
                found[name][task][f"seed {seed}"] = float(rho)
    return found, digests


def pooled(head: Head, frozen: Frozen, design: str, rows: IntArray) -> Tensor:
    """Return a design's vectors of some texts."""
    return head.pool(*frozen.context(design, rows))


def fit(lab: Lab, frozen: Frozen, learn: STS, design: str, seed: int) -> tuple[Head, str]:
    """Train a head to order pairs as people do (CoSENT); return it and a digest of the rows of every step."""
    config, seen = lab.config, hashlib.sha256()
    _, layers, dim = frozen.causal.shape
    head = make_head(lab, design, dim, layers, seed)
    sides, gold = [frozen.rows(side) for side in (learn.left, learn.right)], torch.from_numpy(learn.scores)

    def loss(_: nn.Module, rows: list[int]) -> Tensor:
        seen.update(json.dumps(rows).encode())
        left, right = (pooled(head, frozen, design, side[rows]) for side in sides)
        return cosent(cosine_similarity(left, right), gold[rows], scale=SCALE)

    batches = SourceBatches(["one"] * len(gold), min(config["batch"], len(gold)), seed=seed)
    train(head, batches, loss, steps=config["steps"], lr=config["lr"], seed=seed)
    return head.eval(), seen.hexdigest()[:12]


@torch.no_grad()
def invariants(lab: Lab, outcome: Outcome, frozen: Frozen) -> None:
    """Check on real states what must hold exactly."""
    _, layers, dim = frozen.causal.shape
    latents, heads, head_dim, mult = lab.config["head"]
    block = Perceiver(dim, asking="latents", latents=latents, heads=heads, head_dim=head_dim, mult=mult)
    one = frozen.causal[:8, -1:]
    before = block.attend(one)
    block.query.weight.mul_(-3)
    block.key_value.weight[: heads * head_dim].mul_(-3)
    gap = max(float((before - before[:, :1]).abs().max()), float((block.attend(one) - before).abs().max()))
    outcome.invariant("one-key", gap <= 1e-5 * float(before.abs().max()), f"largest difference: {gap:.1e}")
    head = TrainablePooling(dim, layers=layers, latents=latents, heads=heads, head_dim=head_dim, mult=mult)
    context = frozen.bidirectional[:8]
    named = float((head.pool(context) - head.pool(context.flip(1))).abs().max())
    head.layer_embedding.zero_()
    unnamed = float((head.pool(context) - head.pool(context.flip(1))).abs().max())
    outcome.invariant("layer-order", unnamed < 1e-4 < named, f"change with {named:.1e}, without {unnamed:.1e}")


def tables(lab: Lab, outcome: Outcome, frozen: Frozen, found: Found) -> None:
    """Report means over seeds by data set, sizes of the heads, and the signed-rank tests over data sets."""
    means = {name: {task: float(np.mean(list(v.values()))) for task, v in sets.items()} for name, sets in found.items()}
    _, layers, dim = frozen.causal.shape
    for name, about in DESIGNS.items():
        size = sum(p.numel() for p in make_head(lab, name, dim, layers, 0).parameters())
        by_set = {task: round(value, 4) for task, value in means[name].items()}
        average = round(float(np.mean(list(means[name].values()))), 4)
        outcome.fact(f"{name} ({about})", {"parameters": size, "mean": average} | by_set)
    tested = pairwise_signed_rank({name: means[name] for name in list(DESIGNS)[:STUDIED]})
    for pair in tested:
        test = pair.test
        outcome.fact(
            f"{pair.first} against {pair.second}, signed ranks over {test.n} data sets",
            {"delta": round(pair.delta, 4), "p": round(test.p, 4), "least p": round(test.least_p, 4),
             "p after Holm": round(pair.p_holm, 4), "effect": round(test.effect, 3), "significant": pair.p_holm < 0.05},
        )  # fmt: skip
    series = {name: [(task.rpartition("/")[2], value) for task, value in means[name].items()] for name in DESIGNS}
    outcome.plot("designs", Plot("Heads over a frozen decoder", "data set", "Spearman correlation, mean of seeds",
                                 series, "bar"))  # fmt: skip


def curve(outcome: Outcome, frozen: Frozen, data: STS) -> None:
    """Report what each layer alone gives, untrained."""
    left, right = frozen.rows(data.left), frozen.rows(data.right)
    kinds = {
        "last token, causal": frozen.causal,
        "mean, causal": frozen.mean_causal,
        "mean, bidirectional": frozen.bidirectional,
    }
    series: dict[str, list[tuple[int, float]]] = {}
    for name, states in kinds.items():
        cosines = cosine_similarity(states[left], states[right], dim=-1)
        series[name] = [
            (i + 1, float(spearmanr(cosines[:, i], data.scores).statistic)) for i in range(cosines.shape[1])
        ]
        layer, best = max(series[name], key=lambda point: point[1])
        outcome.fact(f"best single layer, {name}, untrained", {"layer": layer, "spearman": round(best, 4),
                                                              "last layer": round(series[name][-1][1], 4)})  # fmt: skip
    outcome.plot("layers", Plot("What each layer says of similarity, untrained", "layer",
                                f"Spearman correlation, {data.name}", series))  # fmt: skip


def fine_tune(lab: Lab, outcome: Outcome, data: STS) -> None:
    """Train the five designs with adapters on triplets, batches alike; a report, not a claim."""
    config = lab.config
    rank, alpha, dropout = config["lora"]
    rows = triplets(lab, 50 * config["tuned_batch"])
    stage = TrainingStage(
        rows, lambda m: InfoNCE(m, temperature=1 / SCALE), config["tuned_steps"], config["tuned_lr"],
        config["tuned_batch"], negatives=1, prompts={rows[0].source: query_text(PROMPT, "")},
    )  # fmt: skip
    decoder, figures = backbone(lab, config["tuned_layers"]), {}
    for number, name in enumerate(list(DESIGNS)[:STUDIED]):
        lab.progress("fine-tuning", number, STUDIED)
        body = DecoderTransformer(
            copy.deepcopy(decoder.lm), decoder.tokenizer, attention="causal" if number < 3 else "bidirectional",
            max_seq_length=config["max_length"], all_layers=name in ("M3", "M5"),
        )  # fmt: skip
        head = (
            Pooling(decoder.dim, "lasttoken") if name == "M1" else make_head(lab, name, decoder.dim, decoder.depth, 0)
        )
        model = SentenceTransformer(modules=[body, head], device="cpu")
        add_lora(body, r=rank, alpha=alpha, dropout=dropout)
        train_in_stages(model, [stage])
        left, right = (model.encode(list(side), prompt=query_text(PROMPT, ""), convert_to_tensor=True,
                                    show_progress_bar=False) for side in (data.left, data.right))  # fmt: skip
        figures[name] = round(float(spearmanr(cosine_similarity(left, right), data.scores).statistic), 4)
    outcome.fact(f"fine-tuned for {config['tuned_steps']} steps, Spearman on {data.name}", figures)


def triplets(lab: Lab, count: int) -> list[Row]:
    """Return premises with an entailed and a contradicting hypothesis."""
    data = lab.pairs("pairs/snli", "train")
    by_label: dict[str, dict[str, list[str]]] = {}
    for left, right, label in zip(data.left, data.right, data.labels or [], strict=True):
        by_label.setdefault(left, {}).setdefault(label, []).append(right)
    return [
        Row("retrieval", text, tuple(kinds["entailment"]), tuple(kinds["contradiction"]), source="snli")
        for text, kinds in by_label.items()
        if "entailment" in kinds and "contradiction" in kinds
    ][:count]
