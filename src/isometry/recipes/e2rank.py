"""E2Rank: the embedding model reads query and candidates in one prompt and ranks them by cosine with its own vectors.

Three studies. *Twin topics*: a query names two topics alike and only its candidates say which one is meant; a small
decoder is trained from scratch with and without the candidates in the prompt. *Feedback*: the classical way to let
first answers speak, Rocchio's query, with an encoder that was never trained for it. *Joint training* of a decoder on
slates of real text, ranked by people's judgments of training queries; it then reranks for other queries as a stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from isometry.data.instructions import query_text
from isometry.data.twin_topics import CANDIDATES, Slates, twin_slates, twin_words
from isometry.encoders import load
from isometry.encoders.backbones import tiny_decoder
from isometry.errors import RecipeError
from isometry.indexes import Exact
from isometry.lab import Card, Claim, Lab, Outcome, Plot
from isometry.modules.attention_mask import run as attend
from isometry.modules.pooling import last_pool
from isometry.modules.quiet import quiet
from isometry.ranking import EmbeddingListwise, Feedback, ListwisePrompt, Retrieve
from isometry.ranking.embedding_listwise import tokens_read
from isometry.tasks.metrics import evaluate_run
from isometry.training import e2rank_loss, train
from isometry.training.cross_encoder import Schedule, batches_of
from isometry.training.embedders import decoder_embedder
from isometry.training.listwise_embedding import slate_scores, train_listwise_embedder
from isometry.types import Embeddings, Hits, Queries, Scores, id_array

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from isometry.data.schemas import Retrieval

CARD = Card(
    slug="e2rank",
    title="E²Rank: Your Text Embedding can Also be an Effective and Efficient Listwise Reranker",
    arxiv="2510.22733",
    year=2025,
    kind="system",
    summary=(
        "Query and first-stage candidates are written into one prompt and embedded by the same model that embedded "
        "the documents; candidates are sorted by cosine between that vector and their own, which the index already "
        "holds. One pass over a long prompt replaces a pass per candidate, and the model learns pseudo-relevance "
        "feedback: a RankNet loss on such prompts is added to the contrastive loss on plain queries."
    ),
    mechanism=(
        "isometry.ranking.embedding_listwise:EmbeddingListwise",
        "isometry.ranking.embedding_listwise:ListwisePrompt",
        "isometry.training.listwise_embedding:e2rank_loss",
        "isometry.training.listwise_embedding:train_listwise_embedder",
    ),
    parts=(
        "isometry.objectives.ranking:ranknet",
        "isometry.ranking.feedback:Feedback",
        "isometry.ranking.feedback:rocchio",
        "isometry.data.twin_topics:twin_slates",
        "isometry.encoders.backbones:tiny_decoder",
        "isometry.training.embedders:decoder_embedder",
        "isometry.modules.attention_mask:run",
        "isometry.modules.pooling.plain:last_pool",
    ),
    needs=("retrieval",),
    aliases=("listwise reranking", "enhanced query", "pseudo-relevance feedback", "E2Rank", "RankNet"),
    aspects={"task": "reranking", "method": "listwise prompts scored by cosine", "data": "ranked slates of documents"},
    headline="Best nDCG@10 on BEIR's reranking subset at each size, at a fraction of generative rerankers' cost",
    claims=(
        Claim(
            "with the candidates in its prompt a query is ranked better than alone, where they say what it means",
            key="candidates-help",
            task="twin topics",
            metric="precision@5",
            baseline="plain query",
            margin=0.15,
            seeds=3,
        ),
        Claim(
            "a plain query stays below 0.8 on average, the most to be had without knowing which twin is meant",
            key="plain-is-bounded",
            task="twin topics",
            metric="precision@5",
            baseline="0.8",
            sign="<",
            seeds=3,
        ),
        Claim(
            "without any training, moving the query towards its first three documents finds more",
            key="feedback",
            task="ir/cranfield",
            metric="ndcg@10",
            baseline="plain query",
        ),
        Claim("reranking returns the candidates it was given, each once", key="permutation", invariant=True),
        Claim("a window that holds the list gives the same as one pass", key="window", invariant=True),
        Claim("the prompt is read once: no more tokens than a cross-encoder reads", key="fewer-tokens", invariant=True),
    ),
    presets={
        "smoke": {"seeds": 1, "topics": 32, "steps": 8, "batch": 16, "tests": 40, "docs": 40, "queries": 20,
                  "listwise": 5, "backbone": "tiny", "layers": 0, "joint_steps": 2, "joint_lr": 1e-3, "rows": 2,
                  "slate": 4, "chars": 100, "room": 512},
        "laptop": {"seeds": 3, "topics": 32, "steps": 120, "batch": 32, "tests": 200, "docs": 0, "queries": 0,
                   "listwise": 30, "backbone": "smollm2", "layers": 8, "joint_steps": 60, "joint_lr": 5e-5, "rows": 2,
                   "slate": 5, "chars": 200, "room": 1024},
        "paper": {"seeds": 3, "topics": 32, "steps": 400, "batch": 32, "tests": 1000, "docs": 0, "queries": 0,
                  "listwise": 0, "backbone": "Qwen/Qwen3-0.6B", "layers": 0, "joint_steps": 1500, "joint_lr": 5e-6,
                  "rows": 128, "slate": 20, "chars": 4000, "room": 32_000},
    },
)  # fmt: skip

P5, NDCG = "precision@5", "ndcg@10"
TASK = "Given a question, retrieve documents that answer it"


def run(lab: Lab) -> Outcome:
    """Train on twin topics, feed back first answers, and rerank real candidates."""
    outcome = Outcome()
    twins(lab, outcome)
    data = lab.retrieval("ir/cranfield")
    feedback(lab, data, outcome)
    joint(lab, data, outcome)
    return outcome


class TwinRanker(nn.Module):
    """A small decoder that embeds documents, and prompts of candidates and query, by their last token."""

    def __init__(self, topics: int, seed: int) -> None:
        super().__init__()
        words = twin_words(topics)
        self.begin, self.ask, self.end = words, words + 1, words + 2
        self.body = tiny_decoder(words + 3, dim=64, layers=2, heads=4, seed=seed).base_model

    def embed(self, ids: Tensor) -> Tensor:
        """Vectors ``[n, d]`` of token ids ``[n, t]``, an end token behind each."""
        ids = torch.cat([ids, torch.full((len(ids), 1), self.end)], 1)
        mask = torch.ones_like(ids)
        return last_pool(attend(self.body, mask, input_ids=ids, kind="causal"), mask)

    def forward(self, slates: Slates, rows: list[int], shown: int) -> tuple[Tensor, Tensor]:
        """Vectors ``[b, d]`` of prompts that show the first candidates, and ``[b, k, d]`` of all candidates."""
        docs = slates.docs[rows]
        b, k, t = docs.shape
        marked = torch.cat([torch.full((b, shown, 1), self.begin), docs[:, :shown]], 2).reshape(b, shown * (t + 1))
        prompt = torch.cat([marked, torch.full((b, 1), self.ask), slates.queries[rows]], 1)
        return self.embed(prompt), self.embed(docs.reshape(b * k, t)).reshape(b, k, -1)

    @torch.no_grad()
    def precision(self, slates: Slates, shown: int) -> np.ndarray:
        """Precision at 5 of every slate."""
        self.eval()
        parts = []
        for start in range(0, len(slates.queries), 100):
            rows = list(range(start, min(start + 100, len(slates.queries))))
            top = slate_scores(*self(slates, rows, shown)).topk(5, 1).indices
            parts.append(slates.relevant[rows].gather(1, top).float().mean(1))
        return torch.cat(parts).numpy()


def twins(lab: Lab, outcome: Outcome) -> None:
    """Train with and without candidates in the prompt; scores are means over seeds, units are queries."""
    config = lab.config
    test = twin_slates(config["topics"], config["tests"], seed=10_000)
    values: dict[str, list[np.ndarray]] = {"candidates in the prompt": [], "plain query": []}
    curves: dict[str, list[tuple[int, float]]] = {name: [] for name in values}
    shown_curve = []
    for seed in lab.seeds:
        for name, found in values.items():
            lab.progress(f"twin topics, {name}", seed, len(lab.seeds))
            shown = CANDIDATES if name.startswith("candidates") else 0
            watch = curves[name] if seed == lab.seeds[0] else None
            model = fit_twins(lab, seed, shown, test, watch)
            found.append(model.precision(test, shown))
            if shown and seed == lab.seeds[0]:
                shown_curve = [(k, float(model.precision(test, k).mean())) for k in range(0, CANDIDATES + 1, 2)]
    scores = {
        name: Scores.of("twin topics", name, {P5: {str(i): float(v) for i, v in enumerate(np.mean(found, 0))}})
        for name, found in values.items()
    }
    outcome.compare("candidates-help", scores["candidates in the prompt"], scores["plain query"])
    outcome.compare("plain-is-bounded", scores["plain query"], 0.8)
    outcome.fact("precision@5 on twin topics", {name: round(s.mean(P5), 4) for name, s in scores.items()})
    outcome.fact(
        "precision@5 by documents shown to the model trained with ten", {str(k): round(y, 4) for k, y in shown_curve}
    )
    outcome.plot("twins", Plot("Twin topics", "step", "precision@5", curves))
    outcome.plot("shown", Plot("Candidates shown to the trained model", "documents in the prompt", "precision@5",
                               {"trained with ten": shown_curve}))  # fmt: skip


def fit_twins(lab: Lab, seed: int, shown: int, test: Slates, watch: list[tuple[int, float]] | None) -> TwinRanker:
    """Train a small decoder by RankNet on fresh slates; ``watch`` collects (step, precision)."""
    config = lab.config
    model = TwinRanker(config["topics"], seed)
    slates = twin_slates(config["topics"], config["steps"] * config["batch"], seed)
    ranks = 2 - slates.relevant.long()
    order = batches_of(len(ranks), config["batch"], seed)
    some = Slates(test.queries[:100], test.docs[:100], test.relevant[:100])

    def loss(module: nn.Module, rows: list[int]) -> Tensor:
        enhanced, docs = model(slates, rows, shown)
        return e2rank_loss(None, enhanced, docs, ranks[rows], weight=1.0)

    def report(done: int, total: int | None) -> None:
        if watch is not None and done % max(1, config["steps"] // 8) == 0:
            watch.append((done, float(model.precision(some, shown).mean())))
            model.train()

    train(model, order, loss, steps=config["steps"], lr=1e-3, seed=seed, progress=report)
    return model


def feedback(lab: Lab, data: Retrieval, outcome: Outcome) -> None:
    """Compare plain search, Rocchio's query and an untrained encoder as listwise reranker on real text."""
    config, encoder = lab.config, lab.encoder()
    asked = list(data.qrels)[: config["queries"] or None]
    judged = {d for q in asked for d, grade in data.qrels[q].items() if grade > 0}
    limit = config["docs"] or len(data.corpus)
    corpus = sorted(data.corpus, key=lambda d: d.id not in judged)[:limit]
    kept = {d.id for d in corpus}
    qrels = {q: {d: g for d, g in data.qrels[q].items() if d in kept} for q in asked}
    qrels = {q: grades for q, grades in qrels.items() if any(g > 0 for g in grades.values())}
    if len(qrels) < 5:
        raise RecipeError(f"Reranking needs at least 5 judged queries, got {len(qrels)}.")
    texts = {d.id: d.content or d.id for d in corpus}
    docs = Embeddings(lab.embed(list(texts.values())), id_array(texts), encoder.space, role="document")
    vectors = dict(zip(texts, docs.vectors, strict=True))
    words = [data.queries[q] for q in qrels]
    asking = Embeddings(lab.embed(words, "query"), id_array(qrels), encoder.space, role="query")
    queries = Queries(asking.ids, words, asking)
    index = Exact.of(docs)
    first = Retrieve(None, index, k=100)
    task = "ir/cranfield" if lab.user_data is None else lab.user_data.name

    def score(hits: Hits, name: str) -> Scores:
        return evaluate_run(qrels, hits, [NDCG], task=task, system=name)

    plain = score(hits := first(queries), "plain query")
    curve = []
    for beta in (0.25, 0.5, 1.0, 2.0):
        found = score((first >> Feedback(None, index, vectors=vectors, beta=beta))(queries), f"feedback, beta {beta}")
        curve.append((beta, found.mean(NDCG)))
        if beta == 0.5:
            outcome.compare("feedback", found, plain)
    outcome.fact("ndcg@10 on real text", {"plain": round(plain.mean(NDCG), 4)} | {
        f"feedback, beta {beta}": round(y, 4) for beta, y in curve
    })  # fmt: skip
    outcome.plot("feedback", Plot("Rocchio's query of three documents", "beta", "nDCG@10", {
        "feedback": curve, "plain query": [(beta, plain.mean(NDCG)) for beta, _ in curve]
    }))  # fmt: skip
    some = Queries(queries.ids[: config["listwise"] or None], words[: config["listwise"] or None])
    untrained(lab, some, hits, texts, vectors, qrels, outcome)


