"""GEM: inserted tokens become a bottleneck, so that a decoder writes a text's meaning into their states.

On texts of known topics the compression is measured exactly: how much worse the next word is predicted behind another
text's token, and whether the token knows the topic. On text, the vectors are judged by similarity, and what was paid
for them by the perplexity of held-out text. The decoder is cut to a few blocks, its vocabulary to the tokens that
occur, and it is first trained on plain prediction, for what is left of a cut model predicts nothing: this is the raw
model that all trainings start from and are compared with. Words keep their embeddings; perplexities compare with each
other only. Whether a token has learned to hold a text is told by the loss behind another text's token.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn.functional import normalize

from isometry.data.token_tasks import TopicTask
from isometry.encoders import load_decoder, tiny_decoder
from isometry.lab import Card, Claim, Lab, Outcome, Plot
from isometry.modules.attention_mask import run as attend
from isometry.modules.pooling.plain import pool
from isometry.modules.special_tokens import PREFIX, SUFFIX, add_tokens, insert_tokens, special_states
from isometry.modules.vocabulary_trim import trim_to_rows, trim_vocabulary
from isometry.tasks.perplexity import perplexity
from isometry.training import add_lora, train
from isometry.training.special_tokens import SpecialTokenModel, padded
from isometry.types import FloatArray, Scores

CARD = Card(
    slug="gem",
    title="GEM: Empowering LLM for both Embedding Generation and Language Understanding",
    arxiv="2506.04344",
    year=2025,
    kind="training method",
    summary=(
        "New tokens are inserted at a random place of a text, and what follows them may look at them but not at what "
        "precedes them. To go on predicting, the model must compress the beginning into the tokens' states, which are "
        "the vector. Plain next-token prediction is mixed in, so the model stays a language model. No pairs are "
        "needed; a contrastive stage may follow."
    ),
    mechanism=(
        "isometry.modules.special_tokens:bottleneck_mask",
        "isometry.training.special_tokens:SpecialTokenModel",
    ),
    parts=(
        "isometry.modules.special_tokens:insert_tokens", "isometry.modules.special_tokens:check_bottleneck",
        "isometry.modules.attention_mask:run", "isometry.objectives.generation:next_token_loss",
        "isometry.tasks.perplexity:perplexity",
        "isometry.modules.vocabulary_trim:trim_to_rows", "isometry.data.token_tasks:TopicTask",
        "isometry.encoders.backbones:load_decoder", "isometry.training.adapters:add_lora",
    ),
    needs=("sts",),
    aliases=("special token bottleneck", "generative embedding", "text compression", "self-supervised decoder"),
    aspects={"task": "general text embedding", "method": "self-supervised bottleneck in a decoder that still generates",
             "data": "plain text"},
    headline="Large MTEB gains over the raw language model with less than 0.3 points of MMLU lost, 1B to 8B parameters",
    claims=(
        Claim("behind another text's token the next word costs at least 3 nats more than behind its own text's",
              key="swap", task="topics", metric="nats", baseline="3", seeds=5),
        Claim("the nearest neighbour by the token is of the same topic for at least 0.98 of texts", key="topic",
              task="topics", metric="1-NN accuracy", baseline="0.98", seeds=5),
        Claim("it knows the topic better than the mean of the prefix's states", key="beats-mean-prefix", task="topics",
              metric="1-NN accuracy", baseline="mean of the prefix", seeds=5),
        Claim("on text, the trained token's vectors are better than the raw model's last state", key="beats-last-token",
              task="sts/stsb", metric="spearman", baseline="raw, last token", seeds=5),
        Claim("and better than the same token's before training", key="beats-untrained", task="sts/stsb",
              metric="spearman", baseline="untrained token", seeds=5),
        Claim("mixed training predicts held-out text within 0.03 nats of plain training of equal length",
              key="keeps-generation", task="sts/stsb", metric="nats per token", baseline="plain", sign="<",
              margin=-0.03, seeds=5),
        Claim("the bottleneck alone predicts it worse than mixed training", key="mixing-matters", task="sts/stsb",
              metric="nats per token", baseline="mixed", seeds=5),
        Claim("the suffix sees the prefix through the tokens alone", key="bottleneck", invariant=True),
        Claim("adding tokens leaves predictions of the old ones alone", key="old-predictions", invariant=True),
        Claim("a vector is independent of text after its tokens", key="suffix-blind", invariant=True),
    ),
    presets={
        "smoke": {
            "seeds": 2, "steps": 6, "marks": (3, 6), "batch": 16, "half": 12, "judged": 48, "decoder": "tiny",
            "layers": 2, "lora": 0, "tokens": 2, "texts": 80, "test_pairs": 40, "text_steps": 3, "text_batch": 8,
            "contrastive_steps": 2, "heal": 2, "lr": 3e-4, "share": 0.5, "max_length": 20,
        },
        "laptop": {
            "seeds": 5, "steps": 400, "marks": (100, 200, 400), "batch": 64, "half": 12, "judged": 512,
            "decoder": "smollm2", "layers": 2, "lora": 0, "tokens": 1, "texts": 1000, "test_pairs": 300,
            "text_steps": 120, "text_batch": 16, "contrastive_steps": 30, "heal": 400, "lr": 1e-3, "share": 0.5,
            "max_length": 20,
        },
        "paper": {
            "seeds": 5, "steps": 400, "marks": (100, 200, 400), "batch": 64, "half": 12, "judged": 512,
            "decoder": "meta-llama/Llama-3.2-1B", "layers": None, "lora": 16, "tokens": 1, "texts": 0, "test_pairs": 0,
            "text_steps": 10000, "text_batch": 64, "contrastive_steps": 1000, "heal": 0, "lr": 1e-4,
            "share": 0.5, "max_length": 512,
        },
    },
)  # fmt: skip

LR, HEAL_LR, LEAST, SPREAD = 2e-3, 1e-3, 4, 4.0
SHARES = {"plain": 0.0, "mixed": None, "bottleneck alone": 1.0}


def run(lab: Lab) -> Outcome:
    """Measure compression where topics are known, then vectors and perplexity on text."""
    outcome = Outcome()
    invariants(outcome)
    compression(lab, outcome)
    on_text(lab, outcome)
    return outcome


def compression(lab: Lab, outcome: Outcome) -> None:
    """Train tiny decoders on nothing but the bottleneck; probe them on the way."""
    task = TopicTask()
    curves = []
    for seed in lab.seeds:
        lab.progress("topics", seed, len(lab.seeds))
        curves.append(compress(lab, task, seed))
    steps = [0, *lab.config["marks"]]
    final = {name: {f"seed {s}": c[-1][name] for s, c in zip(lab.seeds, curves, strict=True)} for name in curves[0][0]}
    gaps = {seed: final["swapped"][seed] - own for seed, own in final["own"].items()}
    token, prefix = (Scores.of("topics", name, {"1-NN accuracy": final[name]}) for name in ("token", "mean of prefix"))
    outcome.compare("swap", Scores.of("topics", "GEM", {"nats": gaps}), 3.0)
    outcome.compare("topic", token, 0.98)
    outcome.compare("beats-mean-prefix", token, prefix)
    means = {name: [float(np.mean([c[i][name] for c in curves])) for i in range(len(steps))] for name in final}
    for name, values in means.items():
        outcome.fact(f"{name}, by updates", dict(zip(map(str, steps), np.round(values, 3).tolist(), strict=True)))
    points = {name: list(zip(steps, values, strict=True)) for name, values in means.items()}
    floor = {"least possible": [(steps[0], task.floor), (steps[-1], task.floor)]}
    outcome.plot("swap", Plot("The next word behind the right token and behind another", "updates", "loss in nats",
                              {n: points[n] for n in ("own", "swapped")} | floor))  # fmt: skip
    outcome.plot("topics", Plot(f"Topic of the nearest neighbour among {lab.config['judged']}", "updates", "accuracy",
                                {n: points[n] for n in ("token", "mean of prefix")}))  # fmt: skip


def compress(lab: Lab, task: TopicTask, seed: int) -> list[dict[str, float]]:
    """Train one tiny decoder; return its probes before, on the way and at the end."""
    lm, half = tiny_decoder(task.vocabulary, seed=seed), lab.config["half"]
    with torch.no_grad():
        for weight in lm.parameters():
            if weight.ndim == 2:
                weight.mul_(SPREAD)  # the usual width of initial weights suits models ten times as wide
    model = SpecialTokenModel(lm, add_tokens(lm, 1), least=LEAST)
    found = [probe(lab, task, model)]

    def judge(done: int, _: int | None) -> None:
        if done in lab.config["marks"]:
            found.append(probe(lab, task, model))

    def loss(model: SpecialTokenModel, step: int) -> Tensor:
        texts, _ = task.texts(lab.config["batch"], 2 * half, seed=1 + step + 100_000 * seed)
        return model.bottleneck_loss(texts.tolist(), [half] * len(texts))

    train(model, range(lab.config["steps"]), loss, steps=lab.config["steps"], lr=LR, seed=seed, progress=judge)  # type: ignore[arg-type]
    return found


@torch.no_grad()
def probe(lab: Lab, task: TopicTask, model: SpecialTokenModel) -> dict[str, float]:
    """Return the loss behind the right and behind another token, and how well two vectors know the topic."""
    half = lab.config["half"]
    texts, topics = task.texts(lab.config["judged"], 2 * half)
    losses = model.first_token_losses(texts.tolist(), half)
    batch = insert_tokens(texts[:, :half].tolist(), model.tokens)
    states = model.states(batch)
    vectors = {
        "token": special_states(states, batch.parts),
        "mean of prefix": pool(states, batch.parts == PREFIX, "mean"),
    }
    found = {name: float(values.mean()) for name, values in losses.items()}
    return found | {name: one_nearest(normalize(v, dim=-1).numpy(), topics) for name, v in vectors.items()}


def one_nearest(vectors: FloatArray, labels: np.ndarray) -> float:
    """Share of texts whose nearest other text has their label."""
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    return float((labels[cosines.argmax(1)] == labels).mean())


@dataclass(frozen=True)
class Study:
    """A decoder with the tokens that occur, texts to learn from, and scored pairs to judge by."""

    lm: Any
    texts: list[list[int]]
    pairs: tuple[list[list[int]], list[list[int]]]
    left: list[list[int]]
    right: list[list[int]]
    gold: np.ndarray
    task: str

    @classmethod
    def of(cls, lab: Lab) -> Study:
        """Read the pairs, tokenize them and trim the decoder; training looks at no score but the last stage's."""
        config = lab.config
        train, test = (
            lab.sts("sts/stsb", split) for split in (("train", "test") if lab.user_data is None else ("test",) * 2)
        )
        order = np.random.default_rng(0).permutation(len(train.left))
        cut = len(order) if lab.user_data is None else round(0.7 * len(order))
        held = order[cut:] if lab.user_data else np.random.default_rng(1).permutation(len(test.left))
        learn, held = order[:cut][: config["texts"] or None], held[: config["test_pairs"] or None]
        columns = [[side[i] for i in rows] for source, rows in ((train, learn), (test, held))
                   for side in (source.left, source.right)]  # fmt: skip
        decoder = load_decoder(config["decoder"], layers=config["layers"], tokenizer=lab.encoder().model.tokenizer)
        flat = [text for column in columns for text in column]
        cutting = {"truncation": True, "max_length": config["max_length"], "add_special_tokens": False}
        lm, rows = trim_to_rows(decoder.lm, decoder.tokenizer(flat, **cutting)["input_ids"])
        ends = np.cumsum([0, *map(len, columns)])
        a, b, left, right = (rows[i:j] for i, j in pairwise(ends))
        scores = np.asarray(train.scores)[learn]
        close = np.flatnonzero(scores >= 0.8 * scores.max())
        pairs = [a[i] for i in close], [b[i] for i in close]
        task = "sts/stsb" if lab.user_data is None else lab.user_data.name
        return cls(lm, [*a, *b], pairs, left, right, np.asarray(test.scores)[held], task)


