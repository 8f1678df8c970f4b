"""Granite Embedding R2: from a masked language model to a retriever in stages, and a reranker beside it.

Stage by stage: RetroMAE pre-training, the same on tables under a mask of their structure, contrastive training with an
extended partition function, distillation of a teacher's scores instead of hard negatives; a cross-encoder trained with
a position-weighted list loss. Distillation is measured on heads over frozen features of layer 2 of the encoder, whose
teacher is the whole encoder; pre-training on a tiny encoder from nothing, judged by its first token alone. With random
weights that token is a bag of words already, so neighbours say little of what pre-training did: what the decoder
restores from its vector is reported beside them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from isometry.data import TableText, serialize_table
from isometry.data.converters import class_rows
from isometry.data.schemas import Labelled
from isometry.errors import RecipeError
from isometry.lab import Card, Claim, Lab, Outcome, Plot
from isometry.modules import MaskingCollator, RetroMAE, cut_layers, numeric_share
from isometry.modules.attention_mask import run as attend
from isometry.modules.table_mask import table_mask
from isometry.negatives import Guide, Relative, SourceBatches, mine, other_rows
from isometry.objectives import (
    Distillation,
    EmbeddingLoss,
    InfoNCE,
    listwise_distillation,
    soft_labels,
)
from isometry.objectives.weighted_sum import WeightedSum
from isometry.ranking.cross_encoder import CrossEncoderScorer
from isometry.tasks.class_separation import neighbour_precision
from isometry.training import Plan, Tuning, apply_head, layer_features, mlp_head, train
from isometry.training.cross_encoder import Schedule, cross_encoder, train_cross_encoder_listwise
from isometry.training.masked_language import sentence_model
from isometry.training.masked_pretraining import pretrain
from isometry.training.tuning import default_loss
from isometry.training.wordpiece import train_wordpiece
from isometry.types import FloatArray, IntArray, Scores

CARD = Card(
    slug="granite-embedding-r2",
    title="Granite Embedding R2 Models",
    arxiv="2508.21085",
    year=2025,
    kind="system",
    summary=(
        "Encoders for retrieval made in stages: masked language modelling whose first token must carry the whole text "
        "through a weak decoder, the same on tables, contrastive training whose denominator also counts pairs of "
        "queries and pairs of passages, and distillation of a large teacher's scores over mined candidates. Where "
        "candidates hold unlabelled positives, distillation is the safer choice: the teacher scores them high. A "
        "cross-encoder trained with a list loss weighted towards the first places reorders what was found."
    ),
    mechanism=(
        "isometry.modules.bottleneck_decoder:RetroMAE",
        "isometry.modules.table_mask:table_mask",
        "isometry.objectives.info_nce:info_nce",
        "isometry.objectives.distillation:listwise_distillation",
        "isometry.objectives.ranking:p_list_mle",
    ),
    parts=(
        "isometry.modules.mlm:MaskingCollator",
        "isometry.data.table_text:serialize_table",
        "isometry.negatives.mining:mine",
        "isometry.negatives.margins:Relative",
        "isometry.objectives.distillation:Distillation",
        "isometry.objectives.weighted_sum:WeightedSum",
        "isometry.training.cross_encoder:train_cross_encoder_listwise",
        "isometry.training.masked_pretraining:pretrain",
        "isometry.tasks.class_separation:neighbour_precision",
    ),
    needs=("labelled",),
    aliases=("Granite", "RetroMAE", "table retrieval", "score distillation", "p-ListMLE", "improved contrastive loss"),
    aspects={"task": "retrieval", "method": "staged pre-training and distillation", "data": "labelled texts"},
    headline="BEIR nDCG@10 of 53.1 with 149M parameters, encoding 19 to 44% faster than peers",
    claims=(
        Claim(
            "where mined lists hold unlabelled positives, distilling a teacher beats the contrastive loss on them",
            key="distillation-beats-hard-negatives", task="cls/banking77", metric="p@10", seeds=3,
            baseline="InfoNCE on the same lists",
        ),
        Claim(
            "pre-trained through the bottleneck, the first token tells intents apart at least ten points better",
            key="bottleneck-fills-cls", task="cls/banking77", metric="accuracy of the nearest neighbour", margin=0.1,
            baseline="masked language modelling alone",
        ),
        Claim("cross-entropy less the teacher's entropy is a divergence", key="divergence", invariant=True),
        Claim("in the first layer a cell does not see cells outside its row and column", key="tables", invariant=True),
    ),
    presets={
        "smoke": {
            "texts": 400, "anchors": 64, "pool": 300, "steps": 10, "mlm_steps": 8, "table_steps": 2, "rerank_steps": 2,
            "width": 64, "judge": 100, "seeds": 1,
        },
        "laptop": {
            "texts": 5000, "anchors": 1500, "pool": 5000, "steps": 250, "mlm_steps": 1500, "table_steps": 20,
            "rerank_steps": 20, "width": 128, "judge": 1500, "seeds": 3,
        },
        "paper": {
            "texts": 0, "anchors": 0, "pool": 0, "steps": 7000, "mlm_steps": 55864, "table_steps": 8848,
            "rerank_steps": 15000, "judge": 0, "seeds": 3, "backbone": "answerdotai/ModernBERT-base", "mlm_lr": 2e-5,
            "max_length": 8192, "mlm_batch": 8, "global_theta": 80000.0, "local_theta": 10000.0,
        },
    },
)  # fmt: skip

LAYER, NEGATIVES, TAU, BATCH = 2, 7, 0.05, 32
STYLES = ("csv", "markdown", "html", "markers")
EXTENDED = ("qd", "qq", "pd")  # the blocks of the extended partition: weights alpha, beta, gamma


@dataclass(frozen=True)
class Texts:
    """Labelled texts, the student's frozen features and the teacher's vectors."""

    texts: list[str]
    labels: np.ndarray
    features: FloatArray
    teacher: FloatArray
    task: str


def run(lab: Lab) -> Outcome:
    """Distil against hard negatives, pre-train with and without the bottleneck, tables and reranker beside."""
    outcome = Outcome()
    learn, judge = prepare(lab)
    distil(lab, outcome, learn, judge)
    tables(lab, outcome, learn, *pretraining(lab, outcome, learn, judge))
    rerank(lab, outcome, learn)
    return outcome


def plan(tuning: Tuning) -> Plan:
    """Extend the partition by pairs of queries and of passages, and hold the scores to those of the frozen start.

    Scored pairs keep their own loss beside the distillation.
    """
    own = default_loss(None, tuning.kind)
    if isinstance(own, InfoNCE):
        own = InfoNCE(temperature=TAU, blocks=EXTENDED, mask=own.mask)
    compare = partial(listwise_distillation, temperature=TAU, teacher_temperature=TAU)
    teacher = Distillation(compare=compare, teacher=Guide(tuning.start), in_batch=True)
    assert isinstance(own, EmbeddingLoss)
    return Plan(WeightedSum(tuning.model, parts=[(1.0, own), (1.0, teacher)]))


def prepare(lab: Lab) -> tuple[Texts, Texts]:
    """Return texts to learn from and texts to judge by."""
    data = lab.labelled("cls/banking77", "train")
    order = np.random.default_rng(0).permutation(len(data.texts))
    if lab.user_data is None:
        held = lab.labelled("cls/banking77", "test")
        rest = np.random.default_rng(1).permutation(len(held.texts))
    else:
        cut = round(0.7 * len(order))
        held, order, rest = data, order[:cut], order[cut:]
    if min(len(order), len(rest)) < 20:
        raise RecipeError(f"This needs at least 70 labelled texts, got {len(data.texts)}.")
    parts, task = [], "cls/banking77" if lab.user_data is None else lab.user_data.name
    for source, rows in ((data, order[: lab.config["texts"] or None]), (held, rest[: lab.config["judge"] or None])):
        texts = [source.texts[i] for i in rows]
        features = layer_features(lab.encoder().model, texts, layer=LAYER)
        labels = np.array([source.labels[i] for i in rows], dtype=object)
        parts.append(Texts(texts, labels, features, lab.embed(texts), task))
    return parts[0], parts[1]


def distil(lab: Lab, outcome: Outcome, learn: Texts, judge: Texts) -> None:
    """Train one student a kind of list and loss; the units are the texts it is judged by, mean over seeds."""
    found: dict[str, list[np.ndarray]] = {}
    alike: dict[str, list[float]] = {}
    for seed in lab.seeds:
        for kind, table in candidate_lists(lab, learn, seed).items():
            alike.setdefault(kind, []).append(float((learn.labels[table[:, 2:]] == learn.labels[table[:, :1]]).mean()))
            for name, loss in losses(kind).items():
                system = f"{name}, {kind} lists"
                lab.progress(system, seed, len(lab.seeds))
                head = fit(learn, table, loss, steps=lab.config["steps"], seed=seed)
                vectors = apply_head(head, judge.features), apply_head(head, learn.features)
                units = neighbour_precision(vectors[0], judge.labels, vectors[1], learn.labels, k=10)
                found.setdefault(system, []).append(units)
    means = {name: np.mean(runs, axis=0) for name, runs in found.items()}
    scores = {name: Scores.of(learn.task, name, {"p@10": by_text(units)}) for name, units in means.items()}
    outcome.compare("distillation-beats-hard-negatives", scores["distillation, hardest lists"],
                    scores["InfoNCE, hardest lists"])  # fmt: skip
    for name, units in means.items():
        outcome.fact(f"P@10, {name}", round(float(units.mean()), 4))
    for kind, shares in alike.items():
        outcome.fact(f"share of the anchor's own class among {kind} negatives", round(float(np.mean(shares)), 4))
    series = {name: [(kind, float(means[f"{name}, {kind} lists"].mean())) for kind in alike
                     if f"{name}, {kind} lists" in means] for name in ("InfoNCE", "distillation")}  # fmt: skip
    divergence(outcome, learn)
    outcome.plot("distillation", Plot("The same lists, two losses", "negatives", "P@10", series, kind="bar"))


def divergence(outcome: Outcome, learn: Texts) -> None:
    """Check the distillation on real vectors; an entropy near log k would mean that there is nothing to learn."""
    teacher, student = (torch.from_numpy(side[:8] @ side[8:40].T) for side in (learn.teacher, learn.features))
    cross = listwise_distillation(student, teacher, teacher_temperature=TAU, divergence="ce")
    entropy = float(soft_labels(teacher, temperature=TAU)[1].mean())
    same = float(listwise_distillation(teacher, teacher, temperature=TAU, teacher_temperature=TAU))
    detail = f"{float(cross) - entropy:.4f} for a student, {same:.1e} for the teacher itself"
    outcome.invariant("divergence", float(cross) >= entropy and abs(same) < 1e-5, detail)
    outcome.fact(f"entropy of the teacher over 32 candidates, nats (log k = {np.log(32):.2f})", round(entropy, 3))


def by_text(units: np.ndarray) -> dict[str, float]:
    """Return values by unit."""
    return {str(i): float(value) for i, value in enumerate(units)}


def losses(kind: str) -> Mapping[str, EmbeddingLoss]:
    """Return the losses that a kind of list is trained with."""
    plain = {"InfoNCE": InfoNCE(temperature=TAU, mask=other_rows)}
    if kind == "random":
        return plain | {"extended partition": InfoNCE(temperature=TAU, mask=other_rows, blocks=EXTENDED)}
    compare = partial(listwise_distillation, temperature=TAU, teacher_temperature=TAU, divergence="ce")
    return plain | {"distillation": Distillation(compare=compare)}


def candidate_lists(lab: Lab, learn: Texts, seed: int) -> dict[str, IntArray]:
    """Return lists by three rules as places of the texts, ``[n, 2 + k]``: anchor, a text of its class, negatives."""
    pool = np.random.default_rng(seed).permutation(len(learn.texts))[: lab.config["pool"] or None]
    texts = [learn.texts[i] for i in pool]
    place = {text: i for i, text in enumerate(texts)}
    data = Labelled(texts, [learn.labels[i] for i in pool], name="classes")
    with warnings.catch_warnings():  # texts alone in their class have no positive and are left out
        warnings.simplefilter("ignore")
        rows = class_rows(data, negatives=NEGATIVES, seed=seed)[: lab.config["anchors"] or None]
    anchors = np.array([place[row.text] for row in rows])
    mates = np.array([place[row.positives[0]] for row in rows])
    vectors = learn.teacher[pool]
    rules: dict[str, dict[str, Any]] = {
        "hardest": {}, "margin": {"margin": Relative(0.05)}, "random": {"window": (0, len(pool) - 20)},
    }  # fmt: skip
    found = {}
    for name, rule in rules.items():
        with warnings.catch_warnings():  # positives drawn at random may be far: their margin is absolute then
            warnings.simplefilter("ignore")
            picked = mine(vectors[anchors], vectors, [{int(m)} for m in mates], k=NEGATIVES,
                          texts=([row.text for row in rows], texts), seed=seed, **rule)  # fmt: skip
        found[name] = pool[np.column_stack([anchors, mates, picked.rows])[picked.complete]]
    return found


def fit(learn: Texts, table: IntArray, loss: EmbeddingLoss, *, steps: int, seed: int) -> nn.Module:
    """Train a head on lists; a distillation gets the teacher's cosines of each list as labels."""
    frozen, teacher = torch.from_numpy(learn.features), torch.from_numpy(learn.teacher)
    head = mlp_head((frozen.shape[1], 384, 128), seed=seed)

    def value(head: nn.Module, rows: list[int]) -> Tensor:
        columns = torch.from_numpy(table[rows].T)
        labels = (teacher[columns[0]] * teacher[columns[1:]]).sum(-1).T if isinstance(loss, Distillation) else None
        return loss.compute_loss_from_embeddings([head(frozen[column]) for column in columns], labels)

    batches = SourceBatches(["one"] * len(table), min(BATCH, len(table)), seed=seed)
    train(head, batches, value, steps=steps, lr=1e-3, seed=seed)
    return head


