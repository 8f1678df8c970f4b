"""Causal2Vec: one soft token, made by a small encoder that has read the whole text, lets a causal decoder look ahead.

The mechanism is measured where it must matter: texts whose last token decides what all others mean. Training lasts long
enough for a bidirectional reader to learn them and for a causal mean to begin to. On text, the small encoder alone is
the control that matters: it comes from an encoder of sentences, the decoder beside it from a language model cut to two
blocks, and all systems take the same steps at a rate at which the decoder alone learns its pairs. What is saved over
repeating the text depends on how heavy the small encoder is beside the decoder, so it is timed beside a deeper one,
and beside the one trained.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.nn.functional import normalize

from isometry.data.token_tasks import SelectorTask
from isometry.encoders import load_decoder, tiny_decoder, tiny_encoder
from isometry.lab import Card, Claim, Lab, Outcome, Plot
from isometry.modules.attention_mask import run as attend
from isometry.modules.contextual_token import ContextualToken
from isometry.modules.layer_cut import cut_layers
from isometry.modules.pooling.plain import pool
from isometry.modules.vocabulary_trim import trim_to_rows, trim_vocabulary
from isometry.objectives.info_nce import info_nce
from isometry.training import add_lora, train
from isometry.training.special_tokens import padded
from isometry.types import Scores

CARD = Card(
    slug="causal2vec",
    title="Causal2Vec: Improving Decoder-only LLMs as Versatile Embedding Models",
    arxiv="2507.23386",
    year=2025,
    kind="system",
    summary=(
        "A small bidirectional encoder reads the text first; its pooled state becomes one soft token before a decoder "
        "that stays strictly causal, so every token can look at a summary of what follows. The vector joins the last "
        "states of the soft token and of the last token. It costs one token, where repeating the text costs as many "
        "as the text has. The small encoder's own quality is part of the result: judge it alone as well."
    ),
    mechanism=("isometry.modules.contextual_token:ContextualToken", "isometry.modules.contextual_token:splice_token"),
    parts=(
        "isometry.modules.contextual_decoder:ContextualDecoder", "isometry.encoders.backbones:load_decoder",
        "isometry.modules.attention_mask:run", "isometry.modules.layer_cut:cut_layers",
        "isometry.modules.vocabulary_trim:trim_vocabulary", "isometry.data.token_tasks:SelectorTask",
        "isometry.objectives.info_nce:info_nce", "isometry.training.adapters:add_lora",
    ),
    needs=("sts",),
    aliases=("contextual token", "soft token", "dual pooling", "causal decoder embedding"),
    aspects={"task": "general text embedding", "method": "causal decoder with a soft token from a small encoder",
             "data": "text pairs"},
    headline="MTEB 66.1 over 56 tasks at 7B parameters, best of those trained on public retrieval data alone",
    claims=(
        Claim("where the last token decides what all others mean, it is ahead of averaging causal states at the update "
              "at which a bidirectional reader first reaches 0.9, or at the last", key="beats-causal-mean",
              task="selector task", metric="top-1", baseline="causal, mean", seeds=5),
        Claim("on text it is better than the same decoder's last token", key="beats-last-token", task="sts/stsb",
              metric="spearman", baseline="last token", seeds=5),
        Claim("it is better than its small encoder alone under a linear head", key="beats-encoder-alone",
              task="sts/stsb", metric="spearman", baseline="encoder alone", seeds=5),
        Claim("at 128 tokens it embeds at least 1.5 times as fast as repeating the text", key="faster-than-echo",
              task="128 tokens", metric="speed-up", baseline="1.5"),
        Claim("it reads one token more than the text, repetition twice as many", key="token-count", invariant=True),
        Claim("the last token moves the first's state, through the soft token only", key="look-ahead", invariant=True),
        Claim("the side of padding does not matter", key="padding", invariant=True),
    ),
    presets={
        "smoke": {
            "seeds": 2, "steps": 4, "every": 2, "batch": 16, "test": 32, "decoder": "tiny", "layers": 2,
            "encoder_layers": 1, "lora": 0, "pairs": 40, "test_pairs": 40, "text_steps": 2, "text_batch": 8,
            "lr": 1e-4, "max_length": 16, "timings": 5, "timed_layers": 3,
        },
        "laptop": {
            "seeds": 5, "steps": 300, "every": 20, "batch": 128, "test": 512, "decoder": "smollm2", "layers": 2,
            "encoder_layers": 2, "lora": 0, "pairs": 0, "test_pairs": 250, "text_steps": 60, "text_batch": 16,
            "lr": 5e-4, "max_length": 24, "timings": 7, "timed_layers": 8,
        },
        "paper": {
            "seeds": 5, "steps": 400, "every": 20, "batch": 128, "test": 512, "decoder": "mistralai/Mistral-7B-v0.1",
            "layers": None, "encoder_layers": 6, "lora": 16, "pairs": 0, "test_pairs": 0, "text_steps": 1000,
            "text_batch": 512, "lr": 1e-4, "max_length": 512, "timings": 7, "timed_layers": None,
        },
    },
)  # fmt: skip

LR, TEMPERATURE, TEXT_TEMPERATURE, SPREAD = 2e-3, 0.07, 0.05, 4.0
TINY = ("bidirectional, mean", "causal, mean", "contextual", "causal, last")  # the last for one seed only
TEXT = ("last token", "contextual", "encoder alone", "last+mean")


class Reader(nn.Module):
    """A decoder alone: its states under one mask, pooled."""

    def __init__(self, lm: Any, kind: str, how: str) -> None:
        super().__init__()
        self.lm, self.kind, self.how = lm, kind, how

    def forward(self, _: Tensor, __: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Return vectors of texts; the encoder's tokens are not looked at."""
        states = attend(self.lm, mask, input_ids=ids, kind=self.kind)
        if self.how == "last+mean":
            return torch.cat([pool(states, mask, "last"), pool(states, mask, "mean")], dim=-1)
        return pool(states, mask, self.how)


