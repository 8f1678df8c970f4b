"""QZhou-Embedding: every data set becomes one of three kinds of rows, each with its own loss and its own batches.

What the three losses do is judged on heads over frozen features of layer 2; the whole system (bidirectional decoder,
mean pooling, retrieval first, then everything with a retrieval share) is built and trained after that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from isometry.data import Row, class_rows, query_text, retrieval_rows, scored_rows
from isometry.data.converters import columns
from isometry.data.schemas import Labelled, Pairs, Retrieval
from isometry.data.synthesis import Filters, RuleGenerator, Thesaurus, filter_rows, rewrite
from isometry.errors import RecipeError
from isometry.lab import Card, Claim, Lab, Outcome, Plot
from isometry.modules.attention_mask import run as attend
from isometry.modules.pooling import mean_pool
from isometry.negatives import AnyOf, WeightedBatches, same_label, same_text, with_share
from isometry.objectives import CoSENT, InfoNCE
from isometry.objectives.cosent import cosent
from isometry.objectives.info_nce import info_nce
from isometry.tasks import evaluate_run, kmeans_scores, neighbour_precision
from isometry.tasks.class_separation import class_separation
from isometry.training import FrozenFeatures, Plan, Tuning, apply_head, decoder_embedder, mlp_head, train
from isometry.types import Document, FloatArray, Hits, Scores

CARD = Card(
    slug="qzhou-embedding",
    title="QZhou-Embedding Technical Report",
    arxiv="2508.21632",
    year=2025,
    kind="system",
    summary=(
        "A decoder made bidirectional, with mean pooling, trained on retrieval first and then on everything. Every "
        "data set is converted to one of three kinds of rows (retrieval, scored pairs, texts with a class), and every "
        "batch is of one set: InfoNCE with query-query negatives for retrieval, CoSENT for graded pairs, InfoNCE that "
        "masks candidates of the anchor's class for classes. A share of the batches stays retrieval, lest it be "
        "forgotten. With many classes the label mask matters little."
    ),
    mechanism=(
        "isometry.data.converters:Row",
        "isometry.objectives.cosent:cosent",
        "isometry.negatives.masks:same_label",
        "isometry.negatives.sampling:with_share",
    ),
    parts=(
        "isometry.data.converters:class_rows",
        "isometry.data.converters:scored_rows",
        "isometry.data.synthesis.pipeline:rewrite",
        "isometry.negatives.sampling:WeightedBatches",
        "isometry.objectives.info_nce:InfoNCE",
        "isometry.tasks.class_separation:class_separation",
        "isometry.training.embedders:decoder_embedder",
    ),
    needs=("labelled", "sts"),
    aliases=("label mask", "loss by kind of data", "retrieval share", "data unification"),
    aspects={
        "task": "general text embedding",
        "method": "a loss for each kind of data, batches of one data set",
        "data": "queries with documents, scored pairs, labelled texts",
    },
    headline="First on English MTEB v2 (mean over tasks 75.97) and Chinese MTEB (about 76.99) on 27 August 2025",
    claims=(
        Claim("with 4 classes, masking candidates of the anchor's class separates held-out classes better",
              key="mask-few", task="cls/banking77", metric="separation", baseline="unmasked", seeds=6),
        Claim("with 12 classes too",
              key="mask-more", task="cls/banking77", metric="separation", baseline="unmasked", seeds=6),
        Claim("the gain is greater with 4 classes than with 48",
              key="gain-falls", task="cls/banking77", metric="gain", baseline="48 classes", seeds=6),
        Claim("on graded pairs CoSENT beats InfoNCE on those scored at least 4 of 5",
              key="cosent-beats", task="sts/stsb", metric="spearman", baseline="InfoNCE", seeds=6),
        Claim("a second stage without retrieval forgets it: a share of one half keeps a better ranking",
              key="share-keeps", task="ir/scifact", metric="ndcg@10", baseline="no retrieval", seeds=6),
        Claim("CoSENT reads the order of the scores alone", key="order-alone", invariant=True),
        Claim("the label mask changes nothing where all labels differ", key="distinct-labels", invariant=True),
        Claim("every batch is of one data set, and their shares are as asked", key="batches", invariant=True),
        Claim("left and right padding give one vector", key="padding", invariant=True),
    ),
    presets={
        "smoke": {
            "seeds": 2, "classes": (3, 4, 6), "most_classes": 6, "class_steps": 10, "pairs": 150, "pair_steps": 10,
            "queries": 50, "documents": 40, "retrieval_steps": 10, "share": 0.5, "backbone": "tiny", "layers": 2,
            "max_length": 24, "stages": ((2, 1e-3), (3, 1e-3)), "batch": 8, "scored_batch": 16, "warmup": 0.1,
            "temperature": 0.05,
        },
        "laptop": {
            "seeds": 6, "classes": (4, 12, 48), "most_classes": 0, "class_steps": 150, "pairs": 0, "pair_steps": 300,
            "queries": 0, "documents": 500, "retrieval_steps": 200, "share": 0.5, "backbone": "smollm2", "layers": 4,
            "max_length": 32, "stages": ((20, 1e-4), (20, 5e-5)), "batch": 16, "scored_batch": 32, "warmup": 0.1,
            "temperature": 0.05,
        },
        "paper": {
            "seeds": 10, "classes": (4, 12, 48), "most_classes": 0, "class_steps": 1500, "pairs": 0,
            "pair_steps": 3000, "queries": 0, "documents": 0, "retrieval_steps": 2000, "share": 0.5,
            "backbone": "Qwen/Qwen2.5-7B-Instruct", "layers": None, "max_length": 1536,
            "stages": ((32000, 3e-5), (8000, 2e-5)), "batch": 256, "scored_batch": 768, "warmup": 0.01,
            "temperature": 0.02,
        },
    },
)  # fmt: skip

LAYER, TEMPERATURE, LR, BATCH = 2, 0.05, 1e-3, 32
PROMPTS = {
    "retrieval": query_text("Given a claim, retrieve evidence for it", ""),
    "scored": query_text("Retrieve semantically similar text", ""),
    "class": query_text("Given a banking question, retrieve questions of the same intent", ""),
}


def loss_for(kind: str, *, temperature: float = TEMPERATURE, model: nn.Module | None = None) -> InfoNCE | CoSENT:
    """Return the loss for a kind of rows."""
    if kind == "scored":
        return CoSENT(model, scale=1 / temperature)
    if kind == "class":
        return InfoNCE(model, temperature=temperature, blocks=("qd", "qq"), mask=same_label)
    return InfoNCE(model, temperature=temperature, blocks=("qd", "qq"), mask=same_text)


def plan(tuning: Tuning) -> Plan:
    """Choose the loss by the kind of rows: query-query negatives, a label mask, or CoSENT for graded pairs."""
    if tuning.kind == "labelled":
        mask = AnyOf((same_text, same_label))
        loss = InfoNCE(tuning.model, temperature=TEMPERATURE, blocks=("qd", "qq"), mask=mask)
        return Plan(loss, same_class_batches=True)
    return Plan(loss_for("scored" if tuning.kind == "sts" else "retrieval", model=tuning.model))


def run(lab: Lab) -> Outcome:
    """Judge the three losses and the retrieval share on heads, then build and train the whole system."""
    outcome, bank = Outcome(), FrozenFeatures(lab.encoder().model, layer=LAYER)
    invariants(lab, outcome)
    if lab.user_data is None:
        for part in (label_mask, graded_pairs, retrieval_share):
            part(lab, outcome, bank)
        system(lab, outcome)
        return outcome
    for part in (label_mask, graded_pairs):
        with contextlib.suppress(RecipeError):  # data of another kind
            part(lab, outcome, bank)
    if not outcome.comparisons:
        raise RecipeError(f"{lab.user_data} holds neither labelled texts nor scored pairs, which this recipe needs.")
    return outcome


# Heads


def fit(
    bank: FrozenFeatures, rows: Sequence[Row], losses: Mapping[str, InfoNCE | CoSENT], *, steps: int, seed: int,
    weights: Mapping[str, float] | None = None, head: nn.Module | None = None,
) -> nn.Module:  # fmt: skip
    """Train a head on rows in batches of one source, each by the loss of its kind; begin from a given head or anew."""
    head = mlp_head((bank.dim, 384, 128), seed=seed) if head is None else head
    sources = [row.source for row in rows]
    size = min(BATCH, *(sources.count(source) for source in set(sources)), len(rows))
    batches = WeightedBatches(sources, size, weights=weights, steps=steps, seed=seed)

    def step(head: nn.Module, chosen: list[int]) -> Tensor:
        batch = [rows[i] for i in chosen]
        texts, labels = columns(batch)
        vectors = [head(torch.from_numpy(bank(column))) for column in texts]
        given = None if labels is None else torch.tensor(labels)
        return losses[batch[0].kind].compute_loss_from_embeddings(vectors, given, texts)

    train(head, batches, step, steps=steps, lr=LR, seed=seed)
    return head


def halves(lab: Lab) -> tuple[Labelled, Labelled]:
    """Return texts with classes to learn from and to judge by."""
    data = some(lab, lab.labelled("cls/banking77", "train"))
    if lab.user_data is None:
        return data, some(lab, lab.labelled("cls/banking77", "test"))
    order = np.random.default_rng(0).permutation(len(data.texts))
    parts = [order[: (cut := round(0.7 * len(order)))], order[cut:]]
    one, two = (Labelled([data.texts[i] for i in p], [data.labels[i] for i in p], data.name) for p in parts)
    return one, two


def some(lab: Lab, data: Labelled) -> Labelled:
    """Return texts of the first classes, where the preset asks for fewer."""
    names = sorted(set(data.labels))[: lab.config["most_classes"] or None]
    return Labelled(*inside(data, set(names)), data.name)


def label_mask(lab: Lab, outcome: Outcome, bank: FrozenFeatures) -> None:
    """Train with and without the label mask on few and on many classes: the units are seeds."""
    learn, judge = halves(lab)
    known = sorted(label for label in set(learn.labels) & set(judge.labels) if learn.labels.count(label) > 1)
    counts = [min(count, len(known)) for count in lab.config["classes"]]
    found: dict[tuple[int, bool], dict[str, float]] = {(c, on): {} for c in counts for on in (False, True)}
    others: dict[str, dict[str, list[float]]] = {}
    for count, masked in found:
        losses = {"class": InfoNCE(temperature=TEMPERATURE, mask=same_label if masked else None)}
        name = f"{count} classes, {'masked' if masked else 'unmasked'}"
        for seed in lab.seeds:
            lab.progress(name, seed, len(lab.seeds))
            chosen = set(np.random.default_rng(seed).choice(np.array(known, dtype=object), count, replace=False))
            (texts, labels), (held, truth) = (inside(data, chosen) for data in (learn, judge))
            rows = class_rows(Labelled(texts, labels, "classes"), negatives=0, seed=seed)
            head = fit(bank, rows, losses, steps=lab.config["class_steps"], seed=seed)
            vectors, pool = (apply_head(head, bank(side)) for side in (held, texts))
            found[count, masked][f"seed {seed}"] = float(np.nanmean(class_separation(vectors, truth)))
            kept = others.setdefault(name, {"V-measure": [], "P@10": []})
            k = min(10, len(pool))
            kept["P@10"].append(float(neighbour_precision(vectors, truth, pool, labels, k=k).mean()))
            kept["V-measure"].append(kmeans_scores(vectors, truth, seed=seed)["v_measure"])
    report_mask(outcome, learn.name, counts, found)
    for name, values in others.items():
        outcome.fact(name, {metric: round(float(np.mean(v)), 4) for metric, v in values.items()})


def inside(data: Labelled, chosen: set[str]) -> tuple[list[str], list[str]]:
    """Return texts and labels of some classes."""
    rows = [i for i, label in enumerate(data.labels) if label in chosen]
    return [data.texts[i] for i in rows], [data.labels[i] for i in rows]


def report_mask(
    outcome: Outcome, task: str, counts: Sequence[int], found: Mapping[tuple[int, bool], Mapping[str, float]]
) -> None:
    """Compare class separation with and without the mask."""
    for key, count in (("mask-few", counts[0]), ("mask-more", counts[1])):
        masked, plain = (Scores.of(task, str(on), {"separation": found[count, on]}) for on in (True, False))
        outcome.compare(key, masked, plain)
    gains = [
        Scores.of(task, f"{count} classes", {"gain": {s: v - found[count, False][s] for s, v in masked.items()}})
        for count in (counts[0], counts[-1]) for masked in [found[count, True]]
    ]  # fmt: skip
    outcome.compare("gain-falls", *gains)
    means = {key: float(np.mean(list(values.values()))) for key, values in found.items()}
    for (count, on), value in means.items():
        outcome.fact(f"class separation, {count} classes, {'masked' if on else 'unmasked'}", round(value, 4))
    series = {name: [(c, means[c, on]) for c in counts] for name, on in (("masked", True), ("unmasked", False))}
    outcome.plot("label mask", Plot("The label mask and the number of classes", "classes in training",
                                    "same-class less other-class cosine, held out", series, log_x=True))  # fmt: skip


def graded_pairs(lab: Lab, outcome: Outcome, bank: FrozenFeatures) -> None:
    """Train by the order of all scores, or by the highest scores as positives: the units are seeds."""
    sets = [lab.sts("sts/stsb", split) for split in ("train", "test")]
    rows, held = scored_rows(sets[0]), scored_rows(sets[1])
    if lab.user_data is not None:
        order = np.random.default_rng(0).permutation(len(rows))
        cut = round(0.7 * len(order))
        rows, held = [rows[i] for i in order[:cut]], [rows[i] for i in order[cut:]]
    rows, held = rows[: lab.config["pairs"] or None], held[: lab.config["pairs"] or None]
    top = 0.8 * max(row.score or 0.0 for row in rows)
    near = [Row("retrieval", r.text, r.positives, source=r.source) for r in rows if (r.score or 0.0) >= top]
    systems: dict[str, tuple[list[Row], dict[str, InfoNCE | CoSENT]]] = {
        "CoSENT": (rows, {"scored": CoSENT(scale=1 / TEMPERATURE)}),
        "InfoNCE": (near, {"retrieval": InfoNCE(temperature=TEMPERATURE)}),
    }
    values: dict[str, dict[str, float]] = {}
    for name, (learn, losses) in systems.items():
        values[name] = {}
        for seed in lab.seeds:
            lab.progress(name, seed, len(lab.seeds))
            head = fit(bank, learn, losses, steps=lab.config["pair_steps"], seed=seed)
            values[name][f"seed {seed}"] = agreement(partial(embedded, head, bank), held)
    scores = {n: Scores.of(sets[0].name, n, {"spearman": by_seed}) for n, by_seed in values.items()}
    outcome.compare("cosent-beats", scores["CoSENT"], scores["InfoNCE"])
    raw = agreement(partial(embedded, nn.Identity(), bank), held)
    outcome.fact("spearman, features as they are", round(raw, 4))
    for name, score in scores.items():
        outcome.fact(f"spearman, {name}", round(score.mean("spearman"), 4))


def embedded(head: nn.Module, bank: FrozenFeatures, texts: Sequence[str]) -> FloatArray:
    """Return a head's unit vectors of texts."""
    return apply_head(head, bank(texts))