def pretraining(lab: Lab, outcome: Outcome, learn: Texts, judge: Texts) -> tuple[RetroMAE, Any]:
    """Pre-train with and without the bottleneck; judge the first token by each text's nearest neighbour."""
    from transformers import AutoTokenizer

    config, found = lab.config, dict[str, np.ndarray]()
    backbone = config.get("backbone")
    tokenizer = AutoTokenizer.from_pretrained(backbone) if backbone else train_wordpiece(learn.texts, 3000)
    length = config.get("max_length", 64)
    size, lr = config.get("mlm_batch", BATCH), config.get("mlm_lr", 1e-3)
    history: dict[str, list[float]] = {}
    alone, through = "masked language modelling alone", "through the bottleneck"
    for name, weight in (("random weights", 0.0), (alone, 0.0), (through, 1.0)):
        module = RetroMAE(masked_model(lab, len(tokenizer)), bottleneck=weight)
        collate = MaskingCollator(tokenizer, rate=0.2, decoder_rate=0.6, max_length=length, seed=0)
        if name != "random weights":
            watch = partial(lab.progress, f"pre-training: {name}")
            steps = config["mlm_steps"]
            history[name] = pretrain(module, learn.texts, collate, steps=steps, batch_size=size, lr=lr, progress=watch)
        model = sentence_model(module.eval().mlm.base_model, tokenizer, pooling="cls", max_tokens=length)
        sides = [model.encode(part.texts, show_progress_bar=False) for part in (learn, judge)]
        mean = sides[0].mean(0)  # vectors from nothing share a large mean, which would hide everything in the cosine
        found[name] = neighbour_precision(sides[1] - mean, judge.labels, sides[0] - mean, learn.labels, k=1)
        outcome.fact(f"accuracy of the nearest neighbour by [CLS], {name}", round(float(found[name].mean()), 4))
    with torch.no_grad():
        batch = collate(judge.texts[:128])
        vectors = module.states(batch)[:, 0]
        restored = [round(float(module.restore(v, batch)), 3) for v in (vectors, vectors.roll(1, 0))]
    outcome.fact("decoder's loss from a text's own vector and from another's", restored)
    scores = [Scores.of(learn.task, name, {"accuracy": by_text(found[name])}) for name in (through, alone)]
    outcome.compare("bottleneck-fills-cls", *scores)
    smooth = {n: [(i, float(np.mean(h[max(0, i - 20): i + 1]))) for i in range(0, len(h), max(1, len(h) // 50))]
              for n, h in history.items()}  # fmt: skip
    outcome.plot("pre-training", Plot("Pre-training from nothing", "step", "loss (both terms)", smooth))
    return module, tokenizer


def masked_model(lab: Lab, vocabulary: int) -> Any:
    """Return the configured masked language model with its rotary bases, or a tiny one with random weights."""
    from transformers import AutoModelForMaskedLM, BertConfig, BertForMaskedLM

    if backbone := lab.config.get("backbone"):
        theta = {"full_attention": lab.config["global_theta"], "sliding_attention": lab.config["local_theta"]}
        rope = {kind: {"rope_type": "default", "rope_theta": value} for kind, value in theta.items()}
        return AutoModelForMaskedLM.from_pretrained(backbone, rope_parameters=rope)
    width = lab.config["width"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return BertForMaskedLM(BertConfig(
            vocab_size=vocabulary, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=3,
            num_attention_heads=4, max_position_embeddings=512,
        ))  # fmt: skip


def tables(lab: Lab, outcome: Outcome, learn: Texts, module: RetroMAE, tokenizer: Any) -> None:
    """Go on pre-training on tables: the encoder sees their structure, the decoder restores a summary."""
    made, summaries = small_tables(learn, tokenizer.sep_token, count=64)
    collate = MaskingCollator(tokenizer, rate=0.2, decoder_rate=0.6, max_length=256, seed=2)
    batch = collate(made, summaries)
    before = [round(float(value.detach()), 3) for value in module.parts(batch)]

    def value(part: nn.Module, rows: list[int]) -> Tensor:
        loss: Tensor = part(collate([made[i] for i in rows], [summaries[i] for i in rows]))
        return loss

    train(
        module,
        SourceBatches(["table"] * len(made), 8, seed=0),
        value,
        steps=lab.config["table_steps"],
        lr=lab.config.get("mlm_lr", 1e-3) / 10,
    )
    after = [round(float(value.detach()), 3) for value in module.eval().parts(batch)]
    outcome.fact("loss on tables, encoder and summary decoder, before and after", [before, after])
    outcome.fact("share of masked table tokens that are digits", round(numeric_share(batch["labels"], tokenizer), 4))
    outcome.invariant("tables", *structure_holds(module, tokenizer, made[0]))


def small_tables(learn: Texts, separator: str, *, count: int) -> tuple[list[TableText], list[str]]:
    """Return tables of three labelled texts in turning formats, and a sentence about each."""
    rng = np.random.default_rng(0)
    made, summaries = [], []
    for number in range(count):
        rows = rng.permutation(len(learn.texts))[:3]
        cells = [[str(i + 1), str(learn.labels[row]).replace("_", " "), " ".join(learn.texts[row].split()[:6])]
                 for i, row in enumerate(rows)]  # fmt: skip
        made.append(serialize_table(["number", "topic", "question"], cells, style=STYLES[number % 4],  # type: ignore[arg-type]
                                    separator=separator))  # fmt: skip
        summaries.append(f"Three questions about {', '.join(cell[1] for cell in cells)}.")
    return made, summaries


@torch.no_grad()
def structure_holds(module: RetroMAE, tokenizer: Any, table: TableText) -> tuple[bool, str]:
    """Change one cell and see which tokens change after the first layer."""
    rows = tokenizer([table.text], return_offsets_mapping=True, return_tensors="pt", truncation=True, max_length=256)
    cells = torch.as_tensor(table.cells(rows["offset_mapping"][0].numpy()))[None]
    may = table_mask(cells, rows["attention_mask"])
    changed = cells[0, :, 0].argmax()  # a token of the last row
    other = rows["input_ids"].clone()
    other[0, changed] = (other[0, changed] + 1) % len(tokenizer)
    states = [attend(module.mlm.base_model, rows["attention_mask"], input_ids=ids, may_attend=may, all_layers=True)[1]
              for ids in (rows["input_ids"], other)]  # fmt: skip
    moved = (states[0] - states[1]).abs().amax(-1)[0] > 1e-6
    ok = bool(torch.equal(moved, may[0, :, changed])) and not bool(moved.all())
    return ok, f"{int(moved.sum())} of {len(moved)} tokens see the changed cell"


def rerank(lab: Lab, outcome: Outcome, learn: Texts) -> None:
    """Train a cross-encoder of two layers on mined lists; where the class comes first, before and after."""
    table = candidate_lists(lab, learn, 0)["margin"]
    split = min(len(table) // 2, 1000)
    model = cross_encoder(cut_layers(lab.encoder().model, 2), pooling="mean")

    def slates(rows: IntArray) -> tuple[list[str], list[list[str]], list[FloatArray]]:
        grades = [(learn.labels[row[1:]] == learn.labels[row[0]]).astype(np.float32) for row in rows]
        return ([learn.texts[row[0]] for row in rows], [[learn.texts[i] for i in row[1:]] for row in rows], grades)

    def reciprocal_rank() -> float:
        queries, lists, grades = slates(table[split : split + 60])
        pairs = [(query, text) for query, texts in zip(queries, lists, strict=True) for text in texts]
        scores = CrossEncoderScorer(model).predict(pairs).reshape(len(lists), -1)
        order = np.argsort(-scores, axis=1, kind="stable")
        found = np.take_along_axis(np.stack(grades), order, axis=1)
        return float((1 / (1 + found.argmax(1))).mean())

    before = reciprocal_rank()
    schedule = Schedule(lab.config["rerank_steps"], batch_size=4, lr=2e-4, warmup=0.15)
    train_cross_encoder_listwise(model, *slates(table[:split]), schedule, loss="p_list_mle",
                                 progress=partial(lab.progress, "reranker"))  # fmt: skip
    outcome.fact("reciprocal rank of the class by the reranker, before and after",
                 [round(before, 4), round(reciprocal_rank(), 4)])  # fmt: skip
