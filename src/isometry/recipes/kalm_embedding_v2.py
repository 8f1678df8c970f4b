"""KaLM-Embedding-V2: hard rows count more, harder negatives are mixed, rows whose positive is lost are dropped.

Focal weights and mixing are judged on made-up facts of known difficulty: most queries name a fact that stands alone,
a fifth one of a family of near duplicates. The filter is judged where wrong positives were planted. All of this uses a
head on frozen features of layer 2; the whole system (bidirectional decoder, mean pooling, three stages, soup) is built
and trained after that.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from torch.nn.functional import normalize

from isometry.data import Row, fact_families
from isometry.data.instructions import query_text
from isometry.errors import InputError
from isometry.lab import Card, Claim, Lab, Outcome, Plot
from isometry.lab.paraphrases import Paraphrases, paraphrases
from isometry.negatives import (
    AnyOf,
    Guide,
    Mixer,
    SourceBatches,
    consistent,
    mine,
    mix_pairs,
    removal_quality,
    same_label,
    same_text,
)
from isometry.objectives import Distillation, Focal, InfoNCE, Matryoshka, WeightedSum, listwise_distillation
from isometry.objectives.info_nce import info_nce
from isometry.objectives.matryoshka import prefix
from isometry.training import FrozenFeatures, Plan, Tuning, apply_head, decoder_embedder, merge_models, mlp_head, train
from isometry.training.stages import TrainingStage, train_in_stages
from isometry.types import FloatArray, IntArray, Scores

CARD = Card(
    slug="kalm-embedding-v2",
    title="KaLM-Embedding-V2: Superior Training Techniques and Data Inspire A Versatile Embedding Model",
    arxiv="2506.20923",
    year=2025,
    kind="system",
    summary=(
        "A small decoder made bidirectional, with mean pooling, trained on weak pairs and then on labelled ones with "
        "hard negatives; several runs are averaged. Each row is weighted by its difficulty (focal weight), harder "
        "negatives are mixed from the hardest ones of the batch, rows whose positive is not among its query's nearest "
        "texts are dropped, negatives are drawn from a window of ranks, and prefixes of the vector are trained too. "
        "Where positives are wrong, focal weights stress the wrong rows."
    ),
    mechanism=(
        "isometry.objectives.focal:focal_weights",
        "isometry.negatives.mixing:Mixer",
        "isometry.negatives.consistency:consistent",
        "isometry.negatives.sampling:SourceBatches",
    ),
    parts=(
        "isometry.objectives.info_nce:InfoNCE",
        "isometry.objectives.matryoshka:Matryoshka",
        "isometry.objectives.distillation:listwise_distillation",
        "isometry.negatives.mining:mine",
        "isometry.data.families:fact_families",
        "isometry.modules.decoder_transformer:DecoderTransformer",
        "isometry.training.stages:train_in_stages",
        "isometry.training.merging.models:merge_models",
    ),
    needs=("sts", "pairs"),
    aliases=("focal reweighting", "online hard-negative mixing", "ranking-consistency filter", "KaLM"),
    aspects={
        "task": "general text embedding",
        "method": "focal weights, mixed negatives and filtered rows in contrastive training",
        "data": "text pairs",
    },
    headline="Best below 1B parameters on MTEB at release: about 68.2 (Chinese) and 67.5 (English)",
    claims=(
        Claim("focal weights raise accuracy on families of near duplicates",
              key="focal-hard", task="facts", metric="top-1, families", baseline="plain", seeds=6),
        Claim("and lose no more than half a point on facts that stand alone",
              key="focal-easy", task="facts", metric="top-1, alone", baseline="plain", margin=-0.005, seeds=6),
        Claim("where a fifth of the positives is wrong, focal weights stress the wrong rows and do harm",
              key="focal-noise", task="facts", metric="top-1", baseline="plain", sign="<", seeds=6),
        Claim("most of what the ranking-consistency filter drops from paraphrases with planted errors is wrong",
              key="filter-precision", task="sts/stsb", metric="precision", baseline="0.9", seeds=6),
        Claim("and most of what is wrong is dropped",
              key="filter-recall", task="sts/stsb", metric="recall", baseline="0.9", seeds=6),
        Claim("a student trained on the filtered rows is better than one trained on all of them",
              key="filter-trains", task="sts/stsb", metric="spearman", baseline="unfiltered", seeds=6),
        Claim("where positives are only loosely related, the filter throws true ones away: its precision is lower",
              key="filter-loose", task="cls/banking77", metric="precision", baseline="paraphrases", sign="<", seeds=6),
        Claim("gamma 0 is the plain loss; weights lie between 0 and 1", key="focal-bounds", invariant=True),
        Claim("a mix has length 1 and is no easier than its easier parent", key="mix-geometry", invariant=True),
        Claim("mixed negatives never lower a row's loss", key="mix-raises", invariant=True),
        Claim("one prefix of full width is the plain loss", key="one-prefix", invariant=True),
        Claim("at purity 1 every full batch is of one source", key="pure-batches", invariant=True),
        Claim("the soup of copies of a model is that model", key="soup-identity", invariant=True),
    ),
    presets={
        "smoke": {
            "seeds": 2, "facts": 120, "steps": 10, "batch": 32, "pairs": 150, "pair_steps": 15, "texts": 300,
            "keep": 30, "backbone": "tiny", "layers": 2, "max_length": 24, "system_pairs": 60,
            "system_window": (10, 40), "system_keep": 20, "stages": ((2, 1e-3), (2, 1e-3), (2, 1e-3)),
            "system_batch": 8, "soup": 2, "dims": ((64, 1.0), (32, 0.3)), "temperature": 0.05, "negatives": 2,
        },
        "laptop": {
            "seeds": 6, "facts": 1000, "steps": 300, "batch": 64, "pairs": 0, "pair_steps": 250, "texts": 2000,
            "keep": 50, "backbone": "smollm2", "layers": 4, "max_length": 32, "system_pairs": 600,
            "system_window": (50, 100), "system_keep": 50, "stages": ((20, 1e-4), (12, 5e-5), (8, 2e-5)),
            "system_batch": 16, "soup": 2, "dims": ((576, 1.0), (288, 0.3), (144, 0.2), (72, 0.1)),
            "temperature": 0.05, "negatives": 3,
        },
        "paper": {
            "seeds": 10, "facts": 20000, "steps": 3000, "batch": 64, "pairs": 0, "pair_steps": 2500, "texts": 10000,
            "keep": 50, "backbone": "Qwen/Qwen2-0.5B", "layers": None, "max_length": 512,
            "system_pairs": 0, "system_window": (50, 100), "system_keep": 50,
            "stages": ((10000, 1e-4), (6000, 1e-5), (1000, 1e-5)), "system_batch": 512, "soup": 3,
            "dims": ((896, 1.0), (512, 0.3), (256, 0.2), (128, 0.1), (64, 0.1)), "temperature": 0.01, "negatives": 7,
        },
    },
)  # fmt: skip

LAYER, TEMPERATURE, LR, GAMMA, WRONG = 2, 0.05, 1e-3, 0.5, 0.2
SIBLINGS = 3  # hard negatives of a fact
NOISY = ", a fifth of the positives wrong"
TASK = "Retrieve semantically similar text"
LOSSES = {
    "plain": partial(InfoNCE, temperature=TEMPERATURE),
    "focal": partial(InfoNCE, temperature=TEMPERATURE, row_weights=Focal(GAMMA)),
    "focal, mean weight 1": partial(InfoNCE, temperature=TEMPERATURE, row_weights=Focal(GAMMA, normalise=True)),
    "focal, gamma 2": partial(InfoNCE, temperature=TEMPERATURE, row_weights=Focal(2.0, normalise=True)),
}


def run(lab: Lab) -> Outcome:
    """Judge focal weights, mixing and the filter on heads, then build and train the whole system."""
    outcome = Outcome()
    data = paraphrases(lab, limit=lab.config["pairs"], least=lab.config["batch"])
    filtering(lab, outcome, data)
    invariants(lab, outcome, data)
    if lab.user_data is None:
        facts(lab, outcome)
        loose_positives(lab, outcome)
        system(lab, outcome, data)
    return outcome


def plan(tuning: Tuning) -> Plan:
    """Weigh rows by their difficulty, mix harder negatives, and train prefixes of the vector too."""
    if tuning.kind == "sts":
        raise InputError("KaLM-Embedding-V2 weighs positives against negatives; scored pairs have neither.")
    mask = AnyOf((same_text, same_label)) if tuning.kind == "labelled" else same_text
    loss = InfoNCE(
        temperature=TEMPERATURE, mask=mask, row_weights=Focal(GAMMA, normalise=True), mix=Mixer(seed=tuning.seed)
    )
    width = tuning.model.get_embedding_dimension()
    if width is None:
        return Plan(InfoNCE(tuning.model, temperature=TEMPERATURE, mask=mask, row_weights=loss.row_weights))
    dims = [width // part for part in (1, 2, 4, 8) if width // part >= 16 or part == 1]
    note = f"prefixes of {', '.join(map(str, dims))} dimensions were trained and may be used alone"
    return Plan(Matryoshka(tuning.model, loss, dims=dims, weights=(1.0, 0.3, 0.2, 0.1)[: len(dims)]), note=note)


# Facts


def facts(lab: Lab, outcome: Outcome) -> None:
    """Train heads by each loss on facts, with right and with wrong positives: the units are seeds."""
    learn, judge = (fact_families(lab.config["facts"], seed=seed) for seed in (0, 1))
    features = FrozenFeatures(lab.encoder().model, layer=LAYER)
    vectors = [features(texts) for data in (learn, judge) for texts in (data.queries, data.documents)]
    mixing = {
        f"mixed {kind}": partial(InfoNCE, temperature=TEMPERATURE, mix=Mixer(kind, count=SIBLINGS, hardest=8))
        for kind in ("pairs", "lists")
    }
    found: dict[str, dict[str, dict[str, float]]] = {}
    slices = {"top-1": judge.family >= -1, "top-1, families": judge.family >= 0, "top-1, alone": judge.family < 0}
    for noise, losses in ((0.0, LOSSES | mixing), (WRONG, {name: LOSSES[name] for name in ("plain", "focal")})):
        for name, loss in losses.items():
            system = name + (NOISY if noise else "")
            found[system] = {metric: {} for metric in slices}
            for seed in lab.seeds:
                lab.progress(system, seed, len(lab.seeds))
                table = fact_table(learn.family, noise, seed)
                head = fit(vectors[:2], table, loss(), steps=lab.config["steps"], batch=lab.config["batch"], seed=seed)
                queries, documents = (apply_head(head, side) for side in vectors[2:])
                right = (queries @ documents.T).argmax(1) == np.arange(len(queries))
                for metric, rows in slices.items():
                    found[system][metric][f"seed {seed}"] = float(right[rows].mean())
    scores = {system: Scores.of("facts", system, values) for system, values in found.items()}
    outcome.compare("focal-hard", scores["focal"], scores["plain"], metric="top-1, families")
    outcome.compare("focal-easy", scores["focal"], scores["plain"], metric="top-1, alone")
    outcome.compare("focal-noise", scores["focal" + NOISY], scores["plain" + NOISY], metric="top-1")
    for system, score in scores.items():
        outcome.fact(f"facts, {system}", {m: round(score.mean(m), 4) for m in score.metric_names})
    bars = [(name, 100 * (1 - score.mean("top-1, families"))) for name, score in scores.items() if NOISY not in name]
    outcome.plot("facts", Plot("Near duplicates mistaken for each other", "loss", "wrong first document, %",
                               {"families": bars}, "bar"))  # fmt: skip


def fact_table(family: IntArray, noise: float, seed: int) -> IntArray:
    """Return document rows ``[n, 1 + SIBLINGS]``: the positive (some wrong) and negatives, siblings where there are."""
    rng = np.random.default_rng(seed)
    n = len(family)
    positives = np.where(rng.random(n) < noise, rng.integers(n, size=n), np.arange(n))
    table = np.column_stack([positives, rng.integers(n, size=(n, SIBLINGS))])
    for row in np.flatnonzero(family >= 0):
        kin = np.setdiff1d(np.flatnonzero(family == family[row]), [row, positives[row]])
        table[row, 1:] = np.resize(rng.permutation(kin), SIBLINGS)
    return table


def fit(sides: Sequence[FloatArray], table: IntArray, loss: InfoNCE, *, steps: int, batch: int, seed: int) -> nn.Module:
    """Train a head: row i of the first side is a query, ``table[i]`` are its positive and negatives on the second."""
    queries, documents = (torch.from_numpy(side) for side in sides)
    head = mlp_head((queries.shape[1], 384, 128), seed=seed)
    batches = SourceBatches(["one"] * len(table), min(batch, len(table)), seed=seed)

    def step(head: nn.Module, rows: list[int]) -> Tensor:
        columns = [head(queries[rows]), *(head(documents[column]) for column in table[rows].T)]
        return loss.compute_loss_from_embeddings(columns)

    train(head, batches, step, steps=steps, lr=LR, seed=seed)
    return head


# Pairs and the filter


def plant(data: Paraphrases, seed: int) -> tuple[list[str], np.ndarray]:
    """Replace a fifth of the positives by others' at random; return them and which are wrong, bool ``[n]``."""
    rng = np.random.default_rng(seed)
    n = len(data.right)
    wrong = rng.random(n) < WRONG
    shifted = (np.arange(n) + rng.integers(1, n, size=n)) % n
    wrong &= np.array([data.right[j] != data.right[i] for i, j in enumerate(shifted)])
    return [data.right[j if w else i] for i, (j, w) in enumerate(zip(shifted, wrong, strict=True))], wrong