class Contextual(nn.Module):
    """The method: the encoder's tokens first, then the decoder's."""

    def __init__(self, model: ContextualToken) -> None:
        super().__init__()
        self.model = model

    def forward(self, read: Tensor, read_mask: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Return vectors of texts."""
        vectors: Tensor = self.model(self.model.context(read, read_mask), ids, mask)
        return vectors


class EncoderAlone(nn.Module):
    """The control: the small encoder under a linear head, and no decoder."""

    def __init__(self, encoder: Any, width: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(encoder.config.hidden_size, width)

    def forward(self, read: Tensor, read_mask: Tensor, _: Tensor, __: Tensor) -> Tensor:
        """Return vectors of texts; the decoder's tokens are not looked at."""
        states = self.encoder(input_ids=read, attention_mask=read_mask.long()).last_hidden_state
        vectors: Tensor = self.head(pool(states, read_mask, "mean"))
        return vectors


def run(lab: Lab) -> Outcome:
    """Measure the mechanism on tokens, the system on text, and what it costs."""
    outcome = Outcome()
    invariants(outcome)
    mechanism(lab, outcome)
    study = Study.of(lab)
    on_text(lab, outcome, study)
    cost(lab, outcome, study)
    return outcome


def mechanism(lab: Lab, outcome: Outcome) -> None:
    """Train four readers of the selector task; compare where the bidirectional one first reaches 0.9."""
    task, curves = SelectorTask(), dict[str, dict[int, list[float]]]()
    for name in TINY:
        for seed in lab.seeds[: 1 if name == TINY[-1] else None]:
            lab.progress(f"selector task, {name}", seed, len(lab.seeds))
            curves.setdefault(name, {})[seed] = learn(lab, task, name, seed)
    steps = list(range(lab.config["every"], lab.config["steps"] + 1, lab.config["every"]))
    reached = {s: next((i for i, a in enumerate(c) if a > 0.9), len(c) - 1) for s, c in curves[TINY[0]].items()}
    at = {name: {f"seed {s}": c[reached[s]] for s, c in by_seed.items()} for name, by_seed in curves.items()}
    scores = {name: Scores.of("selector task", name, {"top-1": values}) for name, values in at.items()}
    outcome.compare("beats-causal-mean", scores["contextual"], scores["causal, mean"])
    outcome.fact("steps to 0.9, bidirectional, by seed", {
        f"seed {s}": steps[i] if curves[TINY[0]][s][i] > 0.9 else f"not within {steps[-1]}" for s, i in reached.items()
    })  # fmt: skip
    outcome.fact("top-1 at that step", {name: round(s.mean("top-1"), 3) for name, s in scores.items()})
    means = {n: np.mean(list(by_seed.values()), axis=0) for n, by_seed in curves.items()}
    outcome.fact("top-1 at the end", {name: round(float(curve[-1]), 3) for name, curve in means.items()})
    series = {name: list(zip(steps, curve.tolist(), strict=True)) for name, curve in means.items()}
    title = "Texts whose last token decides what all others mean"
    outcome.plot("selector", Plot(title, "updates", f"top-1 of {lab.config['test']}", series))


def learn(lab: Lab, task: SelectorTask, name: str, seed: int) -> list[float]:
    """Train one tiny reader; return its accuracy every so many updates."""
    model, curve = tiny_reader(task, name, seed), list[float]()
    test = [torch.from_numpy(side) for side in task.pairs(lab.config["test"])]

    def judge(done: int, _: int | None) -> None:
        if done % lab.config["every"] == 0:
            with torch.no_grad():
                left, right = (normalize(model(*twice(side)), dim=-1) for side in test)
            curve.append(float(((left @ right.T).argmax(1) == torch.arange(len(left))).float().mean()))

    class Stream:
        def __iter__(self) -> Iterator[list[Tensor]]:
            for number in range(lab.config["steps"]):
                pairs = task.pairs(lab.config["batch"], seed=1 + number + 100_000 * seed)
                yield [torch.from_numpy(side) for side in pairs]

    def loss(reader: nn.Module, sides: list[Tensor]) -> Tensor:
        return info_nce(*(reader(*twice(side)) for side in sides), temperature=TEMPERATURE)

    train(model, Stream(), loss, steps=lab.config["steps"], lr=LR, seed=seed, progress=judge)
    return curve


def tiny_reader(task: SelectorTask, name: str, seed: int) -> nn.Module:
    """Build one of four readers with the same decoder; weights begin wider than is usual for wide models."""
    lm = tiny_decoder(task.vocabulary, seed=seed)
    if name == "contextual":
        encoder = tiny_encoder(task.vocabulary, layers=1, seed=seed)
        model: nn.Module = nn.ModuleList([encoder, lm])
    else:
        kind, how = name.split(", ")
        model = Reader(lm, kind, how)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(SPREAD)
    return Contextual(ContextualToken(encoder, lm, seed=seed)) if name == "contextual" else model


def twice(ids: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Give the encoder and the decoder the same tokens."""
    mask = torch.ones_like(ids)
    return ids, mask, ids, mask


Side = tuple[list[list[int]], list[list[int]]]


@dataclass(frozen=True)
class Study:
    """Scored pairs as tokens of both tokenizers, and the transformers, each with only the tokens that occur."""

    encoder: Any
    lm: Any
    deep: Any  # the same decoder with more blocks, to time
    train: tuple[Side, Side]
    test: tuple[Side, Side]
    gold: np.ndarray
    task: str

    @classmethod
    def of(cls, lab: Lab) -> Study:
        """Read pairs, load both transformers and trim their vocabularies."""
        config, small = lab.config, lab.encoder().model
        left, right, gold, cut = read(lab)
        texts = [*left, *right]
        reading = small.tokenizer(texts, truncation=True, max_length=config["max_length"])["input_ids"]
        decoder = load_decoder(config["decoder"], layers=config["timed_layers"], tokenizer=small.tokenizer)
        end = decoder.tokenizer.eos_token_id or small.tokenizer.sep_token_id
        cutting = {"truncation": True, "max_length": config["max_length"], "add_special_tokens": False}
        spoken = [[*ids, end] for ids in decoder.tokenizer(texts, **cutting)["input_ids"]]
        encoder, rows = trim_to_rows(cut_layers(small[0].auto_model, config["encoder_layers"]), reading)
        deep, said = trim_to_rows(decoder.lm, spoken)
        lm = deep if config["layers"] is None else cut_layers(deep, config["layers"])
        n = len(left)

        def side(start: int, stop: int) -> tuple[Side, Side]:
            return tuple((rows[a + start : a + stop], said[a + start : a + stop]) for a in (0, n))  # type: ignore[return-value]

        task = "sts/stsb" if lab.user_data is None else lab.user_data.name
        return cls(encoder, lm, deep, side(0, cut), side(cut, n), gold[cut:], task)


def read(lab: Lab) -> tuple[list[str], list[str], np.ndarray, int]:
    """Return pairs of texts, their scores, and how many positives come first to train on."""
    if lab.user_data is None:
        first, second = lab.sts("sts/stsb", "train"), lab.sts("sts/stsb", "test")
        left, right = [*first.left, *second.left], [*first.right, *second.right]
        gold, cut = np.concatenate([first.scores, second.scores]), len(first.left)
    else:
        data = lab.sts("sts/stsb")
        order = np.random.default_rng(0).permutation(len(data.left))
        left, right = [data.left[i] for i in order], [data.right[i] for i in order]
        gold, cut = np.asarray(data.scores)[order], round(0.7 * len(order))
    positive = np.flatnonzero(gold[:cut] >= 0.8 * gold.max())[: lab.config["pairs"] or None]
    held = cut + np.random.default_rng(1).permutation(len(gold) - cut)[: lab.config["test_pairs"] or None]
    rows = [*positive.tolist(), *held.tolist()]
    return [left[i] for i in rows], [right[i] for i in rows], gold[rows], len(positive)


def on_text(lab: Lab, outcome: Outcome, study: Study) -> None:
    """Train the four systems on positives and judge them by rank correlation; look at each half of the vectors."""
    found: dict[str, dict[str, float]] = {name: {} for name in TEXT}
    parts: dict[str, list[float]] = {}
    for name in TEXT:
        for seed in lab.seeds[: 1 if name == TEXT[-1] else None]:
            lab.progress(f"text, {name}", seed, len(lab.seeds))
            vectors = encode(fit(lab, study, text_reader(lab, study, name, seed), seed), study.test)
            found[name][f"seed {seed}"] = spearman(study, *vectors)
            if name == "contextual":
                for part, value in taken_apart(study, vectors).items():
                    parts.setdefault(f"contextual, {part}", []).append(value)
    scores = {name: Scores.of(study.task, name, {"spearman": values}) for name, values in found.items()}
    outcome.compare("beats-last-token", scores["contextual"], scores["last token"])
    outcome.compare("beats-encoder-alone", scores["contextual"], scores["encoder alone"])
    rows = {name: s.mean("spearman") for name, s in scores.items()}
    rows |= {name: float(np.mean(values)) for name, values in parts.items()}
    for name in ("last token", "contextual"):
        start = text_reader(lab, study, name, 0)
        rows[f"{name}, before training"] = spearman(study, *encode(start, study.test))
    outcome.fact("Spearman", {name: round(value, 4) for name, value in rows.items()})
    outcome.fact("parameters of the small encoder", sum(p.numel() for p in study.encoder.parameters()))
    bars = {"Spearman": list(rows.items())}
    outcome.plot("text", Plot("Semantic similarity of held-out pairs", "system", "Spearman", bars, kind="bar"))


def taken_apart(study: Study, sides: list[np.ndarray]) -> dict[str, float]:
    """Judge each half of the joined vectors alone, and the whole reduced to the width of one half."""
    d = study.lm.config.hidden_size
    both = np.concatenate(sides)
    reduced = PCA(min(d, *both.shape), random_state=0).fit_transform(both)
    ways = {"soft token alone": both[:, :d], "last token alone": both[:, d:], "PCA to one width": reduced}
    return {name: spearman(study, *np.split(vectors, 2)) for name, vectors in ways.items()}


def text_reader(lab: Lab, study: Study, name: str, seed: int) -> nn.Module:
    """Build one system on copies of the transformers."""
    lm, encoder = (trim_vocabulary(m, range(m.get_input_embeddings().num_embeddings))[0]
                   for m in (study.lm, study.encoder))  # fmt: skip
    if lab.config["lora"]:
        add_lora(lm, r=lab.config["lora"], alpha=2 * lab.config["lora"])
    if name == "encoder alone":
        return EncoderAlone(encoder, study.lm.config.hidden_size)
    if name == "contextual":
        return Contextual(ContextualToken(encoder, lm, seed=seed))
    return Reader(lm, "causal", "last" if name == "last token" else name)


def fit(lab: Lab, study: Study, model: nn.Module, seed: int) -> nn.Module:
    """Train with in-batch negatives."""
    size = min(lab.config["text_batch"], len(study.train[0][0]))
    rng = np.random.default_rng(seed)
    batches = [rng.choice(len(study.train[0][0]), size, replace=False) for _ in range(lab.config["text_steps"])]

    def loss(reader: nn.Module, rows: np.ndarray) -> Tensor:
        return info_nce(*(reader(*inputs(side, rows)) for side in study.train), temperature=TEXT_TEMPERATURE)

    train(model, batches, loss, steps=len(batches), lr=lab.config["lr"], seed=seed)
    return model


def inputs(side: Side, rows: Sequence[int] | np.ndarray) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pad the chosen rows for the encoder and for the decoder."""
    read, spoken = (padded([tokens[i] for i in rows]) for tokens in side)
    return *read, *spoken


def encode(model: nn.Module, sides: tuple[Side, Side]) -> list[np.ndarray]:
    """Return normalised vectors of both sides."""
    model.eval()
    found = []
    with torch.no_grad():
        for side in sides:
            batches = [range(i, min(i + 64, len(side[0]))) for i in range(0, len(side[0]), 64)]
            found.append(torch.cat([normalize(model(*inputs(side, rows)), dim=-1) for rows in batches]).numpy())
    return found


def spearman(study: Study, left: np.ndarray, right: np.ndarray) -> float:
    """Rank correlation of cosines with people."""
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return float(spearmanr((left * right).sum(1) / norms, study.gold).statistic)


def cost(lab: Lab, outcome: Outcome, study: Study) -> None:
    """Time 128 tokens behind a contextual token and twice over, and count what the decoder reads."""
    length = 128
    for lm in {id(lm): lm for lm in (study.lm, study.deep)}.values():  # the claim is about the last, the deeper one
        tokens, seconds = timed(lab, study.encoder, lm, length)
        medians = {name: round(1000 * float(np.median(values)), 1) for name, values in seconds.items()}
        speed_up = round(medians["echo"] / medians["contextual"], 2)
        outcome.fact(f"CPU milliseconds for 4 texts of 128 tokens, {lm.config.num_hidden_layers} blocks",
                     medians | {"speed-up": speed_up})  # fmt: skip
    ratios = {f"round {i}": e / c for i, (c, e) in enumerate(zip(*seconds.values(), strict=True))}
    outcome.compare("faster-than-echo", Scores.of("128 tokens", "contextual", {"speed-up": ratios}), 1.5)
    right = tokens == {"contextual": length + 1, "echo": 2 * length}
    outcome.invariant("token-count", right, f"{' and '.join(map(str, tokens.values()))} tokens for a text of {length}")


@torch.no_grad()
def timed(lab: Lab, encoder: Any, lm: Any, length: int) -> tuple[dict[str, int], dict[str, list[float]]]:
    """Return how many tokens the decoder reads of a text either way, and CPU seconds for 4 texts, round by round."""
    model = ContextualToken(encoder, lm).eval()
    words = [min(m.get_input_embeddings().num_embeddings, 100) for m in (encoder, lm)]
    read, ids = (torch.arange(length).expand(4, -1) % n for n in words)
    mask, twofold = torch.ones_like(ids), ids.repeat(1, 2)
    ways: dict[str, Callable[[], Tensor]] = {
        "contextual": lambda: model.states(model.projector(model.context(read, mask)), ids, mask)[0],
        "echo": lambda: attend(lm, torch.ones_like(twofold), input_ids=twofold),
    }
    tokens = {name: way().shape[1] for name, way in ways.items()}  # the first round is not timed
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(lab.config["timings"]):
        for name, way in ways.items():
            start = time.process_time()
            way()
            seconds[name].append(time.process_time() - start)
    return tokens, seconds


def invariants(outcome: Outcome) -> None:
    """Check on a tiny model who sees whom."""
    model = ContextualToken(tiny_encoder(30, dim=16, heads=2), tiny_decoder(30, dim=16, heads=2)).eval()
    ids = torch.tensor([[4, 8, 15, 16, 23], [4, 8, 15, 16, 9]])
    mask = torch.ones_like(ids)
    with torch.no_grad():
        soft = model.projector(model.context(ids, mask))
        moved, still = (float((s[0, 1] - s[1, 1]).abs().max())
                        for s in (model.states(t, ids, mask)[0] for t in (soft, 0 * soft)))  # fmt: skip
        plain = model(model.context(ids, mask), ids, mask)
        pads = torch.zeros(2, 3, dtype=torch.int64)
        left = model(model.context(ids, mask), torch.cat([pads, ids], 1), torch.cat([pads, mask], 1))
    outcome.invariant("look-ahead", moved > 0 and still == 0, f"moved by {moved:.2g}, without the token by {still:.2g}")
    gap = float((plain - left).abs().max())
    outcome.invariant("padding", gap < 1e-5, f"largest difference {gap:.1e}")
