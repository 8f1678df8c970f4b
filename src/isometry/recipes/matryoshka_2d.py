"""2DMSE: embeddings usable at any depth and any width, by training one random inner size a step; and its later form.

All systems train the same model on the same scored pairs with the same loss in the same batches; they differ in which
sizes a step looks at. They are judged on the whole grid of layers and dims. The units are test pairs, means over seeds;
the difference of each seed stands beside every claim. Token embeddings are left as they are, which saves a quarter of
the time, except where a raw backbone is trained. A few dozen steps visit each inner layer about a dozen times: gains of
sampling must be expected to be small, and grow with steps. The encoder of the small presets comes trained for
similarity: its full size gains nothing from these steps, with or without inner sizes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch

from isometry.lab import Card, Claim, Lab, Outcome, Plot
from isometry.lab.size_study import SizeStudy
from isometry.modules import cut_layers
from isometry.objectives import (
    CoSENT,
    EveryLayer,
    Sampled,
    SampledWeighted,
    Size,
    SizedLoss,
    align_coordinates,
    align_principal,
)
from isometry.objectives.espresso import spectral_map
from isometry.objectives.sizes import Schedule, Terms
from isometry.training import Plan, Tuning
from isometry.training.feeds import label_tensor
from isometry.training.sizes import embed_layers
from isometry.training.tuning import default_loss
from isometry.types import Scores

CARD = Card(
    slug="matryoshka-2d",
    title="2D Matryoshka Sentence Embeddings",
    arxiv="2402.14776",
    year=2024,
    kind="training method",
    summary=(
        "Matryoshka training in two directions: embeddings work at any prefix of their dimensions and after any layer "
        "of the network. Each step trains the last layer, one random earlier layer and prefixes of both, and pulls the "
        "earlier layer's embedding towards the last one's. The later form, Espresso, samples nothing: it trains every "
        "layer at one compressed width and aligns that prefix with the principal content of the layer's whole vector."
    ),
    mechanism=(
        "isometry.objectives.matryoshka:SizedLoss",
        "isometry.objectives.sizes:Sampled",
        "isometry.objectives.sizes:SampledWeighted",
        "isometry.objectives.sizes:EveryLayer",
        "isometry.objectives.espresso:pca_target",
    ),
    parts=(
        "isometry.objectives.matryoshka:Matryoshka",
        "isometry.objectives.matryoshka:align_coordinates",
        "isometry.objectives.matryoshka:align_principal",
        "isometry.objectives.sizes:draw_size",
        "isometry.objectives.cosent:CoSENT",
        "isometry.objectives.angle:AnglE",
        "isometry.modules.layer_states:layer_embeddings",
        "isometry.modules.layer_cut:cut_layers",
        "isometry.tasks.size_grid:sts_by_size",
    ),
    needs=("sts",),
    aliases=("2DMSE", "ESE", "Espresso", "Matryoshka", "MRL", "adaptive layer", "elastic encoder"),
    aspects={"task": "sentence similarity", "method": "training random inner sizes", "data": "scored pairs"},
    headline="Seven STS sets: inner layers keep most of the last layer's quality where plain training collapses",
    claims=(
        Claim("in the shallow half of the network, over all widths, 2DMSE beats training the full size alone",
              key="inner-layers", task="sts/stsb", metric="spearman", baseline="full only", seeds=3),
        Claim("the full size loses at most one point",
              key="full-kept", task="sts/stsb", metric="spearman", baseline="full only", margin=-0.01, seeds=3),
        Claim("training every layer at each step (Espresso) beats sampling one, at its width in the shallow half",
              key="every-layer", task="sts/stsb", metric="spearman", baseline="2DMSE", seeds=3),
        Claim("aligning the prefix with the principal content does not lower the share of quality that the "
              "prefix keeps",
              key="principal-content", task="sts/stsb", metric="share of the full width's rank correlation",
              baseline="Espresso without alignment", margin=-0.005, seeds=3),
        Claim("a size's readout is that of the model cut, saved and loaded", key="cut-exact", invariant=True),
        Claim("without weight on inner layers the loss is the base loss", key="base-loss", invariant=True),
        Claim("the mean loss of the draws is that over all sizes", key="draws", invariant=True),
        Claim("an orthogonal dependency matrix keeps all inner products", key="orthogonal", invariant=True),
        Claim("each layer that is cut away makes encoding faster", key="faster", invariant=True),
    ),
    presets={
        "smoke": {
            "steps": 2, "batch": 8, "lr": 3e-5, "scale": 20.0, "rows": 64, "pairs": 40, "dims": [32, 128, 384],
            "compressed": 48, "draws": 100, "first_form": 1, "repeats": 2, "seeds": 1, "loss": "cosent",
            "train_words": 0,
        },
        "laptop": {
            "steps": 64, "batch": 16, "lr": 3e-5, "scale": 20.0, "rows": 0, "pairs": 700,
            "dims": [32, 64, 96, 128, 256, 384], "compressed": 48, "draws": 400, "first_form": 0, "repeats": 5,
            "seeds": 3, "loss": "cosent", "train_words": 0,
        },
        "paper": {
            "backbone": "bert-base-uncased", "pooling": "cls", "nli": "pairs/snli", "loss": "angle", "steps": 7400,
            "batch": 128, "lr": 5e-5, "scale": 20.0, "rows": 0, "pairs": 0, "dims": [32, 64, 128, 256, 512, 768],
            "compressed": 128, "draws": 2000, "first_form": 1, "repeats": 20, "seeds": 3, "train_words": 1,
        },
    },
)  # fmt: skip


def run(lab: Lab) -> Outcome:
    """Train at the full size, by sampling, and at every layer with and without alignment; judge the whole grid."""
    outcome = Outcome()
    study = SizeStudy(lab)
    full, k = study.full, lab.config["compressed"]
    widths = tuple(sorted({d for d in lab.config["dims"] if d < full.dims} | {full.dims}))
    grid = [Size(n, d) for n in range(1, full.layers + 1) for d in sorted({*widths, k})]
    study.untrained(grid)
    study.full_only(grid)
    study.sampling(widths, grid)
    for name, schedule in forms(lab, full, widths).items():
        align = align_principal if name.startswith("Espresso") else align_coordinates
        study.train(name, schedule, grid, align=align)
    half = range(1, full.layers // 2 + 1)
    study.compare(outcome, "inner-layers", "2DMSE", "full only", [Size(n, d) for n in half for d in widths])
    study.compare(outcome, "full-kept", "2DMSE", "full only", [full])
    study.compare(outcome, "every-layer", "Espresso", "2DMSE", [Size(n, k) for n in half])
    shares = [kept(study, name, k, outcome) for name in ("Espresso", "Espresso without alignment")]
    outcome.compare("principal-content", *shares)
    report(study, widths, outcome)
    check_invariants(study, widths, outcome)
    time_layers(study, outcome)
    return outcome


def plan(tuning: Tuning) -> Plan:
    """Train the full size and one random inner layer and width each step (the weighted, library form)."""
    config = tuning.model[0].auto_model.config
    full = Size(config.num_hidden_layers, config.hidden_size)
    dims = tuple(sorted({max(1, full.dims // 2**i) for i in range(5)}))
    schedule = SampledWeighted(full, dims, seed=tuning.seed)
    align = partial(align_coordinates, temperature=0.3)
    loss = SizedLoss(tuning.model, embed_layers, default_loss(None, tuning.kind), schedule, full=full, align=align)
    return Plan(loss, note=f"Can be cut after any of its {full.layers} layers and to any of {list(dims)} dims.")


def forms(lab: Lab, full: Size, widths: tuple[int, ...]) -> dict[str, Callable[[int], Schedule]]:
    """Return what is trained besides 2DMSE in its common form, by name: from a seed to a schedule."""
    k = lab.config["compressed"]
    found: dict[str, Callable[[int], Schedule]] = {
        "Espresso": lambda seed: EveryLayer(full, k),
        "Espresso without alignment": lambda seed: EveryLayer(full, k, align_weight=0.0),
    }
    if lab.config["first_form"]:
        found["2DMSE, first form"] = lambda seed: Sampled(full, widths, seed=seed)
    return found


def kept(study: SizeStudy, name: str, dims: int, outcome: Outcome) -> Scores:
    """Return each pair's share of the rank correlation at a width of the last layer, over that of the full width."""
    full, thin = study.full, Size(study.full.layers, dims)
    by_seed = [float(units[thin].mean() / units[full].mean()) for units in study.found[name]]
    outcome.fact(f"share kept at {dims} dims by seed, {name}", [round(share, 4) for share in by_seed])
    units = study.mean(name)
    shares = units[thin] / float(units[full].mean())
    return Scores.of(study.task, name, {"share": {str(i): float(value) for i, value in enumerate(shares)}})