def keep_rows(lab: Lab, left: Sequence[str], right: Sequence[str], corpus: list[str]) -> np.ndarray:
    """Return which rows have their positive among the nearest texts of the corpus, scored by the whole encoder."""
    place = {text: i for i, text in enumerate(corpus)}
    vectors = lab.embed(corpus)
    queries, positives = ([place[text] for text in side] for side in (left, right))
    k = min(lab.config["keep"], len(corpus) - 1)
    return consistent(vectors[queries], vectors, positives, k=k, texts=(left, corpus))


def filtering(lab: Lab, outcome: Outcome, data: Paraphrases) -> None:
    """Plant wrong positives, filter, train on what is left and on everything: the units are seeds."""
    corpus = sorted({*data.left, *data.right})
    place = {text: i for i, text in enumerate(corpus)}
    features, metric = FrozenFeatures(lab.encoder().model, layer=LAYER), data.metric
    vectors, test = features(corpus), [features(side) for side in data.test]
    quality: dict[str, dict[str, float]] = {"precision": {}, "recall": {}}
    found: dict[str, dict[str, float]] = {"unfiltered": {}, "filtered": {}, "without the wrong rows": {}}
    for seed in lab.seeds:
        lab.progress("filter", seed, len(lab.seeds))
        right, wrong = plant(data, seed)
        kept = keep_rows(lab, data.left, right, corpus)
        values = removal_quality(kept, wrong)
        for name in quality:
            quality[name][f"seed {seed}"] = float(np.nan_to_num(values[name]))
        queries, positives = (np.array([place[text] for text in side]) for side in (data.left, right))
        for name, rows in (("unfiltered", wrong | ~wrong), ("filtered", kept), ("without the wrong rows", ~wrong)):
            found[name][f"seed {seed}"] = pair_score(lab, data, vectors, queries[rows], positives[rows], test, seed)
    task = "sts/stsb" if lab.user_data is None else lab.user_data.name
    scores = {name: Scores.of(task, name, {metric: values}) for name, values in found.items()}
    shares = Scores.of(task, "filter", quality)
    outcome.compare("filter-precision", shares, 0.9, metric="precision")
    outcome.compare("filter-recall", shares, 0.9, metric="recall")
    outcome.compare("filter-trains", scores["filtered"], scores["unfiltered"], metric=metric)
    outcome.fact("filter on planted errors", {name: round(shares.mean(name), 4) for name in quality})
    for name, score in scores.items():
        outcome.fact(f"{metric}, trained {name if name[0] == 'w' else f'on {name} rows'}", round(score.mean(metric), 4))
    if lab.user_data is None:
        queries, positives = (np.array([place[text] for text in side]) for side in (data.left, data.right))
        for name, loss in LOSSES.items():
            by_seed = [pair_score(lab, data, vectors, queries, positives, test, seed, loss()) for seed in lab.seeds]
            outcome.fact(f"{metric}, paraphrases without errors, {name}", round(float(np.mean(by_seed)), 4))