def on_text(lab: Lab, outcome: Outcome) -> None:
    """Train with plain prediction, the bottleneck and both; judge vectors and perplexity."""
    study = Study.of(lab)
    start = prepare(lab, study)
    after: dict[str, list[float]] = {}
    gaps = {"before": [swap_gap(study, start)]}
    spearman: dict[str, dict[str, float]] = {}
    nats: dict[str, dict[str, float]] = {}
    skipped = 0
    for name, share in SHARES.items():
        for seed in lab.seeds:
            lab.progress(f"text, {name}", seed, len(lab.seeds))
            share = lab.config["share"] if share is None else share
            model = fit(lab, study, copy.deepcopy(start), share, seed)
            spearman.setdefault(name, {})[f"seed {seed}"] = judge(study, model)
            nats.setdefault(name, {})[f"seed {seed}"] = held_out(study, model)
            gaps.setdefault(name, []).append(swap_gap(study, model))
            skipped = max(skipped, model.skipped)
            if name == "plain":
                for reading, value in plain_readings(study, model.lm, "plain training").items():
                    after.setdefault(reading, []).append(value)
            if name == "mixed" and seed == lab.seeds[-1]:
                sharpen(lab, study, outcome, model, seed)
    raw = plain_readings(study, start.lm, "raw") | {"untrained token": judge(study, start)}
    trained = Scores.of(study.task, "GEM, mixed", {"spearman": spearman["mixed"]})
    outcome.compare("beats-last-token", trained, raw["raw, last token"])
    outcome.compare("beats-untrained", trained, raw["untrained token"])
    losses = {name: Scores.of(study.task, name, {"nats per token": values}) for name, values in nats.items()}
    outcome.compare("keeps-generation", losses["mixed"], losses["plain"])
    outcome.compare("mixing-matters", losses["bottleneck alone"], losses["mixed"])
    table = raw | {name: float(np.mean(values)) for name, values in after.items()}
    table |= {f"token, {name}": float(np.mean(list(v.values()))) for name, v in spearman.items()}
    outcome.fact("Spearman", {name: round(value, 4) for name, value in table.items()})
    found = {"before": held_out(study, start)} | {name: s.mean("nats per token") for name, s in losses.items()}
    outcome.fact("held-out perplexity", {name: round(float(np.exp(v)), 2) for name, v in found.items()})
    outcome.fact("nats a word costs more behind another text's token, held out",
                 {name: round(float(np.mean(values)), 3) for name, values in gaps.items()})  # fmt: skip
    outcome.fact("texts too short to split, over all batches of a run", skipped)
    outcome.plot("text", Plot("Semantic similarity of held-out pairs", "vectors", "Spearman",
                              {"Spearman": list(table.items())}, kind="bar"))  # fmt: skip