def agreement(embed: Callable[[Sequence[str]], FloatArray], rows: Sequence[Row]) -> float:
    """Return the rank correlation of cosines with the scores of pairs; ``embed`` returns unit vectors."""
    left, right = embed([row.text for row in rows]), embed([row.positives[0] for row in rows])
    return float(spearmanr((left * right).sum(1), [row.score for row in rows]).statistic)


def retrieval_share(lab: Lab, outcome: Outcome, bank: FrozenFeatures) -> None:
    """Train on retrieval, then on everything with and without a share of retrieval: the units are seeds."""
    learn, judge = searched(lab)
    rows = {
        "retrieval": retrieval_rows(learn),
        "scored": scored_rows(lab.sts("sts/stsb", "train"))[: lab.config["pairs"] or None],
        "class": class_rows(some(lab, lab.labelled("cls/banking77", "train")), negatives=0),
    }
    everything = [row for part in rows.values() for row in part]
    losses = {kind: loss_for(kind) for kind in rows}
    shares = {part[0].source: float(len(part)) for part in rows.values()}
    names, documents = list(judge.qrels), [document.content for document in judge.corpus]
    questions = [judge.queries[name] for name in names]

    def ranking(head: nn.Module) -> float:
        return ndcg(names, embedded(head, bank, questions), embedded(head, bank, documents), judge)

    values: dict[str, dict[str, float]] = {"after retrieval alone": {}, "no retrieval": {}, "half retrieval": {}}
    for seed in lab.seeds:
        lab.progress("retrieval share", seed, len(lab.seeds))
        for name, share in (("no retrieval", 0.0), ("half retrieval", lab.config["share"])):
            head = fit(bank, rows["retrieval"], losses, steps=lab.config["retrieval_steps"], seed=seed)
            values["after retrieval alone"][f"seed {seed}"] = ranking(head)
            weights = with_share(shares, {rows["retrieval"][0].source}, share)
            fit(bank, everything, losses, steps=lab.config["retrieval_steps"], seed=seed, weights=weights, head=head)
            values[name][f"seed {seed}"] = ranking(head)
    scores = {name: Scores.of("ir/scifact", name, {"ndcg@10": by_seed}) for name, by_seed in values.items()}
    outcome.compare("share-keeps", scores["half retrieval"], scores["no retrieval"])
    for name, score in scores.items():
        outcome.fact(f"nDCG@10, {name}", round(score.mean("ndcg@10"), 4))


