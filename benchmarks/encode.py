"""Texts per second and fidelity of the encoding engines, side by side with sentence-transformers (and ONNX Runtime).

    python benchmarks/encode.py [--texts 512] [--repeats 5] [--threads 1 2] [--scifact]

Real texts: short (WordNet glosses of 14 to 18 tokens), long (SciFact abstracts of 180 to 220), mixed (glosses,
questions, abstracts in equal parts, any length). All engines encode the same texts in turn, `--repeats` times; the
table gives medians of wall-clock and CPU rates and the median of the ratio to sentence-transformers within each turn.
`--scifact` adds nDCG@10 on SciFact for both engines.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np

FIGURES = Path(__file__).parent / "figures" / "encode.json"
Encode = Callable[[list[str]], np.ndarray]


def real_texts(count: int) -> dict[str, list[str]]:
    from isometry.data import find, load_set
    from isometry.encoders import load

    with gzip.open(find("wordnet") / "synsets.tsv.gz", "rt", encoding="utf-8", newline="") as file:
        glosses = [row["definition"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    scifact = load_set("ir/scifact", kind="retrieval")
    abstracts, questions = [d.content for d in scifact.corpus], list(scifact.queries.values())
    rng = np.random.default_rng(0)
    rng.shuffle(glosses)
    rng.shuffle(abstracts)
    encoder = load("minilm", engine="torch")

    def of_length(texts: list[str], low: int, high: int) -> list[str]:
        tokens = encoder.count_tokens(texts)
        return [t for t, n in zip(texts, tokens, strict=True) if low <= n <= high][:count]

    third = count // 3
    mixed = [*glosses[-third:], *questions[:third], *abstracts[-third:]]
    rng.shuffle(mixed)
    long = of_length(abstracts, 180, 220)[: max(32, count // 4)]
    return {"short": of_length(glosses[:20_000], 14, 18), "long": long, "mixed": mixed}


def int8_engine() -> Encode:
    """Return what `fast` is on a processor with 8-bit but without bfloat16 products."""
    from isometry.encoders import engines as ours
    from isometry.encoders import load

    able, ours.multiplies_bfloat16 = ours.multiplies_bfloat16, lambda: False
    try:
        return load("minilm", engine="fast").encode_document
    finally:
        ours.multiplies_bfloat16 = able


def engines() -> dict[str, Encode]:
    from sentence_transformers import SentenceTransformer

    from isometry.encoders import load
    from isometry.encoders.folders import locate

    folder = str(locate("minilm")[1])
    peer = SentenceTransformer(folder, device="cpu")
    reference, fast = load("minilm", engine="torch"), load("minilm", engine="fast")
    found: dict[str, Encode] = {
        "sentence-transformers": lambda texts: np.asarray(peer.encode(texts, batch_size=32, show_progress_bar=False)),
        "isometry torch": reference.encode_document,
        "isometry fast": fast.encode_document,
    }
    if find_spec("onnxruntime") and (Path(folder) / "onnx" / "model.onnx").is_file():
        onnx = SentenceTransformer(folder, device="cpu", backend="onnx")
        found["onnxruntime"] = lambda texts: np.asarray(onnx.encode(texts, batch_size=32, show_progress_bar=False))
    return found


def race(texts: list[str], found: dict[str, Encode], repeats: int) -> dict[str, dict[str, float]]:
    wall: dict[str, list[float]] = {name: [] for name in found}
    cpu: dict[str, list[float]] = {name: [] for name in found}
    vectors = {name: encode(texts) for name, encode in found.items()}  # the first pass warms up and is not timed
    for turn in range(repeats):
        names = list(found)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            started, used = time.perf_counter(), time.process_time()
            found[name](texts)
            wall[name].append(time.perf_counter() - started)
            cpu[name].append(time.process_time() - used)
    peer = "sentence-transformers"
    rows = {}
    for name in found:
        cosine = (vectors[name] * vectors[peer]).sum(axis=1)
        rows[name] = {
            "texts_per_second": len(texts) / statistics.median(wall[name]),
            "texts_per_cpu_second": len(texts) / statistics.median(cpu[name]),
            "ratio_wall": statistics.median(p / w for p, w in zip(wall[peer], wall[name], strict=True)),
            "ratio_cpu": statistics.median(p / c for p, c in zip(cpu[peer], cpu[name], strict=True)),
            "cosine_mean": float(cosine.mean()),
            "cosine_min": float(cosine.min()),
        }
    return rows


def scifact() -> dict[str, float]:
    from isometry.encoders import load
    from isometry.workbench import evaluate_set

    figures = {}
    for engine in ("torch", "fast"):
        result = evaluate_set("ir/scifact", load("minilm", engine=engine))
        figures[engine] = result.scores.mean("ndcg@10")
    figures["delta_points"] = 100 * (figures["fast"] - figures["torch"])
    return figures


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--scifact", action="store_true")
    parser.add_argument("--int8", action="store_true", help="add the fast engine of processors without bfloat16")
    arguments = parser.parse_args()
    texts, found = real_texts(arguments.texts), engines()
    if arguments.int8:
        found["isometry fast, int8"] = int8_engine()
    figures: dict[str, object] = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        os.environ["RAYON_NUM_THREADS"] = str(threads)
        for kind, part in texts.items():
            print(f"\n{kind}: {len(part)} texts, {threads} thread(s)")
            heads = ("texts/s", "per CPU s", "x wall", "x CPU")
            print(f"{'engine':>24}" + "".join(f"{head:>10}" for head in heads) + f"{'cosine mean':>13}{'min':>9}")
            rows = race(part, found, arguments.repeats)
            for name, row in rows.items():
                rates = f"{row['texts_per_second']:10.1f}{row['texts_per_cpu_second']:10.1f}"
                ratios = f"{row['ratio_wall']:10.2f}{row['ratio_cpu']:10.2f}"
                print(f"{name:>24}{rates}{ratios}{row['cosine_mean']:13.6f}{row['cosine_min']:9.5f}")
            figures[f"{kind}, {threads} thread(s){', with int8' if arguments.int8 else ''}"] = rows
    if arguments.scifact:
        figures["scifact ndcg@10"] = scores = scifact()
        print(f"\nSciFact nDCG@10: {scores}")
    FIGURES.parent.mkdir(exist_ok=True)
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
