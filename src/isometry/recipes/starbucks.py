"""Starbucks: an encoder that can be cut to a menu of sizes, each trained at every step; pre-trained on the same menu.

All systems train the same model on the same scored pairs with the same loss in the same batches; they differ in which
sizes a step looks at. The units are test pairs. A second, small experiment pre-trains a tiny encoder from nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from isometry.lab import Card, Claim, Lab, Outcome, Plot
from isometry.lab.size_study import SizeStudy, Units
from isometry.modules import MaskingCollator, SizedMAE
from isometry.objectives import (
    CoSENT,
    FullOnly,
    Menu,
    SampledWeighted,
    Size,
    SizedLoss,
    align_coordinates,
    align_scores,
    check_menu,
    size_menu,
)
from isometry.training import Plan, Tuning
from isometry.training.fine_tuning import label_tensor
from isometry.training.masked_pretraining import pretrain
from isometry.training.sizes import embed_layers
from isometry.training.tuning import default_loss
from isometry.training.wordpiece import train_wordpiece
from isometry.types import Scores

if TYPE_CHECKING:
    from transformers import BertForMaskedLM

CARD = Card(
    slug="starbucks",
    title="Starbucks: Improved Training for 2D Matryoshka Embeddings",
    arxiv="2410.13230",
    year=2024,
    kind="training method",
    summary=(
        "One encoder that can be cut to a short menu of sizes, each so many layers deep and so many dimensions wide. "
        "Where 2D Matryoshka training draws one size a step, every size of the menu is trained at every step, and the "
        "small ones are pulled towards the full one by a divergence. Masked auto-encoding over the same menu gives a "
        "better start. All sizes are read from one pass, so a step costs hardly more."
    ),
    mechanism=(
        "isometry.objectives.matryoshka:SizedLoss",
        "isometry.objectives.sizes:Menu",
        "isometry.modules.bottleneck_decoder:SizedMAE",
    ),
    parts=(
        "isometry.objectives.sizes:size_menu",
        "isometry.objectives.sizes:SampledWeighted",
        "isometry.objectives.matryoshka:align_coordinates",
        "isometry.objectives.matryoshka:align_scores",
        "isometry.objectives.cosent:CoSENT",
        "isometry.modules.layer_states:layer_embeddings",
        "isometry.modules.layer_cut:cut_layers",
        "isometry.modules.mlm:MaskingCollator",
        "isometry.tasks.size_grid:sts_by_size",
    ),
    needs=("sts",),
    aliases=("2D Matryoshka", "SRL", "SMAE", "elastic encoder", "early exit embedding", "layer pruning"),
    aspects={"task": "sentence similarity", "method": "training all sizes of a menu", "data": "scored pairs"},
    headline="Mean of seven STS sets at 2 layers x 32 dims: .736, against .684 by sampled 2D Matryoshka training",
    claims=(
        Claim(
            "at sizes between the smallest and the full one, training the whole menu beats sampling sizes by 3 points",
            key="beats-sampling",
            task="sts/stsb",
            metric="spearman",
            baseline="2DMSE",
            margin=0.03,
        ),
        Claim(
            "there it beats training the full size alone by 3 points",
            key="beats-full-only",
            task="sts/stsb",
            metric="spearman",
            baseline="full only",
            margin=0.03,
        ),
        Claim(
            "the smallest size gains, too",
            key="smallest-gains",
            task="sts/stsb",
            metric="spearman",
            baseline="2DMSE",
        ),
        Claim(
            "the full size loses at most one point",
            key="full-kept",
            task="sts/stsb",
            metric="spearman",
            baseline="full only",
            margin=-0.01,
        ),
        Claim(
            "masked language modelling of all sizes predicts masked tokens better at the small sizes than that of the "
            "full size alone",
            key="mlm-of-all-sizes",
            task="masked tokens",
            metric="loss",
            baseline="full size alone",
            sign="<",
        ),
        Claim("a size's readout is that of the model cut, saved and loaded", key="cut-exact", invariant=True),
        Claim("a menu of the full size alone is the plain loss", key="plain-menu", invariant=True),
        Claim("one pass gives every size the loss of a pass of its own", key="one-pass", invariant=True),
        Claim("the alignment is never negative, and 0 at the full size", key="alignment", invariant=True),
    ),
    presets={
        "smoke": {
            "steps": 3, "batch": 8, "lr": 3e-5, "scale": 20.0, "rows": 64, "pairs": 40, "align_weight": 0.3,
            "menu": [[1, 32], [3, 96], [6, 384]], "separate": 0, "mlm_steps": 20, "mlm_texts": 300, "seeds": 1,
        },
        "laptop": {
            "steps": 60, "batch": 16, "lr": 3e-5, "scale": 20.0, "rows": 0, "pairs": 700, "align_weight": 0.3,
            "menu": [[1, 32], [2, 64], [3, 96], [4, 128], [5, 256], [6, 384]], "separate": 1, "mlm_steps": 300,
            "mlm_texts": 6000, "seeds": 1,
        },
        "paper": {
            "backbone": "bert-base-uncased", "steps": 1440, "batch": 16, "lr": 5e-5, "scale": 20.0, "rows": 0,
            "pairs": 0, "align_weight": 0.3, "menu": [], "separate": 5, "mlm_steps": 3000, "mlm_texts": 0, "seeds": 3,
        },
    },
)  # fmt: skip

TINY_MENU = size_menu(4, 64, sizes=4)  # of the encoder that is pre-trained from nothing


def run(lab: Lab) -> Outcome:
    """Train by menu, by sampling and at the full size alone; then pre-train a tiny encoder with and without a menu."""
    outcome = Outcome()
    study = SizeStudy(lab)
    menu = menu_of(lab, study)
    systems = {"untrained": study.judge(study.start, menu), "full only": study.full_only(menu)}
    dims = tuple(size.dims for size in menu)
    systems["2DMSE"] = study.train("2DMSE", lambda seed: SampledWeighted(study.full, dims, seed=seed), menu)
    systems["SRL"] = study.train("SRL", lambda seed: Menu(menu, lab.config["align_weight"]), menu)
    separate = train_separately(lab, study, menu)
    middle = menu[1:-1]
    found = {name: study.scores(name, units, middle) for name, units in systems.items()}
    outcome.compare("beats-sampling", found["SRL"], found["2DMSE"])
    outcome.compare("beats-full-only", found["SRL"], found["full only"])
    for key, baseline, size in (("smallest-gains", "2DMSE", menu[0]), ("full-kept", "full only", menu[-1])):
        outcome.compare(key, *(study.scores(name, systems[name], [size]) for name in ("SRL", baseline)))
    check_invariants(study, menu, outcome)
    report(study, systems, separate, outcome)
    pretrain_sizes(lab, study, outcome)
    return outcome


def plan(tuning: Tuning) -> Plan:
    """Train every size of a menu derived from the model at every step, the small ones pulled towards the full one."""
    config = tuning.model[0].auto_model.config
    menu = size_menu(config.num_hidden_layers, config.hidden_size, sizes=min(6, config.num_hidden_layers))
    scored = tuning.kind == "sts"
    align = align_coordinates if scored else partial(align_scores, temperature=0.05, unit=True)
    schedule = Menu(menu, align_weight=0.3 if scored else 1.0)
    inner = default_loss(None, tuning.kind)
    loss = SizedLoss(tuning.model, embed_layers, inner, schedule, full=menu[-1], align=align)
    return Plan(loss, note=f"Can be cut to these sizes (layers, dims): {[tuple(size) for size in menu]}.")


def menu_of(lab: Lab, study: SizeStudy) -> tuple[Size, ...]:
    """Return the configured menu if it fits the model, else the one derived from it."""
    given = [Size(*size) for size in lab.config["menu"]]
    if given and given[-1] == study.full:
        return check_menu(given, *study.full)
    return size_menu(*study.full, sizes=min(6, study.full.layers))


def train_separately(lab: Lab, study: SizeStudy, menu: Sequence[Size]) -> Units:
    """Train models cut to single sizes, the costly alternative, at the first sizes between smallest and full."""
    found: dict[Size, np.ndarray] = {}
    for size in menu[1 : 1 + lab.config["separate"]]:
        alone = FullOnly(size)
        found |= study.train(f"separate {tuple(size)}", partial(always, alone), [size], cut=size.layers)
    return found


def always(schedule: FullOnly, seed: int) -> FullOnly:
    """Return a schedule that no seed changes."""
    return schedule


def report(study: SizeStudy, systems: Mapping[str, Units], separate: Units, outcome: Outcome) -> None:
    """Give the table and the curve of the rank correlation by size, and what each training took."""
    curves = {name: [(size, float(values.mean())) for size, values in units.items()] for name, units in systems.items()}
    if separate:
        curves["cut and trained separately"] = [(size, float(values.mean())) for size, values in separate.items()]
    for name, points in curves.items():
        outcome.fact(f"spearman by size, {name}", {f"{s.layers}x{s.dims}": round(v, 4) for s, v in points})
    outcome.fact("processor seconds of training", {name: round(value, 1) for name, value in study.seconds.items()})
    places = {size: i for i, size in enumerate(systems["SRL"], 1)}
    series = {name: [(places[size], value) for size, value in points] for name, points in curves.items()}
    named = ", ".join(f"{s.layers}x{s.dims}" for s in places)
    outcome.plot(
        "quality-by-size",
        Plot("Rank correlation at each size of the menu", f"size, layers x dims: {named}", "Spearman", series),
    )


def check_invariants(study: SizeStudy, menu: Sequence[Size], outcome: Outcome) -> None:
    """Check on the trained model what must hold exactly."""
    error = study.cut_error("SRL", menu)
    outcome.invariant("cut-exact", error < 1e-5, f"largest difference over {len(menu)} sizes: {error:.1e}")
    model = study.models["SRL"]
    rows = study.rows
    batch = list(range(min(16, len(rows))))
    gold = label_tensor(rows, batch)
    features = [model.preprocess([column[row] for row in batch]) for column in rows.columns]
    with torch.no_grad():
        columns = [embed_layers(model, column) for column in features]
        full = menu[-1]
        loss = SizedLoss(model, embed_layers, CoSENT(), Menu(tuple(menu)), full=full)
        plain = CoSENT(model)([dict(column) for column in features], gold)
        alone = SizedLoss(model, embed_layers, CoSENT(), Menu((full,)), full=full)(features, gold)
        difference = abs(float(alone - plain))
        outcome.invariant("plain-menu", difference < 1e-3, f"difference of the losses: {difference:.1e}")
        again = [float(loss.loss_at([embed_layers(model, c) for c in features], size, gold)) for size in menu]
        together = [float(loss.loss_at(columns, size, gold)) for size in menu]
        worst = max(abs(a - b) for a, b in zip(again, together, strict=True))
        outcome.invariant("one-pass", worst < 1e-3, f"largest difference of a size's loss: {worst:.1e}")
        aligned = [float(align_coordinates(columns, size, full)) for size in menu]
    ok = min(aligned) >= -1e-6 and abs(aligned[-1]) < 1e-6
    outcome.invariant("alignment", ok, f"by size: {[round(value, 4) for value in aligned]}")


def pretrain_sizes(lab: Lab, study: SizeStudy, outcome: Outcome) -> None:
    """Pre-train a tiny encoder from nothing on all sizes or the full one alone, and predict masked tokens at each."""
    texts = sorted({*study.rows.columns[0], *study.rows.columns[1]})[: lab.config["mlm_texts"] or None]
    held = sorted({*study.left, *study.right} - set(texts))[:256]
    tokenizer = train_wordpiece(texts, 2000)
    probe = MaskingCollator(tokenizer, rate=0.2, decoder_rate=0.4, max_length=64, seed=99)(held)
    losses: dict[str, list[dict[tuple[int, int], Tensor]]] = {}
    for name, menu, bottleneck in (
        ("full size alone", TINY_MENU[-1:], False), ("all sizes", TINY_MENU, False), ("SMAE", TINY_MENU, True),
    ):  # fmt: skip
        for seed in lab.seeds:
            module = SizedMAE(tiny_mlm(len(tokenizer), seed), menu, bottleneck=bottleneck, seed=seed)
            collate = MaskingCollator(tokenizer, rate=0.2, decoder_rate=0.4, max_length=64, seed=seed)
            watch = partial(lab.progress, f"pre-training, {name}")
            pretrain(module, texts, collate, steps=lab.config["mlm_steps"], seed=seed, progress=watch)
            with torch.no_grad():
                judged = SizedMAE(module.eval().mlm, TINY_MENU)
                losses.setdefault(name, []).append(judged.eval().mlm_losses(probe))
    by_size = {name: {s: torch.stack([one[s] for one in runs]).mean(0) for s in TINY_MENU}
               for name, runs in losses.items()}  # fmt: skip
    scores = {}
    for name, found in by_size.items():
        small = torch.stack([found[size] for size in TINY_MENU[:-1]]).mean(0)
        scores[name] = Scores.of("masked tokens", name, {"loss": {str(i): float(v) for i, v in enumerate(small)}})
        means = {f"{s.layers}x{s.dims}": round(float(found[s].mean()), 3) for s in TINY_MENU}
        outcome.fact(f"masked token loss by size, {name} (chance {np.log(len(tokenizer)):.2f})", means)
    outcome.compare("mlm-of-all-sizes", scores["all sizes"], scores["full size alone"])
    outcome.plot("masked-token-loss", Plot(
        "Masked tokens of held-out sentences, tiny encoder from nothing", "layers (dims double with each)",
        "cross-entropy, nats", {n: [(s.layers, float(found[s].mean())) for s in TINY_MENU] for n, found in
                                by_size.items()},
    ))  # fmt: skip


def tiny_mlm(vocabulary: int, seed: int) -> BertForMaskedLM:
    """Return a masked language model of four layers and 64 dims with random weights."""
    from transformers import BertConfig, BertForMaskedLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BertForMaskedLM(
            BertConfig(
                vocab_size=vocabulary, hidden_size=64, intermediate_size=256, num_hidden_layers=4,
                num_attention_heads=4, max_position_embeddings=64,
            )
        )  # fmt: skip