def report(study: SizeStudy, widths: Sequence[int], outcome: Outcome) -> None:
    """Give the grids and the curves over layers."""
    layers, curves = range(1, study.full.layers + 1), {name: study.curve(name) for name in study.found}
    for name, curve in curves.items():
        grid = {f"layer {n}": [round(curve[Size(n, d)], 4) for d in widths] for n in layers}
        outcome.fact(f"spearman, {name}, dims {list(widths)}", grid)
    study.report_training(outcome)
    for d in (min(widths), study.full.dims):
        series = {name: [(n, curve[Size(n, d)]) for n in layers] for name, curve in curves.items()}
        title = f"Rank correlation after each layer, {d} dims"
        outcome.plot(f"quality-by-layer-{d}-dims", Plot(title, "layers", "Spearman", series))


def check_invariants(study: SizeStudy, widths: tuple[int, ...], outcome: Outcome) -> None:
    """Check on the trained model what must hold exactly."""
    full, rows, model = study.full, study.rows, study.models["2DMSE"]
    sizes = [Size(n, widths[0]) for n in (1, full.layers // 2)] + [full]
    error = study.cut_error("2DMSE", sizes)
    outcome.invariant("cut-exact", error < 1e-5, f"largest difference over {len(sizes)} sizes: {error:.1e}")
    batch = list(range(min(16, len(rows))))
    gold = label_tensor(rows, batch)
    with torch.no_grad():
        columns = [embed_layers(model, model.preprocess([column[row] for row in batch])) for column in rows.columns]

        def value(schedule: Schedule, step: int = 0) -> float:
            loss = SizedLoss(model, embed_layers, CoSENT(), schedule, full=full)
            return float(loss.compute_loss_from_layers(columns, gold, step=step))

        plain = CoSENT().compute_loss_from_embeddings([column[-1] for column in columns], gold)
        base = value(SampledWeighted(full, (full.dims,), prior=0.0, align_weight=0.0))
        outcome.invariant("base-loss", abs(base - float(plain)) < 1e-3, f"{base:.6f} and {float(plain):.6f}")
        sampled = Sampled(full, widths)
        every = [value(partial(fixed, sampled, Size(n, d))) for n in sampled.depths for d in widths]
        drawn = [value(sampled, step) for step in range(study.lab.config["draws"])]
    error, bound = abs(float(np.mean(drawn) - np.mean(every))), 5 * float(np.std(drawn)) / len(drawn) ** 0.5
    same = value(sampled, 7) == drawn[7] if len(drawn) > 7 else True
    detail = f"off by {error:.3f}, at most {bound:.3f} by chance; a draw repeats for its seed: {same}"
    outcome.invariant("draws", error <= bound and same, detail)
    square = torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(0)))[0]
    vectors = columns[0][-1][:, :64]
    mapped = vectors @ spectral_map(square, 64)
    worst = float((mapped @ mapped.T - vectors @ vectors.T).abs().max())
    outcome.invariant("orthogonal", worst < 1e-3, f"largest change of an inner product: {worst:.1e}")


def fixed(sampled: Sampled, size: Size, step: int) -> Terms:
    """Return the terms of a step that drew this size."""
    return sampled.at(size)


def time_layers(study: SizeStudy, outcome: Outcome) -> None:
    """Measure processor time of encoding by the model cut to each depth; the least of several repeats."""
    features = study.start.preprocess([study.left[i % len(study.left)] for i in range(64)])
    milliseconds = []
    for n in range(1, study.full.layers + 1):
        model = cut_layers(study.start, n).eval()
        spent = []
        with torch.no_grad():
            for _ in range(study.lab.config["repeats"]):
                began = time.process_time()
                model(dict(features))
                spent.append(time.process_time() - began)
        milliseconds.append(1e3 * min(spent) / 64)
    points = list(enumerate((round(value, 3) for value in milliseconds), 1))
    wide = milliseconds[:: max(1, (len(milliseconds) - 1) // 2)]  # a step of one layer may drown in noise
    outcome.invariant("faster", wide == sorted(wide), f"ms of processor time a text by layers: {points}")
    outcome.plot("time-by-layer", Plot("Processor time of encoding", "layers", "ms a text", {"cut model": points}))
