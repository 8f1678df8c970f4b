"""NV-Embed: a decoder that sees both ways, pools through a learned dictionary, and is trained in two stages.

Where batches hold rows of few classes, in-batch negatives are mostly false: the second stage leaves them out. Hard
negatives are mined with a margin below the positive. Both rules are measured on a head over frozen features of layer 2
of the encoder, trained with nothing but the rows' own negatives where the rule says so; the whole system (bidirectional
decoder, latent attention, adapters, two stages) is built and trained beside them, and once more with plain averages: a
report on one seed, for a gain of tenths of a point is not to be seen after a few steps.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize
from torch import Tensor, nn

from isometry.data.converters import Row, class_rows
from isometry.data.instructions import query_text
from isometry.data.schemas import Labelled
from isometry.encoders import load_decoder
from isometry.errors import InputError
from isometry.lab import Card, Claim, Lab, Outcome, Plot
from isometry.modules.attention_mask import check_attention
from isometry.modules.attention_mask import run as attend
from isometry.modules.decoder_transformer import DecoderTransformer
from isometry.modules.pooling import LatentAttention, mean_pool
from isometry.negatives import AnyOf, Guide, Guided, Mined, Relative, SourceBatches, mine, other_rows, same_label
from isometry.objectives import InfoNCE
from isometry.objectives.info_nce import MaskSource
from isometry.tasks.class_separation import class_separation, neighbour_precision
from isometry.training import Plan, Tuning, add_lora, apply_head, layer_features, mlp_head, train
from isometry.training.stages import TrainingStage, train_in_stages
from isometry.types import FloatArray, IntArray, Scores

CARD = Card(
    slug="nv-embed",
    title="NV-Embed: Improved Techniques for Training LLMs as Generalist Embedding Models",
    arxiv="2405.17428",
    year=2024,
    kind="system",
    summary=(
        "A decoder language model becomes an embedder by three changes: its causal mask is dropped, token states look "
        "up a learned dictionary before they are averaged (latent attention), and contrastive training has two stages: "
        "retrieval with in-batch negatives first, then classification, clustering and similarity added with in-batch "
        "negatives off, because two rows of a batch often share a class. Hard negatives must score below 0.95 of the "
        "positive. With many classes the second rule matters little."
    ),
    mechanism=(
        "isometry.modules.attention_mask:run",
        "isometry.modules.pooling.latent_attention:LatentAttention",
        "isometry.negatives.masks:other_rows",
        "isometry.negatives.mining:mine",
    ),
    parts=(
        "isometry.encoders.backbones:load_decoder",
        "isometry.modules.decoder_transformer:DecoderTransformer",
        "isometry.modules.pooling.pool_mask:pool_mask",
        "isometry.data.converters:class_rows",
        "isometry.data.instructions:query_text",
        "isometry.negatives.margins:Relative",
        "isometry.negatives.sampling:SourceBatches",
        "isometry.objectives.info_nce:InfoNCE",
        "isometry.tasks.class_separation:class_separation",
        "isometry.training.adapters:add_lora",
    ),
    needs=("labelled", "retrieval", "sts"),
    aliases=("latent attention", "bidirectional decoder", "two-stage instruction tuning", "positive-aware mining"),
    aspects={
        "task": "general text embedding",
        "method": "decoder with bidirectional attention, trained in two stages",
        "data": "labelled texts, queries with relevant documents",
    },
    headline="MTEB 69.3 over 56 tasks, 59.4 nDCG@10 on BEIR at 7B parameters (v1); latent attention gains tenths",
    claims=(
        Claim("with 4 classes, training without in-batch negatives separates held-out classes better than with them",
              key="off-beats-on-few", task="cls/banking77", metric="separation", baseline="in-batch on", seeds=6),
        Claim("with 12 classes too",
              key="off-beats-on-more", task="cls/banking77", metric="separation", baseline="in-batch on", seeds=6),
        Claim("the damage done by in-batch negatives is greater with 4 classes than with 48",
              key="damage-falls", task="cls/banking77", metric="damage", baseline="48 classes", seeds=6),
        Claim("negatives mined below 0.95 of the positive's score train a better head than the hardest ones",
              key="margin-beats-hardest", task="cls/banking77", metric="p@10", baseline="hardest", seeds=6),
        Claim("the decoder attends both ways, and only when asked", key="bidirectional", invariant=True),
        Claim("vectors do not depend on padding, on either side", key="padding", invariant=True),
        Claim("latent attention with its output layers at 0 is the masked mean", key="latent-mean", invariant=True),
        Claim("no mined negative reaches 0.95 of its positive", key="margin-kept", invariant=True),
    ),
    presets={
        "smoke": {
            "seeds": 2, "texts": 1000, "classes": (3, 6, 12), "steps": 15, "anchors": 200, "pool": 500,
            "mining_steps": 15, "backbone": "tiny", "layers": 2, "latents": 8, "heads": 2, "head_dim": 16, "mult": 1,
            "max_length": 24, "queries": 24, "documents": 60, "whole_documents": False, "batch": 4, "negatives": 2,
            "stages": ((2, 1e-3), (2, 1e-3)), "warmup": 0.1, "lora": (4, 8, 0.1),
        },
        "laptop": {
            "seeds": 6, "texts": 0, "classes": (4, 12, 48), "steps": 150, "anchors": 1500, "pool": 5000,
            "mining_steps": 250, "backbone": "smollm2", "layers": 4, "latents": 64, "heads": 4, "head_dim": 64,
            "mult": 1, "max_length": 32, "queries": 120, "documents": 500, "whole_documents": False, "batch": 8,
            "negatives": 3, "stages": ((12, 1e-3), (12, 5e-4)), "warmup": 0.1, "lora": (16, 32, 0.1),
        },
        "paper": {
            "seeds": 10, "texts": 0, "classes": (4, 12, 48), "steps": 150, "anchors": 1500, "pool": 5000,
            "mining_steps": 250, "backbone": "mistralai/Mistral-7B-v0.1", "layers": None, "latents": 512, "heads": 8,
            "head_dim": 4096, "mult": 4, "max_length": 512, "queries": 0, "documents": 0, "whole_documents": True,
            "batch": 128, "negatives": 7, "stages": ((20000, 2e-5), (18000, 1.5e-5)), "warmup": 0.025,
            "lora": (16, 32, 0.1),
        },
    },
)  # fmt: skip

LAYER, TEMPERATURE, LR, MARGIN = 2, 0.05, 1e-3, 0.05
ROWS, NEGATIVES = 32, 7  # rows of a batch, negatives of a row
SAME = "Retrieve sentences of the same meaning"
INTENT, CLAIM = "Given a banking question, retrieve questions of the same intent", "Retrieve evidence for the claim"


@dataclass(frozen=True)
class Texts:
    """Labelled texts and the frozen features a head is trained on."""

    texts: list[str]
    labels: np.ndarray
    features: FloatArray


def run(lab: Lab) -> Outcome:
    """Measure the two rules on heads, then build, check and train the whole system."""
    outcome = Outcome()
    learn, judge = prepare(lab)
    stage_two(lab, outcome, learn, judge)
    mining(lab, outcome, learn, judge)
    body = backbone(lab)
    invariants(lab, outcome, body)
    if lab.user_data is None:
        heads = {"latent attention": latent_attention(lab, body), "mean": without_lookup(latent_attention(lab, body))}
        for name, head in heads.items():
            outcome.fact(f"whole system, {name}", system(lab, copy.deepcopy(body), head))
    return outcome


def plan(tuning: Tuning) -> Plan:
    """Keep negatives below 0.95 of the positive, as the frozen start scores them; leave in-batch ones out of triplets.

    Labelled rows keep none of their own class, triplets nothing but their own negative, pairs what keeps the margin.
    """
    if tuning.kind == "sts":
        raise InputError(
            "NV-Embed trains on pairs, triplets or labelled texts; scored pairs have no negatives to choose."
        )
    margin = Guided(Guide(tuning.start), MARGIN, relative=True)
    masks: dict[str, MaskSource] = {"pairs": margin, "triplets": other_rows, "labelled": AnyOf((same_label, margin))}
    return Plan(InfoNCE(tuning.model, temperature=TEMPERATURE, mask=masks[tuning.kind]))


def prepare(lab: Lab) -> tuple[Texts, Texts]:
    """Return texts to learn from and texts to judge by."""
    data = lab.labelled("cls/banking77", "train")
    order = np.random.default_rng(0).permutation(len(data.texts))
    cut = len(order) if lab.user_data is None else round(0.7 * len(order))
    held = lab.labelled("cls/banking77", "test") if lab.user_data is None else data
    limit = lab.config["texts"] or None
    rest = np.random.default_rng(1).permutation(len(held.texts)) if lab.user_data is None else order[cut:]
    parts = []
    for source, rows in ((data, order[:cut][:limit]), (held, rest[:limit])):
        texts = [source.texts[i] for i in rows]
        labels = np.array([source.labels[i] for i in rows], dtype=object)
        parts.append(Texts(texts, labels, layer_features(lab.encoder().model, texts, layer=LAYER)))
    return parts[0], parts[1]


def stage_two(lab: Lab, outcome: Outcome, learn: Texts, judge: Texts) -> None:
    """Train with and without in-batch negatives on few and on many classes: the units are seeds."""
    known = sorted(set(learn.labels) & set(judge.labels))
    found: dict[tuple[int, bool], dict[str, float]] = {}
    counts = [min(count, len(known)) for count in lab.config["classes"]]
    for count in counts:
        for in_batch in (True, False):
            lab.progress(f"{count} classes, in-batch {'on' if in_batch else 'off'}", len(found), 2 * len(counts))
            found[count, in_batch] = {
                f"seed {s}": separation(lab, learn, judge, known, count, in_batch, s) for s in lab.seeds
            }
    task = task_name(lab)

    def scores(count: int, in_batch: bool) -> Scores:
        return Scores.of(task, f"in-batch {'on' if in_batch else 'off'}", {"separation": found[count, in_batch]})

    def damage(count: int) -> Scores:
        on, off = found[count, True], found[count, False]
        return Scores.of(task, f"{count} classes", {"damage": {seed: off[seed] - on[seed] for seed in on}})

    outcome.compare("off-beats-on-few", scores(counts[0], False), scores(counts[0], True))
    outcome.compare("off-beats-on-more", scores(counts[1], False), scores(counts[1], True))
    outcome.compare("damage-falls", damage(counts[0]), damage(counts[-1]))
    outcome.fact("damage by classes", {count: round(damage(count).mean("damage"), 4) for count in counts})
    means = {key: float(np.mean(list(values.values()))) for key, values in found.items()}
    for (count, in_batch), value in means.items():
        outcome.fact(f"class separation, {count} classes, in-batch {'on' if in_batch else 'off'}", round(value, 4))
    series = {f"in-batch {'on' if on else 'off'}": [(c, means[c, on]) for c in counts] for on in (True, False)}
    outcome.plot("stage two", Plot("In-batch negatives and the number of classes", "classes in training",
                                   "same-class less other-class cosine, held out", series, log_x=True))  # fmt: skip


def separation(
    lab: Lab, learn: Texts, judge: Texts, known: Sequence[str], count: int, in_batch: bool, seed: int
) -> float:
    """Train a head on random classes and return how far apart held-out texts of these classes lie."""
    chosen = set(np.random.default_rng(seed).choice(np.array(known, dtype=object), count, replace=False))
    rows, place = pairs_of_a_class(
        learn, np.array([i for i, label in enumerate(learn.labels) if label in chosen]), seed
    )
    table = np.array([[place[t] for t in (row.text, row.positives[0], *row.negatives)] for row in rows])
    loss = InfoNCE(temperature=TEMPERATURE, mask=None if in_batch else other_rows)
    head = fit(learn.features, table, loss, steps=lab.config["steps"], seed=seed)
    held = [i for i, label in enumerate(judge.labels) if label in chosen]
    return float(np.nanmean(class_separation(apply_head(head, judge.features[held]), judge.labels[held])))


def pairs_of_a_class(texts: Texts, chosen: IntArray, seed: int) -> tuple[list[Row], dict[str, int]]:
    """Return rows of some texts, each with another of its class and texts of other classes, and the texts' places."""
    members: dict[str, set[str]] = {}
    for i in chosen:
        members.setdefault(texts.labels[i], set()).add(texts.texts[i])
    chosen = np.array([i for i in chosen if len(members[texts.labels[i]]) > 1])  # a class of one text has no pair
    data = Labelled([texts.texts[i] for i in chosen], [texts.labels[i] for i in chosen], name="classes")
    return class_rows(data, negatives=NEGATIVES, seed=seed), {texts.texts[i]: int(i) for i in chosen}