def pair_score(
    lab: Lab, data: Paraphrases, vectors: FloatArray, queries: IntArray, positives: IntArray,
    test: Sequence[FloatArray], seed: int, loss: InfoNCE | None = None,
) -> float:  # fmt: skip
    """Train a head on pairs and judge it: rank correlation with people, or reciprocal rank of each row's partner."""
    loss = LOSSES["plain"]() if loss is None else loss
    steps, batch = lab.config["pair_steps"], min(32, len(queries))
    head = fit((vectors[queries], vectors), positives[:, None], loss, steps=steps, batch=batch, seed=seed)
    return data.score(*(apply_head(head, side) for side in test))


def loose_positives(lab: Lab, outcome: Outcome) -> None:
    """Filter pairs of one intent drawn at random: they are related, but not near."""
    data = lab.labelled("cls/banking77", "train")
    values: dict[str, dict[str, float]] = {"precision": {}, "recall": {}}
    for seed in lab.seeds:
        rng = np.random.default_rng(seed)
        rows = rng.permutation(len(data.texts))[: lab.config["texts"]]
        texts, labels = list(dict.fromkeys(data.texts[i] for i in rows)), {data.texts[i]: data.labels[i] for i in rows}
        members: dict[str, list[str]] = {}
        for text in texts:
            members.setdefault(labels[text], []).append(text)
        left = [text for text in texts if len(members[labels[text]]) > 1]
        right = [str(rng.choice([t for t in members[labels[text]] if t != text])) for text in left]
        pairs = Paraphrases(left, right, ([], []), None)
        planted, wrong = plant(pairs, seed)
        wrong &= np.array([labels[a] != labels[b] for a, b in zip(left, planted, strict=True)])
        found = removal_quality(keep_rows(lab, left, planted, texts), wrong)
        for name, by_seed in values.items():
            by_seed[f"seed {seed}"] = found[name]
    scores = Scores.of("cls/banking77", "filter", values)
    outcome.compare("filter-loose", scores, outcome.comparisons["filter-precision"][0], metric="precision")
    outcome.fact("filter on pairs of one intent", {name: round(scores.mean(name), 4) for name in values})


