"""ULLME: one decoder embeds and generates, and training makes its two relevance scores agree (GRL).

The claim is measured on texts of known topics: a query's candidates are one passage of its own topic and seven of
others. Tiny decoders that already generate are trained with and without the agreement loss, until it has come down;
held-out candidates are ranked by both scores, and the divergence that the loss lessens is reported beside the rank
correlation that is claimed. A generator that knows the topics and its mean states rank alike from the start. On text, a
decoder cut to a few blocks, which first learns to generate again, shows the same losses at work on one seed.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from isometry.data.token_tasks import TopicTask
from isometry.encoders import load_decoder, tiny_decoder
from isometry.errors import InputError, RecipeError
from isometry.indexes.filtered.baselines import spherical_kmeans
from isometry.lab import Card, Claim, Lab, Outcome, Plot
from isometry.modules.attention_mask import check_attention
from isometry.modules.vocabulary_trim import trim_to_rows
from isometry.negatives import SourceBatches
from isometry.objectives.generation import agreement_loss
from isometry.objectives.nt_xent import NTXent
from isometry.tasks.metrics import evaluate_run
from isometry.tasks.perplexity import perplexity
from isometry.training import Plan, Tuning, add_lora, seeded, train
from isometry.training.generation import GRL, GenerationPrompt, GRLConfig, QueryGroup
from isometry.types import Scores

CARD = Card(
    slug="ullme",
    title="ULLME: A Unified Framework for Large Language Model Embeddings with Generation-Augmented Learning",
    arxiv="2408.03402",
    year=2024,
    kind="system",
    summary=(
        "A layer around any decoder that gives it two modes, bidirectional encoding and causal generation, a menu of "
        "losses for both, and training of large batches in little memory. Its own method, GRL, trains both modes at "
        "once: contrastive on projected vectors, a preference for the passage that answers over one that does not, and "
        "a divergence that makes the vectors rank candidates as the generator's likelihood does."
    ),
    mechanism=("isometry.training.generation:GRL", "isometry.objectives.generation:agreement_loss"),
    parts=(
        "isometry.objectives.generation:preference_loss", "isometry.objectives.generation:sequence_log_probs",
        "isometry.objectives.nt_xent:nt_xent", "isometry.objectives.nt_xent:multi_similarity_pairs",
        "isometry.training.gradient_caching:embed_cached", "isometry.negatives.sampling:SourceBatches",
        "isometry.modules.attention_mask:run",
        "isometry.modules.pooling.plain:pool", "isometry.tasks.perplexity:perplexity",
        "isometry.encoders.backbones:load_decoder", "isometry.training.adapters:add_lora",
    ),
    needs=("retrieval",),
    aliases=("GRL", "generation-augmented representation learning", "direct preference optimisation", "GradCache"),
    aspects={"task": "retrieval", "method": "joint contrastive and generative training of a decoder",
             "data": "queries with relevant passages"},
    headline="GRL beats contrastive training alone on MTEB for decoders of 1.5B to 8B parameters, and that beats "
             "preference training alone",
    claims=(
        Claim("vectors and likelihoods rank held-out candidates more alike after training with the agreement loss",
              key="agreement", task="topics", metric="spearman", baseline="without agreement", seeds=5),
        Claim("at a loss of no more than a point of nDCG@10", key="ranking-kept", task="topics", metric="ndcg@10",
              baseline="without agreement", margin=-0.01, seeds=5),
        Claim("GRL ranks better than contrastive training alone", key="beats-contrastive", task="topics",
              metric="ndcg@10", baseline="contrastive", seeds=5),
        Claim("contrastive training alone ranks better than preference training alone",
              key="contrastive-beats-preference", task="topics", metric="ndcg@10", baseline="preference", seeds=5),
        Claim("gradients of a batch in chunks are those of the whole batch", key="grad-cache", invariant=True),
        Claim("in causal mode the model is the unmodified one", key="causal-mode", invariant=True),
        Claim("in bidirectional mode the first token sees the last", key="bidirectional-mode", invariant=True),
    ),
    presets={
        "smoke": {
            "seeds": 2, "start": (4, 6), "size": (3, 3), "judged": 24, "decoder": "tiny", "layers": 2, "lora": 0,
            "text_start": 2, "text_steps": 2, "text_batch": 4, "text_negatives": 1, "text_queries": 12, "text_lr": 1e-4,
            "chunk": 2, "query_length": 16, "passage_length": 24,
        },
        "laptop": {
            "seeds": 5, "start": (200, 64), "size": (240, 8), "judged": 128, "decoder": "smollm2", "layers": 2,
            "lora": 0, "text_start": 100, "text_steps": 12, "text_batch": 8, "text_negatives": 1, "text_queries": 24,
            "text_lr": 2e-4, "chunk": 4, "query_length": 16, "passage_length": 32,
        },
        "paper": {
            "seeds": 5, "start": (200, 64), "size": (240, 8), "judged": 128, "decoder": "mistralai/Mistral-7B-v0.1",
            "layers": None, "lora": 16, "text_start": 0, "text_steps": 1000, "text_batch": 32, "text_negatives": 1,
            "text_queries": 0, "text_lr": 1e-4, "chunk": 1, "query_length": 128, "passage_length": 512,
        },
    },
)  # fmt: skip

LR, SPREAD, QUERY, PASSAGE, NEGATIVES = 1e-3, 4.0, 8, 12, 7
GENERATION = GRLConfig(contrast=0, agreement=0, preference="sft")  # what a language model can do already
SYSTEMS = {
    "GRL": GRLConfig(),
    "without agreement": GRLConfig(agreement=0),
    "contrastive": GRLConfig(generation=0, agreement=0),
    "preference": GRLConfig(contrast=0, agreement=0),
}


def plan(tuning: Tuning) -> Plan:
    """NT-Xent with a label matrix: every text of the batch is an anchor, against all texts of other classes."""
    if tuning.kind == "sts":
        raise InputError("NT-Xent needs pairs, triplets or classes; scored pairs have no negatives.")
    return Plan(NTXent(tuning.model, temperature=0.05), note="without generation, which an encoder cannot do")


def run(lab: Lab) -> Outcome:
    """Compare four trainings on topics, then run the losses on text."""
    outcome = Outcome()
    invariants(outcome)
    on_topics(lab, outcome)
    on_text(lab, outcome)
    return outcome


def on_topics(lab: Lab, outcome: Outcome) -> None:
    """Train tiny decoders four ways: the units are seeds."""
    task = TopicTask()
    held = topic_groups(task, lab.config["judged"], seed=10**6)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for seed in lab.seeds:
        lm = generator(lab, task, seed)
        for name, config in {"before": None, **SYSTEMS}.items():
            lab.progress(f"topics, {name}", seed, len(lab.seeds))
            model = GRL(copy.deepcopy(lm), prompt=around(task), config=config, seed=seed)
            if config is not None:
                fit_topics(model, task, lab.config["size"], LR, seed)
            for metric, value in judge(model, held).items():
                found.setdefault(name, {}).setdefault(metric, {})[f"seed {seed}"] = value
    scores = {name: Scores.of("topics", name, by_metric) for name, by_metric in found.items()}
    outcome.compare("agreement", scores["GRL"], scores["without agreement"], metric="spearman")
    outcome.compare("ranking-kept", scores["GRL"], scores["without agreement"], metric="ndcg@10")
    outcome.compare("beats-contrastive", scores["GRL"], scores["contrastive"], metric="ndcg@10")
    outcome.compare("contrastive-beats-preference", scores["contrastive"], scores["preference"], metric="ndcg@10")
    for name, s in scores.items():
        outcome.fact(f"topics, {name}", {metric: round(s.mean(metric), 4) for metric in s.metric_names})
    shown = {"spearman": "agreement of both scores (Spearman)", "ndcg@10": "nDCG@10 by vectors"}
    bars = {label: [(name, s.mean(metric)) for name, s in scores.items()] for metric, label in shown.items()}
    outcome.plot("topics", Plot("Held-out candidates, ranked twice", "training", "", bars, kind="bar"))


def topic_groups(task: TopicTask, n: int, *, seed: int, negatives: int = NEGATIVES) -> list[QueryGroup]:
    """Draw queries, each with a passage of its topic and passages of other topics, which may share some words."""
    rng = np.random.default_rng([task.seed, seed, 1])
    queries, topics = task.texts(n, QUERY, seed=3 * seed)
    positives, _ = task.texts(n, PASSAGE, seed=3 * seed + 1, topics=topics)
    others = (topics.repeat(negatives) + rng.integers(1, task.topics, size=n * negatives)) % task.topics
    stray, _ = task.texts(n * negatives, PASSAGE, seed=3 * seed + 2, topics=others)
    rows = zip(queries.tolist(), positives.tolist(), stray.reshape(n, negatives, PASSAGE).tolist(), strict=True)
    return [QueryGroup(query, [positive], apart) for query, positive, apart in rows]


def generator(lab: Lab, task: TopicTask, seed: int) -> Any:
    """Make a tiny decoder that already generates, as every language model does before it is made an embedder."""
    lm = tiny_decoder(task.vocabulary + 2, seed=seed)
    with torch.no_grad():
        for weight in lm.parameters():
            if weight.ndim == 2:
                weight.mul_(SPREAD)  # the usual width of initial weights suits models ten times as wide
    fit_topics(GRL(lm, prompt=around(task), config=GENERATION), task, lab.config["start"], 2 * LR, seed)
    return lm


def around(task: TopicTask) -> GenerationPrompt:
    """One token of its own before the query, and one behind it."""
    return GenerationPrompt([task.vocabulary], [task.vocabulary + 1])


def fit_topics(model: GRL, task: TopicTask, size: tuple[int, int], lr: float, seed: int) -> GRL:
    """Train for some steps on batches of some groups, never the same ones twice."""
    (steps, batch), plain = size, model.config.preference == "sft"
    first = 1 + 10_000 * seed + 5_000 * plain

    def loss(model: nn.Module, step: int) -> Tensor:
        negatives = 0 if plain else NEGATIVES
        value: Tensor = model(topic_groups(task, batch, seed=first + step, negatives=negatives))
        return value

    train(model, range(steps), loss, steps=steps, lr=lr, seed=seed)
    return model


@torch.no_grad()
def judge(model: GRL, groups: Sequence[QueryGroup]) -> dict[str, float]:
    """Rank candidates by vectors and by likelihood: rank correlation and divergence of both, and nDCG@10 of each."""
    model.eval()
    by_vector, by_likelihood = [], []
    for start in range(0, len(groups), 16):
        part = groups[start : start + 16]
        vectors = torch.split(model.vectors([t for g in part for t in g.texts]), [len(g.texts) for g in part])
        by_vector += [(v[1:] @ v[0]).numpy() for v in vectors]
        queries = [g.query for g in part for _ in g.passages]
        means = model.likelihoods(queries, [p for g in part for p in g.passages])
        by_likelihood += [m.numpy() for m in torch.split(means, [len(g.passages) for g in part])]
    both = list(zip(by_vector, by_likelihood, strict=True))
    rho = [spearmanr(v, m).statistic for v, m in both]
    apart = [float(agreement_loss(*(torch.from_numpy(scores)[None] for scores in pair))) for pair in both]
    gains = {f"ndcg@10{suffix}": ndcg(rows)
             for suffix, rows in (("", by_vector), (" by likelihood", by_likelihood))}  # fmt: skip
    return {"spearman": float(np.nanmean(rho)), "divergence": float(np.mean(apart)), **gains}


def ndcg(scores: Sequence[np.ndarray]) -> float:
    """Mean nDCG@10 of candidates under their scores, the first of each row being the relevant one."""
    found = {str(q): {str(c): float(value) for c, value in enumerate(row)} for q, row in enumerate(scores)}
    return evaluate_run({q: {"0": 1} for q in found}, found, ["ndcg@10"]).mean("ndcg@10")


@dataclass(frozen=True)
class Study:
    """A decoder with the tokens that occur, groups to train on, and candidates to judge by."""

    lm: Any
    prompt: GenerationPrompt
    learn: list[QueryGroup]
    held: list[QueryGroup]
    clusters: list[int]  # of what is learned, by query: a batch of one has harder negatives

    @classmethod
    def of(cls, lab: Lab) -> Study:
        """Read judged queries, give each some other documents, tokenize, and trim the decoder."""
        config, data, rng = lab.config, lab.retrieval("ir/scifact"), np.random.default_rng(0)
        content = {d.id: d.content for d in data.corpus if d.content.strip()}
        relevant = {q: [d for d, g in grades.items() if g > 0 and d in content] for q, grades in data.qrels.items()}
        asked = [q for q, documents in relevant.items() if documents]
        asked = [asked[i] for i in rng.permutation(len(asked))]
        cut = min(config["text_queries"] or len(asked) // 2, len(asked) // 2)
        if not cut:
            raise RecipeError("GRL needs at least two queries with a relevant document: one to learn, one to judge.")
        others = [d for d in content if not any(d in documents for documents in relevant.values())] or list(content)
        decoder = load_decoder(config["decoder"], layers=config["layers"], tokenizer=lab.encoder().model.tokenizer)

        def tokens(texts: Sequence[str], most: int) -> list[list[int]]:
            how = {"add_special_tokens": False, "truncation": True, "max_length": most}
            return decoder.tokenizer(list(texts), **how)["input_ids"]  # type: ignore[no-any-return]

        prompt = GenerationPrompt.of(decoder.tokenizer)
        rows: list[list[Sequence[int]]] = [[prompt.before, prompt.between]]
        for place, query in enumerate(asked):
            count = 7 if place < cut else config["text_negatives"]
            stray = [others[i] for i in rng.choice(len(others), count)]
            passages = tokens([content[d] for d in (relevant[query][0], *stray)], config["passage_length"])
            rows.append([*tokens([data.queries[query]], config["query_length"]), *passages])
        lm, flat = trim_to_rows(decoder.lm, [row for group in rows for row in group])
        groups, start = list[list[list[int]]](), 0
        for group in rows:
            groups.append(flat[start : start + len(group)])
            start += len(group)
        made = [QueryGroup(q, [p], n) for q, p, *n in groups[1:]]
        queries = lab.embed([data.queries[q] for q in asked[cut:]], "query")
        clusters = spherical_kmeans(queries, max(1, len(queries) // (4 * config["text_batch"])))[1].tolist()
        return cls(lm, GenerationPrompt(*groups[0]), made[cut:], made[:cut], clusters)


def on_text(lab: Lab, outcome: Outcome) -> None:
    """Train a cut decoder with and without agreement, one seed, in chunks with cached gradients."""
    study = Study.of(lab)
    if lab.config["text_start"]:  # a language model that lost blocks generates nothing: likelihoods would be noise
        lab.progress("text, generation", 0, None)
        model = GRL(study.lm, prompt=study.prompt, config=GENERATION)
        fit_text(lab, study, model, lab.config["text_start"], LR)
    plain = [group.positives[0] for group in study.held if len(group.positives[0]) > 1]
    for name, config in {"before training": None, **{n: SYSTEMS[n] for n in ("GRL", "without agreement")}}.items():
        lab.progress(f"text, {name}", 0, None)
        lm = copy.deepcopy(study.lm)
        if lab.config["lora"]:
            add_lora(lm, r=lab.config["lora"], alpha=2 * lab.config["lora"])
        model = GRL(lm, prompt=study.prompt, config=config)
        if config is not None:
            fit_text(lab, study, model, lab.config["text_steps"], lab.config["text_lr"])
        found = {metric: round(value, 4) for metric, value in judge(model, study.held).items()}
        found["perplexity"] = round(float(perplexity(lm, plain).facts["all_tokens"]), 1)
        outcome.fact(f"text, one relevant of 8, {name}", found)


def fit_text(lab: Lab, study: Study, model: GRL, steps: int, lr: float) -> None:
    """Take steps on accumulated gradients: the contrastive loss sees the whole batch, activations a chunk."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0)
    batches = SourceBatches(study.clusters, min(lab.config["text_batch"], len(study.learn)), drop_last=False)
    model.train()
    with seeded(0):
        for rows in islice(endless(batches), steps):
            optimizer.zero_grad(set_to_none=True)
            model.accumulate([study.learn[i] for i in rows], chunk=lab.config["chunk"])
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()