def searched(lab: Lab) -> tuple[Retrieval, Retrieval]:
    """Return claims with evidence to learn from and to judge by; a document is its title, where it has one."""
    parts = [lab.retrieval("ir/scifact", split) for split in ("train", "test")]
    limit, most = lab.config["queries"] or None, lab.config["documents"] or None
    kept = [dict(list(part.qrels.items())[:limit]) for part in parts]
    wanted = {d for qrels in kept for grades in qrels.values() for d in grades}
    others = [d for d in parts[0].corpus if d.id not in wanted][:most]
    chosen = [*(d for d in parts[0].corpus if d.id in wanted), *others]
    corpus = [Document(d.id, d.title or d.text) for d in chosen]
    one, two = (Retrieval(corpus, part.queries, qrels, "scifact") for part, qrels in zip(parts, kept, strict=True))
    return one, two


def ndcg(names: Sequence[str], queries: FloatArray, documents: FloatArray, judge: Retrieval) -> float:
    """Return the mean nDCG@10 of unit vectors."""
    scores = queries @ documents.T
    best = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    found = [[(judge.corpus[j].id, float(row[j])) for j in top] for row, top in zip(scores, best, strict=True)]
    return evaluate_run(judge.qrels, Hits.build(names, found), ("ndcg@10",)).mean("ndcg@10")