def prepare(lab: Lab, study: Study) -> SpecialTokenModel:
    """Give a copy of the decoder the new tokens, and let it become a language model again where blocks were cut."""
    lm = trim_vocabulary(study.lm, range(study.lm.get_input_embeddings().num_embeddings))[0]
    model = SpecialTokenModel(lm, add_tokens(lm, lab.config["tokens"]), least=LEAST)
    lm.get_input_embeddings().weight.requires_grad_(False)
    if lab.config["heal"]:
        lab.progress("healing", 0, 1)
        fit(lab, study, model, 0.0, -1, steps=lab.config["heal"], lr=HEAL_LR)
    if lab.config["lora"]:
        add_lora(lm, r=lab.config["lora"], alpha=2 * lab.config["lora"])
    return model


def fit(
    lab: Lab, study: Study, model: SpecialTokenModel, share: float, seed: int, *, steps: int = 0, lr: float = 0.0
) -> SpecialTokenModel:
    """Train with the bottleneck on a share of the texts and plain prediction on the others."""
    rng, steps = np.random.default_rng(seed + 1), steps or lab.config["text_steps"]
    size = min(lab.config["text_batch"], len(study.texts))
    batches = [rng.choice(len(study.texts), size, replace=False) for _ in range(steps)]

    def loss(model: SpecialTokenModel, rows: np.ndarray) -> Tensor:
        return model.mixed_loss([study.texts[i] for i in rows], share=share)

    train(model, batches, loss, steps=steps, lr=lr or lab.config["lr"], seed=seed + 1)  # type: ignore[arg-type]
    return model


