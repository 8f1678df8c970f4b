"""Qwen3 Embedding: a five-term loss that masks itself, spherical merging, queries written in two steps, a yes/no judge.

Heads on frozen features of layer 2 stand in for the embedder; the reranker is a small language model cut to its first
blocks; synthetic queries are written by rules, so that every step runs without a large model. A cut model first has to
find its answers again: 62 updates of all weights left it guessing, and in a trial of low-rank adapters, whose figures
on held-out pairs nobody looked at, the loss came down to that of a coin after a hundred. It gets two hundred.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from isometry.data import find
from isometry.data.synthesis import Filters, RuleGenerator, Thesaurus, filter_rows, nearest_personas, synthesise
from isometry.errors import InputError, RecipeError
from isometry.lab import Card, Claim, Lab, Outcome, Plot
from isometry.lab.head_bench import HeadBench, Rows, fit, four_fine_tunes, prepare
from isometry.modules.attention_mask import run as run_body
from isometry.modules.pooling import last_pool
from isometry.modules.yes_no import YesNoModel, YesNoPrompt
from isometry.negatives import AnyOf, guided_mask, same_label
from isometry.negatives.five_term import SelfMask, five_term_loss
from isometry.objectives import Candidates, InfoNCE, Masks, MaskSource, score_blocks
from isometry.tasks.class_separation import class_separation
from isometry.training import Plan, Tuning, apply_head, train_yes_no
from isometry.training.cross_encoder import Schedule
from isometry.training.merging import average, merge_by_slerp, slerp
from isometry.types import FloatArray, Scores, normal_text

CARD = Card(
    slug="qwen3-embedding",
    title="Qwen3 Embedding: Advancing Text Embedding and Reranking Through Foundation Models",
    arxiv="2506.05176",
    year=2025,
    kind="system",
    summary=(
        "A causal decoder whose last token is the embedding, instructed on the query side, and a twin that answers yes "
        "or no as a reranker. Training pairs are written by a language model in two steps, who asks and how, then "
        "what; the contrastive loss also sets queries against queries and documents against documents, and leaves out "
        "what the model itself already scores above the positive. The last step merges checkpoints of one run by "
        "spherical interpolation."
    ),
    mechanism=(
        "isometry.negatives.five_term:five_term_loss",
        "isometry.training.merging.states:merge_by_slerp",
        "isometry.modules.yes_no:YesNoModel",
        "isometry.data.synthesis.pipeline:synthesise",
    ),
    parts=(
        "isometry.objectives.info_nce:info_nce",
        "isometry.negatives.masks:OwnScores",
        "isometry.training.yes_no:train_yes_no",
        "isometry.ranking.yes_no:YesNo",
        "isometry.data.synthesis.rules:RuleGenerator",
        "isometry.data.synthesis.filters:filter_rows",
        "isometry.modules.pooling.plain:last_pool",
        "isometry.objectives.matryoshka:Matryoshka",
    ),
    needs=("sts", "labelled"),
    aliases=("slerp", "model merging", "yes/no reranker", "pointwise reranker", "self mask", "Qwen3-Reranker"),
    aspects={"task": "embedding and reranking", "method": "masked InfoNCE, slerp, yes/no", "data": "synthetic pairs"},
    headline="70.58 mean over the tasks of multilingual MTEB for the 8B model, 64.33 for the 0.6B model",
    claims=(
        Claim(
            "spherical merging of four fine-tunes of one start beats the mean of the four over both tasks",
            key="slerp-beats-singles",
            task="macro",
            metric="macro",
            baseline="mean of the four",
            seeds=10,
        ),
        Claim(
            "it beats the best single one over both tasks",
            key="slerp-beats-best",
            task="macro",
            metric="macro",
            baseline="best of the four",
            seeds=10,
        ),
        Claim(
            "it hardly differs from the plain average: by less than 0.003",
            key="slerp-like-average",
            task="macro",
            metric="distance",
            baseline="0.003",
            sign="<",
            seeds=10,
        ),
        Claim(
            "a language model trained to answer yes or no tells pairs apart better than it did untrained",
            key="trained-reranker",
            task="yes/no",
            metric="auc",
            baseline="untrained",
        ),
        Claim("the mask is the rule of the paper, entry by entry", key="mask-is-rule", invariant=True),
        Claim("copies of the positive are always masked", key="copies-masked", invariant=True),
        Claim("slerp ends at its models, keeps a common norm and is symmetric", key="slerp-exact", invariant=True),
        Claim("the score is the sigmoid of the difference of two logits", key="score-is-sigmoid", invariant=True),
        Claim("padding on the left and on the right give one last-token vector", key="padding-side", invariant=True),
    ),
    presets={
        "smoke": {
            "seeds": 2, "rows": 64, "classes": 6, "few": 4, "test": 60, "start": 12, "tune": 8, "steps": 8, "batch": 16,
            "documents": 12, "decoder": "tiny", "layers": 2, "pairs": 48, "judged": 40, "epochs": 1, "lr": 1e-3,
            "rank": 4, "pairs_a_step": 8, "mask_seeds": 2,
        },
        "laptop": {
            "seeds": 10, "rows": 0, "classes": 0, "few": 15, "test": 1000, "start": 240, "tune": 120, "steps": 250,
            "batch": 32, "documents": 0, "decoder": "smollm2", "layers": 8, "pairs": 1600, "judged": 300, "epochs": 1,
            "lr": 1e-3, "rank": 16, "pairs_a_step": 8, "mask_seeds": 5,
        },
        "paper": {
            "seeds": 10, "rows": 0, "classes": 0, "few": 15, "test": 3080, "start": 3000, "tune": 1500, "steps": 3000,
            "batch": 128, "documents": 0, "decoder": "Qwen/Qwen3-0.6B", "layers": 0, "pairs": 4000, "judged": 1000,
            "epochs": 1, "lr": 1e-5, "rank": 0, "pairs_a_step": 16, "mask_seeds": 10,
        },
    },
)  # fmt: skip

BLOCKS = ("qd", "qq", "pp")
TEMPERATURE, MARGIN, LR = 0.05, 0.1, 1e-3
KEPT = 0.7  # lowest cosine of a synthetic pair
PERSONAS = (
    "a student who prepares for an examination", "an engineer who builds search systems", "a physician",
    "a journalist who writes about science", "a mathematician", "a teacher", "a manager who decides about a budget",
    "a biologist", "a linguist", "a hobbyist who trains models at home",
)  # fmt: skip


def plan(tuning: Tuning) -> Plan:
    """Train with the five-term loss: more sets of negatives, masked by the model's own scores and by equal texts."""
    if tuning.kind == "sts":
        raise InputError("The five-term loss needs pairs, triplets or classes; graded similarities it cannot use.")
    loss = five_term_loss(tuning.model, temperature=TEMPERATURE, margin=MARGIN)
    if tuning.kind == "labelled":
        loss.mask = AnyOf((loss.mask, same_label)) if loss.mask is not None else same_label
    return Plan(loss, note=f"five-term loss, mask margin {MARGIN}")