# What must hold exactly


def invariants(lab: Lab, outcome: Outcome) -> None:
    """Check what must hold exactly."""
    generator = torch.Generator().manual_seed(0)
    s, y = (torch.rand(64, generator=generator, dtype=torch.float64) for _ in range(2))
    y = (5 * y).round()
    values = [float(cosent(s, to(y))) for to in (torch.clone, torch.exp, lambda x: x**3 - 7)]
    tied = float(cosent(s, torch.ones(64)))
    outcome.invariant("order-alone", len(set(values)) == 1 and tied == 0.0, f"loss {values[0]:.4f}; all tied: {tied}")
    q, p = (torch.randn(32, 16, generator=generator, dtype=torch.float64) for _ in range(2))
    masked = InfoNCE(mask=same_label).compute_loss_from_embeddings([q, p], torch.arange(32))
    gap = abs(float(masked - info_nce(q, p)))
    outcome.invariant("distinct-labels", gap == 0.0, f"difference: {gap}")
    sources = ["retrieval"] * 300 + ["scored"] * 500 + ["class"] * 200
    weights = with_share({"retrieval": 300.0, "scored": 500.0, "class": 200.0}, {"retrieval"}, lab.config["share"])
    drawn = [{sources[i] for i in batch} for batch in WeightedBatches(sources, 16, weights=weights, steps=2000)]
    share = sum(batch == {"retrieval"} for batch in drawn) / len(drawn)
    wanted = lab.config["share"]
    near = abs(share - wanted) < 3 * np.sqrt(wanted * (1 - wanted) / len(drawn))
    outcome.invariant("batches", near and all(len(batch) == 1 for batch in drawn), f"share {share:.3f} of {wanted}")
    gap = padding_gap(build(lab))
    outcome.invariant("padding", gap < 1e-4, f"largest relative change: {gap:.1e}")