# What must hold exactly


def invariants(lab: Lab, outcome: Outcome, data: Paraphrases) -> None:
    """Check on real vectors what must hold exactly."""
    n = min(64, len(data.left))
    q, p = (torch.from_numpy(lab.embed(side[:n])).double() for side in (data.left, data.right))
    rows = info_nce(q, p, reduction="none")
    weights, ones = Focal(GAMMA, normalise=False), Focal(0.0)(rows)
    w = weights(rows)
    ok = bool((ones == 1).all() and (w >= 0).all() and (w <= 1).all())
    outcome.invariant("focal-bounds", ok, f"mean weight at gamma {GAMMA}: {float(w.mean()):.3f}")
    allowed = (q @ p.T > 0) & ~torch.eye(n, dtype=torch.bool)
    mixes = mix_pairs(q, p, allowed, count=20, hardest=8, generator=torch.Generator().manual_seed(0))
    some = mixes.norm(dim=-1) > 0
    scores = (normalize(q, dim=1) @ normalize(p, dim=1).T).masked_fill(~allowed, -torch.inf).topk(8).values
    least = scores.masked_fill(scores == -torch.inf, torch.inf).amin(1, keepdim=True)
    short = float((mixes.norm(dim=-1)[some] - 1).abs().max())
    lower = float((least - (mixes @ normalize(q, dim=1)[:, :, None]).squeeze(-1))[some].max())
    outcome.invariant("mix-geometry", short < 1e-9 and lower < 1e-9, f"length off by {short:.0e}")
    fall = float((rows - info_nce(q, p, extra=mixes, reduction="none")).max())
    outcome.invariant("mix-raises", fall <= 1e-12, f"largest fall of a row's loss: {fall:.1e}")
    prefixed = Matryoshka(loss=InfoNCE(), dims=(q.shape[1],)).compute_loss_from_embeddings([q, p])
    gap = abs(float(prefixed - rows.mean()))
    outcome.invariant("one-prefix", gap < 1e-9, f"difference: {gap:.1e}")
    sources = [len(text) % 3 for text in data.left]
    pure = all(len({sources[row] for row in batch}) == 1 for batch in SourceBatches(sources, 4))
    outcome.invariant("pure-batches", pure, f"{len(set(sources))} sources")
    model = lab.encoder().model
    before, after = model.state_dict(), merge_models([model, model]).state_dict()
    change = max(float((before[key].double() - after[key].double()).abs().max()) for key in before)
    outcome.invariant("soup-identity", change == 0.0, f"largest change of a weight: {change:.1e}")