def untrained(
    lab: Lab, queries: Queries, hits: Hits, texts: Mapping[str, str], vectors: Mapping[str, Any],
    qrels: Mapping[str, Mapping[str, int]], outcome: Outcome,
) -> None:  # fmt: skip
    """Rerank with an encoder never trained on prompts: what must hold of any reranker, and what training is for."""
    encoder = lab.encoder()
    hits = Hits.build(queries.ids, [hits.row(i)[:10] for i in range(len(queries))])
    parts: dict[str, Any] = {"texts": texts, "vectors": vectors, "depth": 10}
    once = EmbeddingListwise(encoder, prompt=ListwisePrompt(documents=5), **parts)(queries, hits)
    same = all(sorted(once.ids[once.span(i)]) == sorted(hits.ids[hits.span(i)]) for i in range(len(hits)))
    outcome.invariant("permutation", same, f"{len(hits)} lists of 10")
    wide = EmbeddingListwise(encoder, prompt=ListwisePrompt(documents=5), window=(10, 5), **parts)(queries, hits)
    outcome.invariant("window", wide.ids.tolist() == once.ids.tolist(), f"{len(hits)} lists of 10")
    counts = {i: int(n) for i, n in zip(texts, encoder.count_tokens(list(texts.values())), strict=True)}
    asked = encoder.count_tokens(list(queries.texts))
    costs = [tokens_read(int(asked[i]), [counts[d] for d in hits.ids[hits.span(i)]]) for i in range(len(hits))]
    mean = {name: float(np.mean([cost[name] for cost in costs])) for name in costs[0]}
    fewer = all(cost["listwise"] <= cost["cross-encoder"] for cost in costs)
    outcome.invariant("fewer-tokens", fewer, ", ".join(f"{name} {n:.0f} tokens a query" for name, n in mean.items()))
    few = {q: qrels[q] for q in queries.ids}
    for name, run_ in {"first stage": hits, "listwise, untrained encoder": once}.items():
        outcome.fact(f"ndcg@10 of ten candidates, {name}", round(evaluate_run(few, run_, [NDCG]).mean(NDCG), 4))