def fit(features: FloatArray, table: IntArray, loss: InfoNCE, *, steps: int, seed: int) -> nn.Module:
    """Train a head on rows of a table: query, positive and negatives as places in the features."""
    frozen = torch.from_numpy(features)
    head = mlp_head((features.shape[1], 384, 128), seed=seed)
    batches = SourceBatches(["one"] * len(table), min(ROWS, len(table)), seed=seed)

    def embedded(head: nn.Module, rows: list[int]) -> Tensor:
        return loss.compute_loss_from_embeddings([head(frozen[column]) for column in table[rows].T])

    train(head, batches, embedded, steps=steps, lr=LR, seed=seed)
    return head


def mining(lab: Lab, outcome: Outcome, learn: Texts, judge: Texts) -> None:
    """Train on the hardest, on positive-aware and on random negatives of the same anchors and positives."""
    found: dict[str, dict[str, float]] = {name: {} for name in ("hardest", "margin", "random")}
    same: dict[str, list[float]] = {name: [] for name in found}
    kept = True
    for seed in lab.seeds:
        lab.progress("mining", len(found["margin"]), len(lab.seeds))
        pool = np.random.default_rng(seed).permutation(len(learn.texts))[: lab.config["pool"]]
        rows, place = pairs_of_a_class(learn, pool, seed)
        rows = rows[: lab.config["anchors"]]
        anchors, mates = ([place[t] for t in side] for side in ([r.text for r in rows], [r.positives[0] for r in rows]))
        negatives = mined(lab, learn, pool, anchors, mates, seed)
        kept &= below_margin(negatives["margin"])
        whole = negatives["hardest"].complete & negatives["margin"].complete & negatives["random"].complete
        for name, picked in negatives.items():
            table = np.column_stack([anchors, mates, pool[picked.rows]])[whole]
            same[name].append(float((learn.labels[table[:, 2:]] == learn.labels[table[:, :1]]).mean()))
            loss = InfoNCE(temperature=TEMPERATURE, mask=other_rows)
            head = fit(learn.features, table, loss, steps=lab.config["mining_steps"], seed=seed)
            test, searched = apply_head(head, judge.features), apply_head(head, learn.features[pool])
            precision = neighbour_precision(test, judge.labels, searched, learn.labels[pool], k=min(10, len(pool)))
            found[name][f"seed {seed}"] = float(precision.mean())
    scores = {name: Scores.of(task_name(lab), name, {"p@10": values}) for name, values in found.items()}
    outcome.compare("margin-beats-hardest", scores["margin"], scores["hardest"])
    outcome.invariant("margin-kept", kept, f"every negative scores below {1 - MARGIN} of its positive")
    for name in found:
        outcome.fact(f"P@10, {name} negatives", round(scores[name].mean("p@10"), 4))
        outcome.fact(f"share of {name} negatives of the anchor's own class", round(float(np.mean(same[name])), 4))
    bars = {"P@10": [(name, scores[name].mean("p@10")) for name in found],
            "of the same class": [(name, float(np.mean(same[name]))) for name in found]}  # fmt: skip
    outcome.plot(
        "mining", Plot("Negatives mined by three rules", "rule", "P@10; share of false negatives", bars, "bar")
    )