# The whole system


def system(lab: Lab, outcome: Outcome, data: Paraphrases) -> None:
    """Train on weak pairs; from there several runs on hard negatives, then towards a teacher; average these runs."""
    config, tau = lab.config, lab.config["temperature"]
    left, right = (side[: config["system_pairs"] or None] for side in (data.left, data.right))
    weak = [Row("retrieval", a, (b,), source="pairs") for a, b in zip(left, right, strict=True)]
    hard = hard_rows(lab, left, right)
    dims, weights = zip(*config["dims"], strict=True)
    teacher = Guide(lab.encoder().model)

    def fine(model: SentenceTransformer, seed: int) -> nn.Module:
        loss = InfoNCE(temperature=tau, mask=same_text, row_weights=Focal(GAMMA), mix=Mixer(seed=seed))
        return Matryoshka(model, loss, dims=dims, weights=weights)

    def distilled(model: SentenceTransformer) -> nn.Module:
        compare = partial(listwise_distillation, temperature=tau, teacher_temperature=tau)
        contrast = InfoNCE(temperature=tau, mask=same_text)
        return WeightedSum(model, parts=[(1.0, contrast), (1.0, Distillation(compare=compare, teacher=teacher))])

    def train_stage(
        model: SentenceTransformer, stage: int, rows: list[Row], loss: Callable[..., nn.Module], seed: int = 0
    ) -> float:
        (steps, lr), negatives = config["stages"][stage], config["negatives"] if stage else 0
        one = TrainingStage(rows, loss, steps, lr, config["system_batch"], negatives=negatives,
                            prompts={"pairs": query_text(TASK, "")})  # fmt: skip
        train_in_stages(model, [one], seed=seed, progress=lambda d, t: lab.progress(f"stage {stage + 1}", d, t))
        return judged(model, data)

    size = {"layers": config["layers"], "max_length": config["max_length"], "tokenizer": lab.encoder().model.tokenizer}
    start = decoder_embedder(config["backbone"], **size)
    history: dict[str, float] = {"before training": judged(start, data)}
    history["after weak pairs"] = train_stage(start, 0, weak, partial(InfoNCE, temperature=tau, mask=same_text))
    runs = [copy.deepcopy(start) for _ in range(config["soup"])]
    for seed, model in enumerate(runs):
        loss = partial(fine, seed=seed)
        history[f"after hard negatives, run {seed + 1}"] = train_stage(model, 1, hard, loss, seed)
        history[f"after distillation, run {seed + 1}"] = train_stage(model, 2, hard, distilled, seed)
    soup = merge_models(runs)
    outcome.fact("whole system, Spearman", history | {"soup": judged(soup, data)})
    series = {"soup": by_width(soup, data, dims)}
    outcome.plot("prefixes", Plot("Prefixes of the soup", "dimensions", "Spearman", series, log_x=True))


