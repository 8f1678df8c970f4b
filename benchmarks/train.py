"""Steps per second and peak memory of fine-tuning, side by side with sentence-transformers' own trainer.

    python benchmarks/train.py [--steps 20] [--repeats 3] [--batch 32] [--quick]

Both tune all-MiniLM-L6-v2 on the same batches of real pairs of mixed length (claims with the abstracts that support
them, pairs of near-equal sentences, pairs of bank customers' messages) with the same InfoNCE, temperature, learning
rate and window, in float32 on one thread. Every run is a process of its own: peak memory is what that process ever
held, less what it held once the model was loaded. Runs take turns; the table gives medians, and the median of the
ratios within each turn. Seconds are those of the steps after the first two. Then memory alone: one step on a batch of
32 rows and one on 1024, gradients cached. With --quick all of it in miniature; nothing is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

FIGURES = Path(__file__).parent / "figures" / "train.json"
SYSTEMS = ("sentence-transformers", "isometry", "isometry, padded")
WARM = 2  # steps before the clock starts


def pairs(count: int) -> list[tuple[str, str]]:
    """A third of each: claim and abstract, two near-equal sentences, two messages of one intent."""
    import numpy as np

    from isometry.data import load_set

    scifact, stsb = load_set("ir/scifact", kind="retrieval"), load_set("sts/stsb", kind="sts", split="train")
    banking = load_set("cls/banking77", kind="labelled", split="train")
    abstracts = {document.id: document.content for document in scifact.corpus}
    claims = [(scifact.queries[query], abstracts[d]) for query, grades in scifact.qrels.items() for d in grades]
    alike = [(a, b) for a, b, s in zip(stsb.left, stsb.right, stsb.scores, strict=True) if s >= 4 and a != b]
    members: dict[str, list[str]] = {}
    for text, label in zip(banking.texts, banking.labels, strict=True):
        members.setdefault(label, []).append(text)
    asked = [pair for texts in members.values() for pair in zip(texts[::2], texts[1::2], strict=False)]
    rng = np.random.default_rng(0)
    chosen: list[tuple[str, str]] = []
    for source in (claims, alike, asked):
        order = rng.permutation(len(source)).tolist()
        third = -(-count // 3)
        chosen += [source[i] for i in (order * (third // len(order) + 1))[:third]]
    return [chosen[i] for i in rng.permutation(len(chosen)).tolist()][:count]


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Clock:
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def __call__(self, done: int, total: int | None) -> None:
        self.ends.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        return (self.ends[-1] - self.ends[WARM - 1]) / (len(self.ends) - WARM)


def ours(model: Any, rows: Any, job: dict[str, Any], folder: Path) -> dict[str, float]:
    from isometry.objectives import InfoNCE
    from isometry.training.fine_tuning import Settings, fine_tune

    clock = Clock()
    settings = Settings(
        steps=job["steps"], batch_size=job["batch"], lr=2e-5, checkpoints=1,
        length_aware=job["system"] != "isometry, padded",
    )  # fmt: skip
    loss = InfoNCE(model, temperature=0.05)
    history = fine_tune(model, rows, loss, settings, folder=folder, progress=clock)
    return {"seconds": clock.seconds if job["steps"] > WARM else 0.0, "loss": history.losses[job["steps"]]}


def theirs(model: Any, rows: Any, job: dict[str, Any], folder: Path) -> dict[str, float]:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.losses import MultipleNegativesRankingLoss
    from transformers import TrainerCallback

    from isometry.training.rows import batches
    from isometry.training.trainer import FixedBatches

    clock = Clock()

    class Ends(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            clock(state.global_step, None)

    class SameBatches(SentenceTransformerTrainer):
        def get_batch_sampler(self, *_: Any, **__: Any) -> Any:
            return FixedBatches(batches(rows, job["steps"], job["batch"]))

    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder), max_steps=job["steps"], per_device_train_batch_size=job["batch"], learning_rate=2e-5,
        warmup_steps=-(-job["steps"] // 10), save_strategy="steps", save_steps=job["steps"], logging_steps=1,
        report_to=[], disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    data = Dataset.from_dict({"query": list(rows.columns[0]), "positive": list(rows.columns[1])})
    trainer = SameBatches(
        model=model, args=arguments, train_dataset=data, loss=MultipleNegativesRankingLoss(model, scale=20.0),
        callbacks=[Ends()],
    )  # fmt: skip
    trainer.train()
    return {"seconds": clock.seconds, "loss": [e["loss"] for e in trainer.state.log_history if "loss" in e][-1]}


def child(job: dict[str, Any]) -> None:
    import torch

    from isometry.encoders import load
    from isometry.training.rows import Rows

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = load("minilm", engine="torch").model
    texts = pairs(job["pairs"])
    rows = Rows("pairs", ([left for left, _ in texts], [right for _, right in texts]))
    model.encode([texts[0][0]], show_progress_bar=False)
    loaded = peak_mb()
    with tempfile.TemporaryDirectory() as folder:
        found = (theirs if job["system"] == SYSTEMS[0] else ours)(model, rows, job, Path(folder))
    print(json.dumps({**found, "model_mb": loaded, "peak_mb": peak_mb()}))


def measured(**job: Any) -> dict[str, float]:
    """One run in its own process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--child", json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{job} failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def speed(steps: int, repeats: int, batch: int) -> dict[str, dict[str, float]]:
    job = {"steps": steps, "batch": batch, "pairs": max(steps * batch, 3 * batch)}
    runs: dict[str, list[dict[str, float]]] = {system: [] for system in SYSTEMS}
    for turn in range(repeats):
        for system in SYSTEMS[turn % 3 :] + SYSTEMS[: turn % 3]:
            runs[system].append(measured(system=system, **job))
    table = {}
    for system, found in runs.items():
        rates = [1 / run["seconds"] for run in found]
        ratios = [base["seconds"] / run["seconds"] for base, run in zip(runs[SYSTEMS[0]], found, strict=True)]
        above = [run["peak_mb"] - run["model_mb"] for run in found]
        table[system] = {
            "steps_per_second": statistics.median(rates),
            "ratio": statistics.median(ratios),
            "above_model_mb": statistics.median(above),
            "last_loss": found[-1]["loss"],
        }
    return table