def sharpen(lab: Lab, study: Study, outcome: Outcome, model: SpecialTokenModel, seed: int) -> None:
    """Run the optional contrastive stage on positives and report what it gains."""
    rng, (left, right) = np.random.default_rng(seed), study.pairs
    size = min(lab.config["text_batch"], len(left))
    batches = [rng.choice(len(left), size, replace=False) for _ in range(lab.config["contrastive_steps"])]

    def loss(model: SpecialTokenModel, rows: np.ndarray) -> Tensor:
        return model.contrastive_loss([left[i] for i in rows], [right[i] for i in rows])

    train(model, batches, loss, steps=len(batches), lr=lab.config["lr"], seed=seed)  # type: ignore[arg-type]
    found = {"Spearman": judge(study, model), "perplexity": float(np.exp(held_out(study, model)))}
    outcome.fact("after a contrastive stage, one seed", {name: round(value, 4) for name, value in found.items()})


@torch.no_grad()
def judge(study: Study, model: SpecialTokenModel) -> float:
    """Rank correlation of the tokens' vectors with people."""
    model.eval()
    return correlation(study, [in_batches(model, side) for side in (study.left, study.right)])


def in_batches(embed: Any, rows: Sequence[Sequence[int]]) -> FloatArray:
    """Embed 64 rows at a time, without gradient."""
    with torch.no_grad():
        return torch.cat([embed(rows[i : i + 64]) for i in range(0, len(rows), 64)]).numpy()