def run(lab: Lab) -> Outcome:
    """Compare masks, merge, write synthetic queries, train the reranker; check what must hold exactly."""
    outcome, config = Outcome(), lab.config
    bench = prepare(lab, rows=config["rows"], classes=config["classes"], test=config["test"])
    outcome.fact("tasks", bench.tasks)
    masks(lab, bench, outcome)
    merging(lab, bench, outcome)
    synthesis(lab, outcome)
    reranker(lab, outcome)
    check_mask(bench, outcome)
    check_slerp(outcome)
    check_padding(outcome)
    return outcome


def masks(lab: Lab, bench: HeadBench, outcome: Outcome) -> None:
    """Train with no mask, the model's own, a guide's and a label mask; reported, not claimed."""
    few = None if bench.classes is None else bench.classes.only(lab.config["few"])
    studies = [HeadBench(bench.similar, bench.graded, None)] if bench.similar is not None else []
    studies += [HeadBench(None, None, few)] if few is not None else []
    for study in studies:
        task, table = study.tasks[0], dict[str, list[float]]()
        known = study.rows(0)[0]
        sources: dict[str, MaskSource | None] = {"none": None, "own scores": SelfMask(MARGIN)}
        sources["guide"] = guide(dict(zip(known.texts[0], lab.embed(known.texts[0]), strict=True))
                                 | dict(zip(known.texts[1], lab.embed(known.texts[1]), strict=True)))  # fmt: skip
        if few is study.classes:
            sources |= {"label": same_label}
        for name, source in sources.items():
            for seed in lab.seeds[: lab.config["mask_seeds"]]:
                lab.progress(f"masks, {task}, {name}", seed, lab.config["mask_seeds"])
                head = trained(lab, study, source, seed)
                table.setdefault(name, []).append(study.judge(head)[task])
                if study.classes is not None:
                    vectors = apply_head(head, study.classes.test)
                    apart = class_separation(vectors, study.classes.test_labels)
                    table.setdefault(f"{name}, separation", []).append(float(np.nanmean(apart)))
        spread = {name: [round(float(x), 4) for x in (np.mean(v), np.std(v))] for name, v in table.items()}
        outcome.fact(f"{task} by mask, mean and deviation over seeds", spread)