def endless(batches: SourceBatches) -> Iterator[list[int]]:
    """Go through the batches again and again, each time in another order."""
    for epoch in count():
        batches.set_epoch(epoch)
        yield from batches


def invariants(outcome: Outcome) -> None:
    """Check gradient caching and both modes on a tiny model."""
    task = TopicTask(topics=8, words=6, vocabulary=30)
    lm = tiny_decoder(32, dim=16, heads=2)
    model, groups = GRL(lm, prompt=GenerationPrompt([30], [31])), topic_groups(task, 6, seed=0)
    model(groups).backward()
    whole = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    worst, largest = 0.0, max(float(gradient.abs().max()) for gradient in whole)
    for chunk in (1, 4):
        model.zero_grad()
        model.accumulate(groups, chunk=chunk)
        parts = [p.grad for p in model.parameters() if p.grad is not None]
        worst = max(worst, *(float((a - b).abs().max()) / largest for a, b in zip(parts, whole, strict=True)))
    outcome.invariant("grad-cache", worst < 1e-5, f"largest difference over the largest gradient {worst:.1e}")
    ids = torch.tensor([[30, *groups[0].query, 31, *groups[0].positives[0]]])
    start = 2 + len(groups[0].query)
    with torch.no_grad():
        logits = lm(ids).logits[0, start - 1 : -1].log_softmax(-1)
        expected = logits.gather(1, ids[0, start:, None]).mean()
        gap = float((model.likelihoods([groups[0].query], groups[0].positives)[0] - expected).abs())
    outcome.invariant("causal-mode", gap < 1e-5, f"likelihoods differ by {gap:.1e}")
    for kind in ("causal", "bidirectional"):
        check_attention(lm, kind)
    outcome.invariant("bidirectional-mode", True, "verified by changing tokens, in both modes")