def correlation(study: Study, sides: Sequence[FloatArray]) -> float:
    """Spearman correlation of cosines and scores."""
    return float(spearmanr((sides[0] * sides[1]).sum(1), study.gold).statistic)


def held_out(study: Study, model: SpecialTokenModel) -> float:
    """Loss in nats of a token of held-out text, without the inserted ones."""
    rows = [row for row in study.left if len(row) > 1]
    return float(np.log(perplexity(model.lm, rows, vocabulary=model.vocabulary).facts["all_tokens"]))


def swap_gap(study: Study, model: SpecialTokenModel) -> float:
    """Nats that the next word of a held-out text costs more behind another text's token than behind its own."""
    model.eval()
    rows = [row for row in study.left if len(row) >= 2 * LEAST]
    losses = model.first_token_losses(rows, LEAST)
    return float((losses["swapped"] - losses["own"]).mean())


def plain_readings(study: Study, lm: Any, name: str) -> dict[str, float]:
    """Spearman of a model's last and mean states, without inserted tokens."""

    def read(how: str) -> float:
        def embed(rows: Sequence[Sequence[int]]) -> Tensor:
            ids, mask = padded(rows)
            return normalize(pool(attend(lm, mask, input_ids=ids), mask, how), dim=-1)

        return correlation(study, [in_batches(embed, side) for side in (study.left, study.right)])

    lm.eval()
    return {f"{name}, last token": read("last"), f"{name}, mean": read("mean")}


@torch.no_grad()
def invariants(outcome: Outcome) -> None:
    """Check on a tiny model what the mask lets through, and that new tokens change nothing else."""
    plain = tiny_decoder(40, dim=16, heads=2)
    lm = tiny_decoder(40, dim=16, heads=2)
    model = SpecialTokenModel(lm, add_tokens(lm, 2))
    rows = [[1, *range(2, 12)], [39, *range(2, 12)]]
    batch = insert_tokens(rows, model.tokens, [4, 4])
    gaps = []
    for blind in (True, False):
        states = model.states(batch, blind=blind)
        suffix = [states[i][batch.parts[i] == SUFFIX] for i in (0, 1)]
        gaps.append(float((suffix[0] - suffix[1]).abs().max()))
    outcome.invariant(
        "bottleneck", gaps[0] == 0 < gaps[1], f"suffix moves by {gaps[1]:.2g}, past blind tokens by {gaps[0]:.2g}"
    )
    ids = torch.tensor(rows)
    gap = float((lm(ids).logits[..., :40] - plain(ids).logits).abs().max())
    outcome.invariant("old-predictions", gap < 1e-5, f"largest difference {gap:.1e}")
    alone = insert_tokens([row[:4] for row in rows], model.tokens)
    first, second = (special_states(model.states(b), b.parts) for b in (alone, batch))
    gap = float((first - second).abs().max())
    outcome.invariant("suffix-blind", gap < 1e-5, f"largest difference {gap:.1e}")