def trained(lab: Lab, study: HeadBench, mask: MaskSource | None, seed: int) -> nn.Module:
    """Train a head on a study's only task with all blocks under a mask."""
    schedule = Schedule(lab.config["steps"], lab.config["batch"], LR, seed=seed)

    def loss(_: Rows) -> InfoNCE:
        return InfoNCE(temperature=TEMPERATURE, blocks=BLOCKS, mask=mask)

    return fit(study.head(seed), study.rows(seed), loss, schedule)


def guide(vectors: dict[str, FloatArray]) -> MaskSource:
    """Mask by vectors of known texts: what they place closer than the positive."""

    def source(candidates: Candidates) -> Masks:
        assert candidates.texts is not None  # heads are trained on rows, which have texts
        q, docs = (torch.from_numpy(np.stack([vectors[text] for text in side])) for side in candidates.texts)
        return guided_mask(score_blocks(q, docs, blocks=tuple(candidates.scores)), candidates.targets)

    return source


def merging(lab: Lab, bench: HeadBench, outcome: Outcome) -> None:
    """Merge four fine-tunes of one start by slerp and by averaging; units are seeds."""
    config, values = lab.config, dict[str, dict[str, float]]()
    for seed in lab.seeds:
        lab.progress("merging", seed, len(lab.seeds))
        start, copies = four_fine_tunes(
            bench, seed, start=config["start"], tune=config["tune"], batch=config["batch"], lr=LR
        )
        states = [head.state_dict() for head in copies]
        heads = {"start": start, "slerp": bench.head(state=merge_by_slerp(states))}
        heads["average"] = bench.head(state=average(states))
        macro = {name: float(np.mean(list(bench.judge(head).values()))) for name, head in heads.items()}
        singles = [float(np.mean(list(bench.judge(head).values()))) for head in copies]
        macro |= {"mean of the four": float(np.mean(singles)), "best of the four": max(singles)}
        for name, value in macro.items():
            values.setdefault(name, {})[f"seed {seed}"] = value
    scores = {name: Scores.of("macro", name, {"macro": by_seed}) for name, by_seed in values.items()}
    outcome.compare("slerp-beats-singles", scores["slerp"], scores["mean of the four"])
    outcome.compare("slerp-beats-best", scores["slerp"], scores["best of the four"])
    distance = {unit: abs(value - values["average"][unit]) for unit, value in values["slerp"].items()}
    outcome.compare("slerp-like-average", Scores.of("macro", "slerp", {"distance": distance}), 0.003)
    means = {name: s.mean("macro") for name, s in scores.items()}
    outcome.fact("macro, mean over seeds", {name: round(mean, 4) for name, mean in means.items()})
    order = ("start", "mean of the four", "best of the four", "average", "slerp")
    outcome.plot("merging", Plot("Merging four fine-tunes of one start, mean over seeds", "model", "macro average",
                                 {"macro": [(name, means[name]) for name in order]}, kind="bar"))  # fmt: skip


def synthesis(lab: Lab, outcome: Outcome) -> None:
    """Write queries for documents by rules, in two steps, and keep those near enough to their document."""
    documents = lab.documents("papers")[: lab.config["documents"] or None]
    try:
        thesaurus = Thesaurus.wordnet(find("wordnet", lab.data_root))
    except InputError:
        thesaurus = Thesaurus()
    personas = nearest_personas(documents, PERSONAS, lab.embed)
    made = synthesise(RuleGenerator(thesaurus), documents, per_document=3, personas=personas)
    rows, dropped = filter_rows(made.rows, Filters(), embed=lab.embed)
    if not rows:
        raise RecipeError(f"No synthetic query was left of {len(documents)} documents; give longer ones.")
    kinds = {kind: [r.similarity or 0.0 for r in rows if r.provenance.configuration["question_type"] == kind]
             for kind in sorted({r.provenance.configuration["question_type"] for r in rows})}  # fmt: skip
    contents = [document.content for document in documents]
    nearest = (lab.embed([row.query for row in rows], "query") @ lab.embed(contents).T).argmax(1)
    right = np.array([contents[j] == row.positive for row, j in zip(rows, nearest.tolist(), strict=True)])
    kept = np.array([(row.similarity or 0.0) >= KEPT for row in rows])
    outcome.fact("synthetic queries", {"written": len(made.rows), "failed": dict(made.failed), "dropped": dict(dropped),
                                       f"cosine of {KEPT} or more": int(kept.sum())})  # fmt: skip
    first = [float(right.mean()), float(right[kept].mean()) if kept.any() else 0.0]
    outcome.fact("own document found first, all and kept queries", [round(share, 4) for share in first])
    thresholds = [round(0.1 * i, 1) for i in range(10)]
    series = {kind: [(t, float(np.mean(np.array(v) >= t))) for t in thresholds] for kind, v in kinds.items()}
    outcome.plot("synthetic", Plot("Synthetic queries kept by a similarity filter", "lowest cosine to the document",
                                   "share kept", series))  # fmt: skip


