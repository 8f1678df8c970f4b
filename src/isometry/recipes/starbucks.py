"""Starbucks: an encoder that can be cut to a menu of sizes, each trained at every step; pre-trained on the same menu.

All systems train the same model on the same scored pairs with the same loss in the same batches; they differ in which
sizes a step looks at, so training every size also costs more of everything but passes: the time is reported. The units
are test pairs, means over seeds; the difference of each seed stands beside every claim. Token embeddings are left as
they are, which saves a quarter of the time, except where a raw backbone is trained. The encoder of the small presets
comes trained for similarity: its full size gains nothing from these steps. A second, small experiment
pre-trains a tiny encoder from nothing, on every size or the full one, and tunes it by the menu. At the laptop's scale
that pre-training ends between 5.2 and 5.9 nats, chance being 7.6, and trained on all sizes hardly better at depth than
at one layer: too early to judge what it is worth as a start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from isometry.lab import Card, Claim, Lab, Outcome, Plot
from isometry.lab.size_study import SizeStudy
from isometry.modules import MaskingCollator, SizedMAE
from isometry.objectives import (
    CoSENT,
    Menu,
    Size,
    SizedLoss,
    align_coordinates,
    align_scores,
    check_menu,
    size_menu,
)
from isometry.training import Plan, Tuning, seeded
from isometry.training.feeds import label_tensor
from isometry.training.masked_language import sentence_model
from isometry.training.masked_pretraining import pretrain
from isometry.training.sizes import embed_layers
from isometry.training.tuning import default_loss
from isometry.training.wordpiece import train_wordpiece
from isometry.types import Scores

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

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
        Claim("at sizes between the smallest and the full one, training the whole menu beats sampling sizes by 3 "
              "points",
              key="beats-sampling", task="sts/stsb", metric="spearman", baseline="2DMSE", margin=0.03, seeds=3),
        Claim("there it beats training the full size alone by 3 points",
              key="beats-full-only", task="sts/stsb", metric="spearman", baseline="full only", margin=0.03, seeds=3),
        Claim("the smallest size gains, too",
              key="smallest-gains", task="sts/stsb", metric="spearman", baseline="2DMSE", seeds=3),
        Claim("the full size loses at most one point",
              key="full-kept", task="sts/stsb", metric="spearman", baseline="full only", margin=-0.01, seeds=3),
        Claim("one model trained by the menu loses at most two points to one cut to a size and trained for it alone",
              key="near-separate", task="sts/stsb", metric="spearman", baseline="cut and trained separately",
              margin=-0.02, seeds=3),
        Claim("masked language modelling of all sizes predicts masked tokens better at the small sizes than that of "
              "the full size alone",
              key="mlm-of-all-sizes", task="masked tokens", metric="loss", baseline="full size alone", sign="<",
              seeds=3),
        Claim("tuned by the menu, an encoder pre-trained on it (SMAE) is better at the small sizes than one "
              "pre-trained at the full size",
              key="better-start", task="sts/stsb", metric="spearman", baseline="full size alone", seeds=3),
        Claim("a size's readout is that of the model cut, saved and loaded", key="cut-exact", invariant=True),
        Claim("a menu of the full size alone is the plain loss", key="plain-menu", invariant=True),
        Claim("one pass gives every size the loss of a pass of its own", key="one-pass", invariant=True),
        Claim("the alignment is never negative, and 0 at the full size", key="alignment", invariant=True),
    ),
    presets={
        "smoke": {
            "steps": 3, "batch": 8, "lr": 3e-5, "loss": "cosent", "scale": 20.0, "rows": 64, "pairs": 40,
            "train_words": 0, "align_weight": 0.3, "menu": [[1, 32], [3, 96], [6, 384]], "separate": 1,
            "mlm_backbone": "", "mlm_steps": 20, "mlm_batch": 32, "mlm_lr": 1e-3, "mlm_texts": 300, "tiny_steps": 5,
            "tiny_lr": 5e-4, "seeds": 1,
        },
        "laptop": {
            "steps": 60, "batch": 16, "lr": 3e-5, "loss": "cosent", "scale": 20.0, "rows": 0, "pairs": 700,
            "train_words": 0, "align_weight": 0.3, "menu": [[1, 32], [2, 64], [3, 96], [4, 128], [5, 256], [6, 384]],
            "separate": 1, "mlm_backbone": "", "mlm_steps": 240, "mlm_batch": 32, "mlm_lr": 1e-3, "mlm_texts": 6000,
            "tiny_steps": 80, "tiny_lr": 5e-4, "seeds": 3,
        },
        "paper": {
            "backbone": "bert-base-uncased", "pooling": "mean", "steps": 1440, "batch": 16, "lr": 5e-5,
            "loss": "cosent", "scale": 20.0, "rows": 0, "pairs": 0, "train_words": 1, "align_weight": 0.3, "menu": [],
            "separate": 5, "mlm_backbone": "bert-base-uncased", "mlm_steps": 400_000, "mlm_batch": 512,
            "mlm_lr": 1e-4, "mlm_texts": 0, "tiny_steps": 1440, "tiny_lr": 5e-5, "seeds": 3,
        },
    },
)  # fmt: skip

SEPARATE = "cut and trained separately"
TINY_MENU = size_menu(4, 64, sizes=4)  # of the encoder that is pre-trained from nothing


def run(lab: Lab) -> Outcome:
    """Train by menu, by sampling and at the full size alone; then pre-train a tiny encoder with and without a menu."""
    outcome, study = Outcome(), SizeStudy(lab)
    menu = menu_of(lab, study)
    study.untrained(menu)
    study.full_only(menu)
    study.sampling(tuple(size.dims for size in menu), menu)
    study.train("SRL", lambda seed: Menu(menu, lab.config["align_weight"]), menu)
    separate = menu[1 : 1 + lab.config["separate"]]  # the first sizes between smallest and full
    study.separate(SEPARATE, separate)
    study.compare(outcome, "beats-sampling", "SRL", "2DMSE", menu[1:-1])
    study.compare(outcome, "beats-full-only", "SRL", "full only", menu[1:-1])
    study.compare(outcome, "smallest-gains", "SRL", "2DMSE", menu[:1])
    study.compare(outcome, "full-kept", "SRL", "full only", menu[-1:])
    study.compare(outcome, "near-separate", "SRL", SEPARATE, separate)
    check_invariants(study, menu, outcome)
    pretrain_sizes(lab, study, outcome)
    report(study, menu, outcome)
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


def report(study: SizeStudy, menu: Sequence[Size], outcome: Outcome) -> None:
    """Give the table and the curve of the rank correlation by size, and what each training took."""
    curves, places = {name: study.curve(name) for name in study.found}, {size: i for i, size in enumerate(menu, 1)}
    for name, curve in curves.items():
        outcome.fact(f"spearman by size, {name}", {f"{s.layers}x{s.dims}": round(v, 4) for s, v in curve.items()})
    study.report_training(outcome)
    named = ", ".join(f"{s.layers}x{s.dims}" for s in places)
    series = {name: [(places[size], value) for size, value in curve.items()]
              for name, curve in curves.items() if curve.keys() <= places.keys()}  # fmt: skip
    title = "Rank correlation at each size of the menu"
    outcome.plot("quality-by-size", Plot(title, f"size, layers x dims: {named}", "Spearman", series))


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
    """Pre-train an encoder on all sizes or the full one alone, predict masked tokens at each size, tune it by them."""
    config, encoders = lab.config, dict[tuple[str, int], Any]()
    texts = sorted({*study.rows.columns[0], *study.rows.columns[1]})[: config["mlm_texts"] or None]
    held = sorted({*study.left, *study.right} - set(texts))[:256]
    tokenizer = train_wordpiece(texts, 2000) if not config["mlm_backbone"] else study.start.tokenizer
    menu = TINY_MENU if not config["mlm_backbone"] else menu_of(lab, study)
    probe = MaskingCollator(tokenizer, rate=0.2, decoder_rate=0.4, max_length=64, seed=99)(held)
    losses: dict[str, list[dict[tuple[int, int], Tensor]]] = {}
    for name, sizes, bottleneck in (
        ("full size alone", menu[-1:], False), ("all sizes", menu, False), ("SMAE", menu, True),
    ):  # fmt: skip
        for seed in lab.seeds:
            module = SizedMAE(masked_model(lab, len(tokenizer), seed), sizes, bottleneck=bottleneck, seed=seed)
            collate = MaskingCollator(tokenizer, rate=0.2, decoder_rate=0.4, max_length=64, seed=seed)
            watch = partial(lab.progress, f"pre-training, {name}")
            pretrain(module, texts, collate, steps=config["mlm_steps"], batch_size=config["mlm_batch"],
                     lr=config["mlm_lr"], seed=seed, progress=watch)  # fmt: skip
            encoders[name, seed] = module.eval().mlm
            with torch.no_grad():
                losses.setdefault(name, []).append(SizedMAE(module.mlm, menu).eval().mlm_losses(probe))
    report_masked(menu, losses, len(tokenizer), outcome)

    def start(name: str, seed: int) -> SentenceTransformer:
        return sentence_model(encoders[name, seed].base_model, tokenizer)

    names = ("SMAE", "full size alone")
    systems = [f"pre-trained encoder, {name}, then SRL" for name in names]
    for system, name in zip(systems, names, strict=True):
        study.train(system, lambda seed: Menu(menu, config["align_weight"]), menu, start=partial(start, name),
                    steps=config["tiny_steps"], lr=config["tiny_lr"], train_words=1)  # fmt: skip
    study.compare(outcome, "better-start", systems[0], systems[1], menu[:-1])


def report_masked(
    menu: Sequence[Size],
    losses: Mapping[str, Sequence[Mapping[tuple[int, int], Tensor]]],
    vocabulary: int,
    outcome: Outcome,
) -> None:
    """Compare the losses of masked tokens at the small sizes: the units are held-out texts, means over seeds."""
    by_size = {name: {s: torch.stack([one[s] for one in runs]).mean(0) for s in menu} for name, runs in losses.items()}
    scores = {}
    for name, found in by_size.items():
        small = torch.stack([found[size] for size in menu[:-1]]).mean(0)
        scores[name] = Scores.of("masked tokens", name, {"loss": {str(i): float(v) for i, v in enumerate(small)}})
        means = {f"{s.layers}x{s.dims}": round(float(found[s].mean()), 3) for s in menu}
        outcome.fact(f"masked token loss by size, {name} (chance {np.log(vocabulary):.2f})", means)
    outcome.compare("mlm-of-all-sizes", scores["all sizes"], scores["full size alone"])
    series = {name: [(s.layers, float(found[s].mean())) for s in menu] for name, found in by_size.items()}
    outcome.plot("masked-token-loss", Plot(
        "Masked tokens of held-out sentences", "layers (dims grow with each)", "cross-entropy, nats", series,
    ))  # fmt: skip


def masked_model(lab: Lab, vocabulary: int, seed: int) -> Any:
    """Return the configured masked language model, or one of four layers and 64 dims with random weights."""
    from transformers import AutoModelForMaskedLM, BertConfig, BertForMaskedLM

    if backbone := lab.config["mlm_backbone"]:
        return AutoModelForMaskedLM.from_pretrained(backbone)
    full = TINY_MENU[-1]
    with seeded(seed):
        return BertForMaskedLM(
            BertConfig(
                vocab_size=vocabulary, hidden_size=full.dims, intermediate_size=4 * full.dims,
                num_hidden_layers=full.layers, num_attention_heads=4, max_position_embeddings=128,
            )
        )  # fmt: skip