def joint(lab: Lab, data: Retrieval, outcome: Outcome) -> None:
    """Train a decoder on slates of half of the queries; rerank those of the other half with it, as a stage."""
    config = lab.config
    model = decoder_embedder(
        config["backbone"], layers=config["layers"] or None, max_length=config["room"],
        tokenizer=lab.encoder().model.tokenizer, attention="causal", pooling="lasttoken",
    )  # fmt: skip
    tokenizer = model[0].tokenizer
    prompt = ListwisePrompt(documents=config["slate"]).in_chat(tokenizer)
    texts = {d.id: d.content[: config["chars"]] for d in data.corpus[: config["docs"] or None] if d.content}
    slates = first_stage(lab, texts, {q: data.queries[q] for q in data.qrels}, config["slate"])
    grades = {q: {d: data.qrels[q].get(d, 0) for d in slate} for q, slate in slates.items()}
    asked = [q for q, known in grades.items() if 0 < sum(grade > 0 for grade in known.values()) < len(known)]
    if len(asked) < 4:
        outcome.fact("joint training", f"left out: {len(asked)} slates hold both what is relevant and what is not")
        return
    half = len(asked) // 2
    learn, held = asked[:half], asked[half:][: config["listwise"] or None]

    def spans(text: str) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)[
            "offset_mapping"
        ]
        return found

    def write(query: str, documents: Sequence[str]) -> str:
        return prompt.fit(query, documents, spans=spans, max_tokens=config["room"] - 2)

    judge = partial(judge_joint, {q: data.queries[q] for q in held}, slates, texts, grades, prompt)
    before = judge(model)
    losses = train_listwise_embedder(
        model, [data.queries[q] for q in learn], [[texts[d] for d in slates[q]] for q in learn],
        [teacher_ranks(grades[q], slates[q]) for q in learn],
        Schedule(config["joint_steps"], config["rows"], lr=config["joint_lr"], warmup=0.03),
        write=write, ask=partial(query_text, TASK, style="qwen3"), progress=partial(lab.progress, "joint training"),
    )  # fmt: skip
    tenth = max(1, len(losses) // 10)
    outcome.fact("joint loss, first and last tenth", [round(float(np.mean(x)), 3) for x in
                                                      (losses[:tenth], losses[-tenth:])])  # fmt: skip
    after = judge(model)
    outcome.fact(f"ndcg@10 of {len(held)} held-out slates of {config['slate']}, before joint training", before)
    outcome.fact(f"ndcg@10 of {len(held)} held-out slates of {config['slate']}, after joint training", after)
    outcome.plot("joint", Plot("Reranking held-out slates of real text", "", "nDCG@10", {
        name: list(values.items()) for name, values in (("before", before), ("after joint training", after))
    }, kind="bar"))  # fmt: skip


def first_stage(lab: Lab, texts: Mapping[str, str], queries: Mapping[str, str], k: int) -> dict[str, list[str]]:
    """The first candidates of every query, by the lab's own encoder."""
    space = lab.encoder().space
    docs = Embeddings(lab.embed(list(texts.values())), id_array(texts), space)
    found = Exact.of(docs).search(Embeddings(lab.embed(list(queries.values()), "query"), id_array(queries), space), k)
    return {query: [d for d, _ in found.row(i)] for i, query in enumerate(queries)}


def teacher_ranks(grades: Mapping[str, int], slate: list[str]) -> list[int]:
    """Ranks from 1: by grade, then as the first stage had them; of training queries only."""
    order = sorted(range(len(slate)), key=lambda place: (-grades.get(slate[place], 0), place))
    return [order.index(place) + 1 for place in range(len(slate))]


def judge_joint(
    queries: Mapping[str, str], slates: Mapping[str, list[str]], texts: Mapping[str, str],
    grades: Mapping[str, Mapping[str, int]], prompt: ListwisePrompt, model: SentenceTransformer,
) -> dict[str, float]:  # fmt: skip
    """Rerank slates with a model read back from its folder: by the query alone, and by prompts in three orders."""
    with TemporaryDirectory() as folder:
        with quiet():
            model.save(folder)
        encoder = load(folder, engine="torch", trust_remote_code=True)
    few = Queries.of(queries)
    hits = Hits.build(few.ids, [[(d, -float(i)) for i, d in enumerate(slates[q])] for q in queries])
    shown = {d: texts[d] for q in queries for d in slates[q]}
    vectors = dict(zip(shown, encoder.encode_document(list(shown.values())), strict=True))
    runs = {"first stage": hits}
    ways = {
        "query alone": replace(prompt, documents=0),
        "documents as found": prompt,
        "documents reversed": replace(prompt, order="reversed"),
        "documents at random": replace(prompt, order="random"),
    }
    for name, way in ways.items():
        runs[name] = EmbeddingListwise(encoder, texts=shown, vectors=vectors, prompt=way)(few, hits)
    kept = {q: grades[q] for q in queries}
    return {name: round(evaluate_run(kept, run_, [NDCG]).mean(NDCG), 4) for name, run_ in runs.items()}