def mined(
    lab: Lab, learn: Texts, pool: IntArray, anchors: Sequence[int], mates: Sequence[int], seed: int
) -> dict[str, Mined]:
    """Return negatives of the anchors from the pool by three rules, as the whole encoder scores them."""
    texts = [learn.texts[i] for i in pool]
    place = {int(row): i for i, row in enumerate(pool)}
    vectors = lab.embed(texts)
    queries, positives = vectors[[place[a] for a in anchors]], [{place[m]} for m in mates]
    both = ([learn.texts[a] for a in anchors], texts)  # leaves out the anchor itself
    with warnings.catch_warnings():  # positives drawn at random may be far: their margin is absolute then
        warnings.simplefilter("ignore")
        aware = mine(queries, vectors, positives, k=NEGATIVES, margin=Relative(MARGIN), texts=both, seed=seed)
    return {
        "hardest": mine(queries, vectors, positives, k=NEGATIVES, texts=both, seed=seed),
        "margin": aware,
        "random": mine(queries, vectors, positives, k=NEGATIVES, window=(0, len(pool)), texts=both, seed=seed),
    }


def below_margin(found: Mined) -> bool:
    """Whether every negative of a clearly positive pair keeps the margin."""
    limit = (1 - MARGIN) * found.positive[:, None]
    return not (found.scores >= limit)[found.positive > MARGIN].any()