@torch.no_grad()
def padding_gap(model: SentenceTransformer) -> float:
    """Return the largest relative change of a pooled vector under padding on either side."""
    ids = model.preprocess(["a short text"])["input_ids"]
    mask, vectors = torch.ones_like(ids), []
    for sides in ((0, 0), (0, 5), (5, 0)):
        wide, seen = (nn.functional.pad(x, sides) for x in (ids, mask))
        vectors.append(mean_pool(attend(model[0].model, seen, input_ids=wide, kind="bidirectional"), seen))
    return max(float((v - vectors[0]).abs().max() / vectors[0].abs().max()) for v in vectors[1:])


# The whole system


def build(lab: Lab) -> SentenceTransformer:
    """Return the untrained embedder of the preset."""
    config = lab.config
    tokenizer = lab.encoder().model.tokenizer
    return decoder_embedder(
        config["backbone"], layers=config["layers"], max_length=config["max_length"], tokenizer=tokenizer
    )


def system(lab: Lab, outcome: Outcome) -> None:
    """Train on retrieval, then on everything, each batch of one data set and by its kind's loss."""
    config, model = lab.config, build(lab)
    learn, judge = searched(lab)
    first = [*retrieval_rows(learn), *written(lab, outcome, retrieval_rows(learn))]
    classes = class_rows(lab.labelled("cls/banking77", "train"), negatives=1)
    rest = [*scored_rows(lab.sts("sts/stsb", "train")), *classes]
    held = scored_rows(lab.sts("sts/stsb", "test"))[:200]
    losses = {kind: loss_for(kind, temperature=config["temperature"]) for kind in PROMPTS}
    history = {"before training": quality(model, judge, held)}
    for number, rows in enumerate((first, [*first, *rest])):
        steps, lr = config["stages"][number]
        sizes = {r.source: config["scored_batch"] if r.kind == "scored" else config["batch"] for r in rows}
        weights = {source: float(sum(row.source == source for row in rows)) for source in sizes}
        share = with_share(weights, {row.source for row in first}, config["share"] if number else 1.0)
        batches = WeightedBatches([row.source for row in rows], sizes, weights=share, steps=steps, seed=number)

        def step(_: nn.Module, chosen: list[int], rows: Sequence[Row] = rows) -> Tensor:
            return batch_loss(model, [rows[i] for i in chosen], losses)

        report = partial(lab.progress, f"stage {number + 1}")
        train(model, batches, step, steps=steps, lr=lr, warmup=config["warmup"], progress=report)
        history[f"after stage {number + 1}"] = quality(model, judge, held)
    outcome.fact("whole system", history)


