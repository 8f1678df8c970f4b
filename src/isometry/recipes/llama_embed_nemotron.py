"""Llama-Embed-Nemotron: which negatives a batch should hold, what averaging of checkpoints gives, who wins by Borda.

Heads on frozen features of layer 2 stand in for the 8B model. Four fine-tunes of one start, on different data mixes and
seeds, are averaged; four losses that differ in their candidates alone are compared, on rows of both tasks, so that
heads get better than what they stand on; the standings over tasks come from a Borda count. An exact copy of the
positive among many candidates halves the weight of all the others in its row and does nothing else to the gradient:
what masking it can win is small. The system itself, a bidirectional decoder trained in two stages and averaged over
runs, is built and trained beside them, on a laptop for as many steps as show that it works.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from isometry.data.converters import Row
from isometry.data.instructions import query_text
from isometry.errors import InputError
from isometry.lab import Card, Claim, Lab, Outcome, Plot
from isometry.lab.head_bench import HeadBench, Rows, State, fit, four_fine_tunes, prepare, usual
from isometry.negatives import Relative, mine
from isometry.negatives.five_term import NEGATIVE_SETS, hard_negative_loss
from isometry.objectives import InfoNCE
from isometry.stats import compare, standings
from isometry.training import Plan, Tuning, add_lora, decoder_embedder, default_loss, merge_lora, merge_models
from isometry.training.cross_encoder import Schedule
from isometry.training.merging import average, loss_barrier
from isometry.training.stages import TrainingStage, train_in_stages
from isometry.types import Scores

CARD = Card(
    slug="llama-embed-nemotron",
    title="Llama-Embed-Nemotron-8B: A Universal Text Embedding Model for Multilingual and Cross-Lingual Tasks",
    arxiv="2511.07025",
    year=2025,
    kind="system",
    summary=(
        "A decoder made bidirectional, pooled by the mean and trained with an instruction before queries, first on "
        "broad retrieval pairs, then on public and synthetic rows of many tasks. Its contrastive loss looks at each "
        "row's own hard negatives alone; sets with in-batch, same-tower and masked negatives are compared with it. "
        "The final weights are the plain average of several checkpoints trained on different mixes, and models are "
        "ranked by a Borda count over tasks."
    ),
    mechanism=("isometry.training.merging.states:average", "isometry.negatives.five_term:hard_negative_loss"),
    parts=(
        "isometry.objectives.info_nce:info_nce",
        "isometry.negatives.mining:mine",
        "isometry.negatives.margins:Relative",
        "isometry.training.merging.barrier:loss_barrier",
        "isometry.training.merging.models:merge_models",
        "isometry.training.embedders:decoder_embedder",
        "isometry.training.stages:train_in_stages",
        "isometry.stats.borda:standings",
        "isometry.data.synthesis.pipeline:synthesise",
    ),
    needs=("sts", "labelled"),
    aliases=("model soup", "checkpoint averaging", "Borda count", "hard negatives only"),
    aspects={
        "task": "general embedding",
        "method": "averaged fine-tunes, hard negatives",
        "data": "public and synthetic",
    },
    headline="First on multilingual MTEB by Borda count on 21 October 2025",
    claims=(
        Claim("the average of four fine-tunes of one start beats the mean of the four over both tasks",
              key="beats-mean-of-singles", task="macro", metric="macro", baseline="mean of the four", seeds=10),
        Claim("it beats the best single one over both tasks",
              key="beats-best-single", task="macro", metric="macro", baseline="best of the four", seeds=10),
        Claim("with copies of the positive among the negatives of a quarter of the rows, the masked loss beats the "
              "unmasked one with in-batch negatives",
              key="mask-beats-planted", task="macro", metric="macro", baseline="batch, no mask", seeds=10),
        Claim("of that, the mask does it: the same candidates without a mask are worse",
              key="mask-alone", task="macro", metric="macro", baseline="all candidates, no mask", seeds=10),
        Claim("with own negatives alone, a row's gradient knows no other row", key="own-rows-apart", invariant=True),
        Claim("the average of copies is the model, in any order", key="average-identity", invariant=True),
        Claim("Borda points add up to tasks x models x (models - 1) / 2", key="borda-total", invariant=True),
    ),
    presets={
        "smoke": {
            "seeds": 2, "rows": 64, "classes": 6, "test": 60, "start": 12, "tune": 8, "loss": 12, "batch": 16,
            "backbone": "tiny", "layers": 2, "max_length": 32, "runs": 2, "stages": ((2, 1e-3, 1), (2, 5e-4, 4)),
            "system_batch": 4, "pairs": 24, "lora": (4, 8, 0.1), "weight_decay": 0.0,
        },
        "laptop": {
            "seeds": 10, "rows": 0, "classes": 0, "test": 1000, "start": 240, "tune": 120, "loss": 400, "batch": 32,
            "backbone": "smollm2", "layers": 4, "max_length": 40, "runs": 2, "stages": ((20, 1e-3, 1), (15, 5e-4, 4)),
            "system_batch": 8, "pairs": 200, "lora": (16, 32, 0.1),
            "weight_decay": 0.0,
        },
        "paper": {
            "seeds": 10, "rows": 0, "classes": 0, "test": 3080, "start": 3000, "tune": 1500, "loss": 6000, "batch": 128,
            "backbone": "meta-llama/Llama-3.1-8B", "layers": None, "max_length": 512, "runs": 6,
            "stages": ((90000, 1e-5, 1), (35000, 2e-6, 4)), "system_batch": 128, "pairs": 0, "lora": None,
            "weight_decay": 0.01,
        },
    },
)  # fmt: skip

TEMPERATURE, LR, HARD, RANKS = 0.02, 1e-3, 4, 30
FINE_TUNES = ("A", "B", "C", "D")
TASKS = {  # instructions
    "similarity": "Retrieve sentences of the same meaning",
    "classes": "Given a banking question, retrieve questions of the same intent",
}
Judged = dict[str, dict[str, dict[str, float]]]  # by seed, model and task


def plan(tuning: Tuning) -> Plan:
    """Train four models with different seeds, on hard negatives alone where rows have them, and average the weights."""
    if tuning.kind == "triplets":
        loss: nn.Module = hard_negative_loss(tuning.model, temperature=TEMPERATURE)
        return Plan(loss, runs=4, note="own hard negatives alone; the average of four runs")
    return Plan(default_loss(tuning.model, tuning.kind), runs=4, note="the average of four runs")


def run(lab: Lab) -> Outcome:
    """Average fine-tunes, rank them by Borda, compare four sets of negatives, plant false negatives."""
    outcome, config = Outcome(), lab.config
    bench = prepare(lab, rows=config["rows"], classes=config["classes"], test=config["test"])
    outcome.fact("tasks", bench.tasks)
    merging(lab, bench, outcome)
    rows = hard_rows(lab, bench)
    again = sum(len(set(own)) < HARD for part in rows for own in zip(*part.texts[2:], strict=True))
    outcome.fact("rows whose hard negatives are too few, so that some come again", f"{again} of {sum(map(len, rows))}")
    compare_losses(lab, bench, rows, outcome)
    plant(lab, bench, rows, outcome)
    check_own_rows(rows[0], outcome)
    if lab.user_data is None:
        system(lab, rows, outcome)
    return outcome


def merging(lab: Lab, bench: HeadBench, outcome: Outcome) -> None:
    """Train four heads from one start, average them, judge all; the units of the claims are seeds."""
    config, by_seed = lab.config, Judged()
    for seed in lab.seeds:
        lab.progress("merging", len(by_seed), len(lab.seeds))
        start, copies = four_fine_tunes(
            bench, seed, start=config["start"], tune=config["tune"], batch=config["batch"], lr=LR
        )
        heads = {"start": start, **dict(zip(FINE_TUNES, copies, strict=True))}
        state = average([heads[name].state_dict() for name in FINE_TUNES])
        heads["average"] = bench.head(state=state)
        by_seed[f"seed {seed}"] = {name: bench.judge(head) for name, head in heads.items()}
        if seed == lab.seeds[0]:
            barriers(bench, heads, outcome)
            check_average(state, heads["A"].state_dict(), outcome)
    report_merging(by_seed, bench.tasks, outcome)


def report_merging(by_seed: Judged, tasks: list[str], outcome: Outcome) -> None:
    """Macro averages to claims and a table, single values to standings."""
    macro = {
        name: {unit: float(np.mean(list(heads[name].values()))) for unit, heads in by_seed.items()}
        for name in ("start", *FINE_TUNES, "average")
    }
    merged = Scores.of("macro", "average", {"macro": macro["average"]})
    rules: dict[str, tuple[str, Callable[[list[float]], Any]]]
    rules = {"beats-mean-of-singles": ("mean of the four", np.mean), "beats-best-single": ("best of the four", np.max)}
    for key, (name, rule) in rules.items():
        values = {unit: float(rule([macro[single][unit] for single in FINE_TUNES])) for unit in by_seed}
        outcome.compare(key, merged, Scores.of("macro", name, {"macro": values}))
    table = {name: {t: float(np.mean([heads[name][t] for heads in by_seed.values()])) for t in tasks} for name in macro}
    rounded = {name: {task: round(value, 4) for task, value in row.items()} for name, row in table.items()}
    outcome.fact("mean over seeds, by model and task", rounded)
    voters = {name: {f"{t}, {unit}": by_seed[unit][name][t] for unit in by_seed for t in tasks} for name in macro}
    ranked = standings(voters, {f"{task}, {unit}": task for unit in by_seed for task in tasks})
    points = {s.model: [s.rank, s.borda, round(s.borda_share, 3)] for s in ranked}
    outcome.fact("Borda, a voter for each task and seed", points)
    total, wanted = sum(s.borda for s in ranked), ranked[0].tasks * len(macro) * (len(macro) - 1) / 2
    outcome.invariant("borda-total", total == wanted, f"{total:g} points, expected {wanted:g}")
    x, y = tasks[0], tasks[-1]
    series = {name: [(heads[name][x], heads[name][y]) for heads in by_seed.values()] for name in macro}
    outcome.plot("merging", Plot("Four fine-tunes of one start and their average, by seed", x, y, series, "scatter"))


def barriers(bench: HeadBench, heads: dict[str, nn.Module], outcome: Outcome) -> None:
    """Loss along the line between two fine-tunes of one start, and to a copy whose hidden units are permuted."""
    rows = bench.rows(0)[0]
    batch = list(range(min(256, len(rows))))

    def loss(state: State) -> float:
        with torch.no_grad():
            return float(rows.loss(bench.head(state=state), usual(rows), batch))

    permuted = dict(heads["C"].state_dict())
    order = torch.randperm(len(permuted["0.weight"]), generator=torch.Generator().manual_seed(0))
    permuted |= {"0.weight": permuted["0.weight"][order], "0.bias": permuted["0.bias"][order]}
    permuted["2.weight"] = permuted["2.weight"][:, order]
    ends = {"C, same start": heads["C"].state_dict(), "C, units permuted": permuted}
    series = {}
    for name, state in ends.items():
        line = loss_barrier(heads["A"].state_dict(), state, loss)
        series[name] = list(zip(line.points, line.losses, strict=True))
        outcome.fact(f"loss barrier from A to {name}", round(line.height, 4))
    outcome.plot("barrier", Plot("Loss on the line from fine-tune A", "share of the other end", "loss", series))


def check_average(merged: State, one: State, outcome: Outcome) -> None:
    """The average of copies is the model; the order of models is nothing."""
    same = average([one] * 3)
    other = {key: value + 1 for key, value in one.items()}
    there, back = average([one, other, merged]), average([merged, one, other])
    worst = max(float((same[k] - one[k]).abs().max()) + float((there[k] - back[k]).abs().max()) for k in one)
    outcome.invariant("average-identity", worst < 1e-6, f"largest difference {worst:.1e}")


def hard_rows(lab: Lab, bench: HeadBench) -> list[Rows]:
    """Mine hard negatives for the rows of every task, with the whole encoder as the teacher."""
    return [with_hard_negatives(lab, rows) for rows in bench.rows(0)]


def with_hard_negatives(lab: Lab, rows: Rows) -> Rows:
    """Add negatives from the positives of other rows; rows of one class are all positives of each other."""
    left, right = rows.texts
    queries, documents = lab.embed(left), lab.embed(right)
    own = [{i} if rows.labels is None else set(np.flatnonzero(rows.labels == rows.labels[i]).tolist())
           for i in range(len(rows))]  # fmt: skip
    window = (0, min(RANKS, len(rows)))  # where fewer survive than are wanted, some come again
    margin = Relative(0.05) if rows.labels is None else None  # where classes are known, no negative is a false one
    found = mine(queries, documents, own, k=HARD, margin=margin, window=window, texts=(left, right))
    keep = np.flatnonzero(found.complete)
    if len(keep) < lab.config["batch"]:
        raise InputError(f"Hard negatives were found for {len(keep)} rows only; a batch needs {lab.config['batch']}.")
    hard = found.rows[keep].T.tolist()
    columns = [rows.columns[0][keep], rows.columns[1][keep], *(rows.columns[1][column] for column in hard)]
    texts = [[left[i] for i in keep.tolist()], [right[i] for i in keep.tolist()]]
    texts += [[right[i] for i in column] for column in hard]
    return Rows(tuple(columns), tuple(texts), None if rows.labels is None else rows.labels[keep])


def compare_losses(lab: Lab, bench: HeadBench, rows: list[Rows], outcome: Outcome) -> None:
    """Train with each of the four sets of negatives; pairwise differences are reported, no order is claimed."""
    scores = {
        name: train_seeds(lab, bench, rows, hard_negative_loss(negatives=name, temperature=TEMPERATURE), name)
        for name in NEGATIVE_SETS
    }
    untrained = float(np.mean(list(bench.judge(bench.head(0)).values())))
    frozen = float(np.mean(list(bench.judge(nn.Identity()).values())))
    outcome.fact("macro by set of negatives", {name: round(s.mean("macro"), 4) for name, s in scores.items()}
                 | {"untrained head": round(untrained, 4), "features alone": round(frozen, 4)})  # fmt: skip
    for one, other in combinations(NEGATIVE_SETS, 2):
        result = compare(scores[other], scores[one], "macro")
        low, high = result.ci95
        outcome.fact(f"{other} less {one}", f"{result.delta:+.4f} [{low:+.4f}, {high:+.4f}], p = {result.p:.3f}")
    each = [(name, value) for name, s in scores.items() for value in s.by_unit("macro").values()]
    series = {"a seed": each, "mean": [(name, s.mean("macro")) for name, s in scores.items()]}
    outcome.plot("negatives", Plot("Losses by their negatives", "negatives", "macro average", series, "scatter"))


def planted(rows: Rows) -> Rows:
    """Put a copy of the positive, spelled in capitals, among the negatives of a quarter of the rows."""
    chosen = np.random.default_rng(0).permutation(len(rows))[: max(1, len(rows) // 4)]
    features, texts = rows.columns[2].copy(), list(rows.texts[2])
    features[chosen] = rows.columns[1][chosen]
    for i in chosen.tolist():
        texts[i] = rows.texts[1][i].upper()
    columns = (*rows.columns[:2], features, *rows.columns[3:])
    return replace(rows, columns=columns, texts=(*rows.texts[:2], texts, *rows.texts[3:]))


def plant(lab: Lab, bench: HeadBench, rows: list[Rows], outcome: Outcome) -> None:
    """Train on rows with planted false negatives, with and without the mask."""
    copies = [planted(part) for part in rows]
    unmasked = hard_negative_loss(negatives="masked", temperature=TEMPERATURE)
    unmasked.mask = None
    losses = {
        "masked": hard_negative_loss(negatives="masked", temperature=TEMPERATURE),
        "batch, no mask": hard_negative_loss(negatives="batch", temperature=TEMPERATURE),
        "all candidates, no mask": unmasked,
    }
    scores = {name: train_seeds(lab, bench, copies, loss, f"planted, {name}") for name, loss in losses.items()}
    outcome.compare("mask-beats-planted", scores["masked"], scores["batch, no mask"], metric="macro")
    outcome.compare("mask-alone", scores["masked"], scores["all candidates, no mask"], metric="macro")
    outcome.fact("macro with planted copies", {name: round(s.mean("macro"), 4) for name, s in scores.items()})


def train_seeds(lab: Lab, bench: HeadBench, rows: list[Rows], loss: InfoNCE, name: str) -> Scores:
    """Train a head a seed with a loss and judge each by the macro average of the tasks."""
    config, values = lab.config, dict[str, float]()
    for seed in lab.seeds:
        lab.progress(name, len(values), len(lab.seeds))
        schedule = Schedule(config["loss"], config["batch"], LR, seed=seed)
        head = fit(bench.head(seed), rows, lambda _: loss, schedule)
        values[f"seed {seed}"] = float(np.mean(list(bench.judge(head).values())))
    return Scores.of("macro", name, {"macro": values})


def system(lab: Lab, parts: list[Rows], outcome: Outcome) -> None:
    """Train copies of a bidirectional decoder, with an instruction before queries and other rows each, and average."""
    config = lab.config
    start = decoder_embedder(config["backbone"], layers=config["layers"], max_length=config["max_length"],
                             tokenizer=lab.encoder().model.tokenizer)  # fmt: skip
    rows = [Row("retrieval", text, (positive,), tuple(negatives), source=source)
            for part, source in zip(parts, TASKS, strict=True)
            for text, positive, *negatives in zip(*part.texts, strict=True)]  # fmt: skip
    prompts = {source: query_text(task, "") for source, task in TASKS.items()}

    def stage(chosen: list[Row], number: int) -> TrainingStage:
        steps, lr, negatives = config["stages"][number]
        return TrainingStage(chosen, partial(hard_negative_loss, temperature=TEMPERATURE), steps, lr,
                             config["system_batch"], negatives=negatives, prompts=prompts,
                             weight_decay=config["weight_decay"])  # fmt: skip

    def trained(model: SentenceTransformer, chosen: list[Row], number: int, seed: int) -> SentenceTransformer:
        train_in_stages(model, [stage(chosen, number)], seed=seed,
                        progress=lambda d, t: lab.progress(f"decoder, stage {number + 1}", d, t))  # fmt: skip
        return model

    found = {"before training": similarity(lab, start, prompts["similarity"])}
    if config["lora"] is not None:
        rank, alpha, dropout = config["lora"]
        add_lora(start, r=rank, alpha=alpha, dropout=dropout)
    trained(start, rows, 0, 0)
    found["after stage 1"] = similarity(lab, start, prompts["similarity"])
    runs = []
    for seed in range(config["runs"]):
        mix = np.random.default_rng(seed).permutation(len(rows))[: round(0.8 * len(rows))]
        model = trained(copy.deepcopy(start), [rows[i] for i in mix], 1, seed)
        runs.append(model if config["lora"] is None else merge_lora(model))  # averages of factors are no averages
        found[f"after stage 2, run {seed + 1}"] = similarity(lab, runs[-1], prompts["similarity"])
    found["average"] = similarity(lab, merge_models(runs), prompts["similarity"])
    outcome.fact("the system, Spearman of similarity", {name: round(value, 4) for name, value in found.items()})


def similarity(lab: Lab, model: SentenceTransformer, prompt: str) -> float:
    """Rank correlation with people; the task is symmetric, so the instruction stands before both sides."""
    data = lab.sts("sts/stsb")
    some = np.random.default_rng(0).permutation(len(data.left))[: lab.config["pairs"] or None]
    left, right = (model.encode([side[i] for i in some], prompt=prompt, show_progress_bar=False)
                   for side in (data.left, data.right))  # fmt: skip
    return float(spearmanr((left * right).sum(1), data.scores[some]).statistic)


def check_own_rows(rows: Rows, outcome: Outcome) -> None:
    """Change every row but the first: with own negatives alone, its gradient stays."""
    loss = hard_negative_loss(temperature=TEMPERATURE)
    batches = ([0, 1, 2, 3], [0, 4, 5, 6])

    def gradient(batch: list[int]) -> Tensor:
        columns = [torch.from_numpy(column[batch]) for column in rows.columns]
        columns[0].requires_grad_()
        return torch.autograd.grad(loss.compute_loss_from_embeddings(columns), columns[0])[0][0]

    first, second = (gradient(batch) for batch in batches)
    worst = float((first - second).abs().max())
    outcome.invariant("own-rows-apart", worst < 1e-6, f"largest change of the gradient {worst:.1e}")