def memory(sizes: tuple[int, ...]) -> dict[str, dict[str, float]]:
    """Peak memory of one step above the loaded model, by rows in the batch; large batches are cached."""
    found = {}
    for size in sizes:
        run = measured(system="isometry", steps=1, batch=size, pairs=size + size // 4)
        found[str(size)] = {"above_model_mb": run["peak_mb"] - run["model_mb"], "loss": run["loss"]}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--quick", action="store_true", help="everything in miniature; no figures are kept")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(json.loads(arguments.child))
        return
    if arguments.quick:
        arguments.steps, arguments.repeats, arguments.batch = 4, 1, 8
    table = speed(arguments.steps, arguments.repeats, arguments.batch)
    print(f"{'':>22}  steps/s  ratio  MB above model  last loss")
    for system, row in table.items():
        print(
            f"{system:>22}  {row['steps_per_second']:7.3f}  {row['ratio']:5.2f}  {row['above_model_mb']:14.0f}"
            f"  {row['last_loss']:9.4f}"
        )
    sizes = memory((8, 64) if arguments.quick else (32, 1024))
    for size, figures in sizes.items():
        print(f"{f'one step of {size}':>22}  {figures['above_model_mb']:,.0f} MB above the model")
    if not arguments.quick:
        job = {"steps": arguments.steps, "repeats": arguments.repeats, "batch": arguments.batch, "threads": 1}
        FIGURES.write_text(json.dumps({"job": job, "speed": table, "memory": sizes}, indent=1) + "\n")


if __name__ == "__main__":
    main()