def task_name(lab: Lab) -> str:
    """Name of the data."""
    return "cls/banking77" if lab.user_data is None else lab.user_data.name


def backbone(lab: Lab) -> DecoderTransformer:
    """Load the decoder and make it attend both ways; what attends otherwise is refused."""
    config = lab.config
    decoder = load_decoder(config["backbone"], layers=config["layers"], tokenizer=lab.encoder().model.tokenizer)
    return DecoderTransformer(decoder.lm, decoder.tokenizer, max_seq_length=config["max_length"])


def latent_attention(lab: Lab, body: DecoderTransformer, seed: int = 0) -> LatentAttention:
    """Return the pooling head of the preset's sizes."""
    sizes = {name: lab.config[name] for name in ("latents", "heads", "head_dim", "mult")}
    return LatentAttention(body.get_embedding_dimension(), **sizes, seed=seed)


@torch.no_grad()
def without_lookup(head: LatentAttention) -> LatentAttention:
    """Set its output layers to 0 and keep them there: the head is the masked mean."""
    for parameter in (head.perceiver.out.weight, *head.perceiver.feed_forward.out.parameters()):
        parameter.zero_()
    head.requires_grad_(False)
    return head


@torch.no_grad()
def invariants(lab: Lab, outcome: Outcome, body: DecoderTransformer) -> None:
    """Check on the backbone in use what must hold exactly."""
    check_attention(body.model, "bidirectional")
    check_attention(body.model, "causal")  # both raise where the body does otherwise
    outcome.invariant("bidirectional", True, f"{lab.config['backbone']}, {body.model.config.num_hidden_layers} blocks")
    head, features = latent_attention(lab, body), body.preprocess(["a short text", "quite another, much longer text"])
    mask = features["attention_mask"]
    states = body(features)["token_embeddings"]
    vector = head.pool(states[:1], mask[:1])
    gaps = []
    for sides in ((0, 5), (5, 0)):
        ids, wide = (
            nn.functional.pad(features[k][:1, : int(mask[0].sum())], sides) for k in ("input_ids", "attention_mask")
        )
        padded = attend(body.model, wide, input_ids=ids, kind="bidirectional")
        gaps.append(float((head.pool(padded, wide) - vector).abs().max() / vector.abs().max()))
    outcome.invariant("padding", max(gaps) < 1e-4, f"largest relative change: {max(gaps):.1e}")
    change = float((without_lookup(head).pool(states, mask) - mean_pool(states, mask)).abs().max())
    outcome.invariant("latent-mean", change == 0.0, f"largest difference: {change:.1e}")