def hard_rows(lab: Lab, left: Sequence[str], right: Sequence[str]) -> list[Row]:
    """Drop rows whose positive is lost, and draw negatives of the others from a window of ranks."""
    corpus = sorted({*left, *right})
    place = {text: i for i, text in enumerate(corpus)}
    vectors = lab.embed(corpus)
    rows = [[place[text] for text in side] for side in (left, right)]
    kept = consistent(vectors[rows[0]], vectors, rows[1], k=lab.config["system_keep"], texts=(left, corpus))
    rows = [list(np.array(side)[kept]) for side in rows]
    found = mine(
        vectors[rows[0]], vectors, [{int(r)} for r in rows[1]], k=lab.config["negatives"],
        window=lab.config["system_window"], texts=([corpus[i] for i in rows[0]], corpus),
    )  # fmt: skip
    return [
        Row("retrieval", corpus[a], (corpus[b],), tuple(corpus[i] for i in negatives), source="pairs")
        for a, b, negatives in zip(*rows, found.rows, strict=True)
    ]


def judged(model: SentenceTransformer, data: Paraphrases) -> float:
    """Return the rank correlation with people of a model's cosines."""
    return by_width(model, data, (model.get_embedding_dimension() or 0,))[0][1]


def by_width(model: SentenceTransformer, data: Paraphrases, dims: Sequence[int]) -> list[tuple[int, float]]:
    """Return the rank correlation with people of the cosines of prefixes."""
    prompt = query_text(TASK, "")  # a symmetric task: the instruction stands on both sides
    sides = [torch.from_numpy(model.encode(s[:300], prompt=prompt, show_progress_bar=False)) for s in data.test]
    return [(dim, round(data.score(*(prefix(side, dim).numpy() for side in sides)), 4)) for dim in dims]