Judged = tuple[list[tuple[str, str]], list[bool]]


def reranker(lab: Lab, outcome: Outcome) -> None:
    """Train the yes/no model and hold it against itself untrained; units are positive pairs."""
    config = lab.config
    (pairs, labels), (test, gold) = judged_pairs(lab)
    model = yes_no_model(lab)
    before = model.predict(test)
    size = config["pairs_a_step"]
    schedule = Schedule(max(1, len(pairs) * config["epochs"] // size), size, lr=config["lr"])

    def report(done: int, total: int | None) -> None:
        lab.progress("reranker", done, total)

    history = train_yes_no(model, pairs, labels, schedule, freeze_embeddings=True, rank=config["rank"], progress=report)
    tenth = max(1, len(history) // 10)
    outcome.fact("reranker's loss, first, middle and last tenth (log 2 is knowing nothing)", [
        round(float(np.mean(history[i : i + tenth])), 3) for i in (0, len(history) // 2, len(history) - tenth)
    ])  # fmt: skip
    scores = {"untrained": before, "trained": model.predict(test)}
    units = {name: Scores.of("yes/no", name, {"auc": auc_units(odds, gold)}) for name, odds in scores.items()}
    outcome.compare("trained-reranker", units["trained"], units["untrained"])
    outcome.fact("AUC", {name: round(s.mean("auc"), 4) for name, s in units.items()})
    outcome.fact("reranker", f"{config['decoder']}, {len(pairs)} pairs, {len(test)} judged")
    means = [float(np.mean(history[i : i + 5])) for i in range(0, len(history), 5)]
    outcome.plot("reranker", Plot("Training the yes/no reranker", "step", "loss, mean of 5 steps",
                                  {"loss": [(5 * i, value) for i, value in enumerate(means)]}))  # fmt: skip
    logits = model.logits(test[:4]).detach()
    expected = (logits[:, 0].exp() / logits.exp().sum(1)).numpy()
    worst = float(np.abs(model.probability(test[:4]) - expected).max())
    outcome.invariant("score-is-sigmoid", worst < 1e-5, f"largest difference {worst:.1e}")


def yes_no_model(lab: Lab) -> YesNoModel:
    """The language model of the preset, asked whether two texts mean the same."""
    from isometry.encoders import load_decoder

    config = lab.config
    decoder = load_decoder(config["decoder"], layers=config["layers"] or None, tokenizer=lab.encoder().model.tokenizer)
    prompt = YesNoPrompt(system="Answer yes or no.")
    return YesNoModel(decoder.lm, decoder.tokenizer, task="Find texts that mean the same", prompt=prompt)


def judged_pairs(lab: Lab) -> list[Judged]:
    """Pairs to learn from and to judge by: similar or not as people say, or of one class or of two."""
    try:
        first = lab.sts("sts/stsb", "train")
        sets = [first, first if lab.user_data is not None else lab.sts("sts/stsb", "test")]
        high, low = (float(share * first.scores.max()) for share in (0.8, 0.4))
        parts = [
            [
                (a, b, x >= high)
                for a, b, x in zip(s.left, s.right, s.scores.tolist(), strict=True)
                if not low < x < high
            ]
            for s in sets
        ]
    except RecipeError:
        data = lab.labelled("cls/banking77", "train")
        order = np.lexsort([np.random.default_rng(0).random(len(data.texts)), np.array(data.labels)]).tolist()
        mixed = [*order, *np.random.default_rng(1).permutation(order).tolist()]  # neighbours of one class, then of any
        texts, labels = data.texts, data.labels
        parts = [[(texts[i], texts[j], labels[i] == labels[j]) for i, j in itertools.pairwise(mixed)]] * 2
    shown = balanced(parts[0], lab.config["pairs"], 0)
    known = {(a, b) for a, b, _ in shown}
    judged = balanced([row for row in parts[1] if row[:2] not in known], lab.config["judged"], 1)
    if min(len(shown), len(judged)) < 4:
        raise RecipeError("A yes/no reranker needs two pairs of each kind to learn from, and as many to be judged by.")
    return [([(a, b) for a, b, _ in rows], [label for *_, label in rows]) for rows in (shown, judged)]


def balanced(rows: Sequence[tuple[str, str, bool]], size: int, seed: int) -> list[tuple[str, str, bool]]:
    """Draw as many pairs of one kind as of the other."""
    rng = np.random.default_rng(seed)
    sides = [[row for row in rows if row[2] is wanted] for wanted in (True, False)]
    each = min(size // 2, *map(len, sides))
    return [side[i] for side in sides for i in rng.permutation(len(side))[:each].tolist()]


def auc_units(odds: FloatArray, gold: Sequence[bool]) -> dict[str, float]:
    """For each positive pair, the share of negative ones below it; their mean is the area under the ROC curve."""
    wanted = np.asarray(gold)
    positive, negative = odds[wanted][:, None], odds[~wanted][None, :]
    shares = ((positive > negative) + 0.5 * (positive == negative)).mean(1)
    return {f"positive {i}": float(share) for i, share in enumerate(shares)}


def check_mask(bench: HeadBench, outcome: Outcome) -> None:
    """Compare the mask with the rule, written out, on real vectors; every positive comes again as a hard negative."""
    rows = bench.rows(0)[0]
    n = min(24, len(rows))
    # without their mean, features spread over all directions, and some candidates pass the margin
    q, p = (torch.from_numpy(column[:n] - column.mean(0)) for column in rows.columns[:2])
    queries, positives = (list(side[:n]) for side in rows.texts[:2])
    names = {"q": queries, "p": positives, "d": [*positives, positives[-1], *positives[:-1]]}
    scores = score_blocks(q, torch.cat([p, p.roll(1, 0)]), blocks=BLOCKS)
    drop = SelfMask(MARGIN)(Candidates(scores, torch.arange(n), (queries, names["d"])))
    wrong, copies = 0, True
    for block, similarity in scores.items():
        for i, j in itertools.product(range(n), range(similarity.shape[1])):
            text, own = normal_text(names[block[1]][j]), i == j
            copy = text == normal_text(positives[i])
            rule = bool(similarity[i, j] > scores["qd"][i, i] + MARGIN) or copy or text == normal_text(queries[i])
            wrong += bool(drop[block][i, j]) != ((rule and not own) if block == "qd" else (rule or own))
            copies &= not copy or bool(drop[block][i, j]) or (own and block == "qd")
    masked = {block: int(mask.sum()) for block, mask in drop.items()}
    outcome.invariant("mask-is-rule", wrong == 0, f"{wrong} entries differ; masked: {masked}")
    outcome.invariant("copies-masked", copies, f"{n} rows, each positive twice")


def check_slerp(outcome: Outcome) -> None:
    """Ends, norm and symmetry, in float64."""
    rng = np.random.default_rng(0)
    u, v = ({"w": torch.from_numpy(x / np.linalg.norm(x))} for x in rng.normal(size=(2, 64)))
    errors = [float((slerp(u, v, 0)["w"] - u["w"]).abs().max()), float((slerp(u, v, 1)["w"] - v["w"]).abs().max())]
    for t in (0.1, 0.5, 0.8):
        merged = slerp(u, v, t)["w"]
        errors += [abs(float(merged.norm()) - 1), float((merged - slerp(v, u, 1 - t)["w"]).abs().max())]
    outcome.invariant("slerp-exact", max(errors) < 1e-9, f"largest error {max(errors):.1e}")


def check_padding(outcome: Outcome) -> None:
    """Embed the same tokens padded on either side with a small causal decoder."""
    from isometry.encoders.backbones import tiny_decoder

    body = tiny_decoder(50, dim=32).base_model
    texts = [[3, 7, 9, 2], [4, 2], [5, 6, 8, 9, 1, 2]]
    longest, vectors = max(map(len, texts)), []
    for left in (True, False):
        padded = [[[0] * (longest - len(t)), t][:: 1 if left else -1] for t in texts]
        ids = torch.tensor([a + b for a, b in padded])
        mask = (ids > 0).long()
        with torch.no_grad():
            vectors.append(last_pool(run_body(body, mask, input_ids=ids), mask))
    worst = float((vectors[0] - vectors[1]).abs().max())
    outcome.invariant("padding-side", worst <= 1e-5, f"largest difference {worst:.1e}")