def system(lab: Lab, body: DecoderTransformer, head: LatentAttention) -> dict[str, dict[str, float]]:
    """Build the whole model, train it in two stages with adapters, and judge it before and after each."""
    config = lab.config
    model = SentenceTransformer(modules=[body, head, Normalize()], device="cpu")
    rank, alpha, dropout = config["lora"]
    add_lora(body, r=rank, alpha=alpha, dropout=dropout)
    rows, held, documents = claims(lab)
    labelled, test = lab.labelled("cls/banking77", "train"), lab.labelled("cls/banking77", "test")
    some = np.random.default_rng(0).permutation(len(test.texts))[: 2 * config["queries"] or None]
    classes, similar = class_rows(labelled, negatives=config["negatives"]), alike(lab)
    tasks = {rows[0].source: CLAIM, classes[0].source: INTENT, similar[0].source: SAME}
    prompts = {source: query_text(task, "") for source, task in tasks.items()}
    (steps, lr), (steps_two, lr_two) = config["stages"]
    first = TrainingStage(rows, lambda m: InfoNCE(m, temperature=TEMPERATURE), steps, lr, config["batch"],
                          config["warmup"], config["negatives"], prompts)  # fmt: skip
    second = replace(first, rows=[*rows, *classes, *similar], steps=steps_two, lr=lr_two,
                     loss=lambda m: InfoNCE(m, temperature=TEMPERATURE, mask=other_rows))  # fmt: skip
    history: dict[str, dict[str, float]] = {}

    def evaluate(name: str) -> None:
        vectors = model.encode(
            [test.texts[i] for i in some], prompt=prompts[classes[0].source], show_progress_bar=False
        )
        queries = model.encode([row.text for row in held], prompt=prompts[rows[0].source], show_progress_bar=False)
        scores = queries @ model.encode(documents, show_progress_bar=False).T
        best = np.array(
            [max(row[documents.index(p)] for p in one.positives) for row, one in zip(scores, held, strict=True)]
        )
        history[name] = {
            "reciprocal rank, claims to evidence": round(float((1 / (scores >= best[:, None]).sum(1)).mean()), 4),
            "class separation": round(float(np.nanmean(class_separation(vectors, [test.labels[i] for i in some]))), 4),
        }

    evaluate("before training")
    train_in_stages(model, (first, second), after=lambda stage: evaluate(f"after stage {stage + 1}"),
                    progress=lambda done, total: lab.progress("two stages", done, total))  # fmt: skip
    return history