def batch_loss(model: SentenceTransformer, batch: Sequence[Row], losses: Mapping[str, InfoNCE | CoSENT]) -> Tensor:
    """Embed a batch of one kind, each side with the instruction it has, and return its loss."""
    texts, labels = columns(batch)
    kind = batch[0].kind
    # Scored pairs and classes are symmetric tasks: every text has the instruction; documents have none.
    prompts = [PROMPTS[kind] if not side or kind != "retrieval" else None for side in range(len(texts))]
    features = [model.preprocess(column, prompt=prompt) for column, prompt in zip(texts, prompts, strict=True)]
    embedded = [model(column)["sentence_embedding"] for column in features]
    given = None if labels is None else torch.tensor(labels)
    return losses[kind].compute_loss_from_embeddings(embedded, given, texts)


def written(lab: Lab, outcome: Outcome, rows: Sequence[Row]) -> list[Row]:
    """Write near-misses of the positives by rules, and keep those that pass the filters."""
    pairs = Pairs([row.text for row in rows], [row.positives[0] for row in rows], name="scifact")
    made = rewrite(RuleGenerator(Thesaurus.wordnet(lab.path("wordnet"))), pairs, "hard_negative")
    kept, dropped = filter_rows(made.rows, Filters())
    outcome.fact("near-misses written by rules", {"kept": len(kept), "dropped": dropped.total() + made.failed.total()})
    out = [Row("retrieval", row.query, (row.positive,), (row.negative,), source="written") for row in kept]
    return out if len(out) >= lab.config["batch"] else []


def quality(model: SentenceTransformer, judge: Retrieval, held: Sequence[Row]) -> dict[str, float]:
    """Return nDCG@10 of retrieval and the rank correlation on scored pairs."""

    def embed(texts: Sequence[str], prompt: str | None = None) -> FloatArray:
        vectors: FloatArray = model.encode(list(texts), prompt=prompt, show_progress_bar=False)
        return vectors

    names = list(judge.qrels)
    queries = embed([judge.queries[name] for name in names], PROMPTS["retrieval"])
    found = ndcg(names, queries, embed([document.content for document in judge.corpus]), judge)
    correlation = agreement(lambda texts: embed(texts, PROMPTS["scored"]), held)
    return {"nDCG@10": round(found, 4), "Spearman": round(correlation, 4)}