def claims(lab: Lab) -> tuple[list[Row], list[Row], list[str]]:
    """Return claims with evidence and mined negatives to learn from, claims to judge by, and what is searched."""
    sets = [lab.retrieval("ir/scifact", split) for split in ("train", "test")]
    whole, limit = lab.config["whole_documents"], lab.config["queries"] or None
    contents = {d.id: d.content if whole or not d.title else d.title for d in sets[0].corpus}
    kept = [list(data.qrels.items())[:limit] for data in sets]
    wanted = {d for part in kept for _, grades in part for d, grade in grades.items() if grade > 0}
    others = [d for d in contents if d not in wanted][: lab.config["documents"] or None]
    documents = list(dict.fromkeys(contents[d] for d in (*sorted(wanted), *others)))
    parts = [
        [Row("retrieval", data.queries[q], tuple({contents[d] for d, g in grades.items() if g > 0}), source="scifact")
         for q, grades in part if any(g > 0 for g in grades.values())]
        for data, part in zip(sets, kept, strict=True)
    ]  # fmt: skip
    return with_negatives(lab, parts[0], documents), parts[1], documents


def alike(lab: Lab) -> list[Row]:
    """Return pairs that people find alike, with mined negatives."""
    data, limit = lab.sts("sts/stsb", "train"), lab.config["queries"] or None
    close = np.flatnonzero(data.scores >= 0.8 * data.scores.max())[:limit]
    rows = [Row("retrieval", data.left[i], (data.right[i],), source="stsb") for i in close]
    return with_negatives(lab, rows, list(dict.fromkeys(row.positives[0] for row in rows)))


def with_negatives(lab: Lab, rows: Sequence[Row], documents: Sequence[str]) -> list[Row]:
    """Mine negatives below the margin among documents; rows with too few are left out."""
    place = {text: i for i, text in enumerate(documents)}
    positives = [{place[text] for text in row.positives} for row in rows]
    queries = [row.text for row in rows]
    with warnings.catch_warnings():  # a claim may lie far from the title of its evidence: its margin is absolute then
        warnings.simplefilter("ignore")
        found = mine(lab.embed(queries, "query"), lab.embed(documents), positives, k=lab.config["negatives"],
                     margin=Relative(MARGIN), texts=(queries, documents))  # fmt: skip
    return [replace(row, negatives=tuple(documents[i] for i in picked))
            for row, picked, ok in zip(rows, found.rows, found.complete, strict=True) if ok]  # fmt: skip
