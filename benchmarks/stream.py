"""Memory and resumption of a long stream: texts to Parquet shards, killed once and taken up again.

    python benchmarks/stream.py [--texts 1000000] [--encoder hash|minilm]

``hash`` stands for a model that costs nothing (a fixed random vector per text), so that a million texts measure the
stream itself in minutes; ``minilm`` is the real thing and takes as long as it takes. The child process reports its own
peak memory above what it had once the model was loaded.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import numpy as np

FIGURES = Path(__file__).parent / "figures" / "stream.json"


class HashEncoder:
    """A unit vector drawn from the hash of the text: as wide as MiniLM's, at no cost."""

    def __init__(self) -> None:
        from isometry.types import Space

        self.space, self.max_tokens = Space("hash", 384), 256
        self.table = np.random.default_rng(0).normal(size=(4096, 384)).astype(np.float32)
        self.table /= np.linalg.norm(self.table, axis=1, keepdims=True)

    def room(self, role: str) -> int:
        return 254

    def count_tokens(self, texts: list[str]) -> np.ndarray:
        return np.array([len(text.split()) for text in texts], np.int64)

    def encode(self, texts, *, role, batch_size=32, report=lambda done: None):
        report(len(texts))
        return self.table[[hash(text) % 4096 for text in texts]]


def texts(count: int) -> Iterator[tuple[str, str]]:
    from isometry.data import find

    with gzip.open(find("wordnet") / "synsets.tsv.gz", "rt", encoding="utf-8", newline="") as file:
        glosses = [row["definition"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    for i, gloss in enumerate(islice(cycle(glosses), count)):
        yield f"t{i}", f"{gloss} ({i // len(glosses)})"  # every text is another one


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def child(count: int, kind: str, out: str) -> None:
    from isometry.encoders import load, stream

    encoder = HashEncoder() if kind == "hash" else load("minilm")
    encoder.encode(["warm up"], role="document")
    loaded = peak_mb()
    stream(encoder, texts(count), out)
    print(json.dumps({"model_mb": loaded, "peak_mb": peak_mb()}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--encoder", choices=["hash", "minilm"], default="hash")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.texts, arguments.encoder, arguments.child)
        return
    from isometry.encoders import Manifest

    with tempfile.TemporaryDirectory() as folder:
        options = ["--texts", str(arguments.texts), "--encoder", arguments.encoder, "--child", folder]
        command = [sys.executable, __file__, *options]
        first = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        manifest = Path(folder) / "manifest.json"
        while first.poll() is None and (not manifest.exists() or Manifest.load(folder).count < arguments.texts // 3):
            time.sleep(0.2)
        first.send_signal(signal.SIGKILL)
        first.wait()
        kept = Manifest.load(folder).count
        started = time.perf_counter()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        figures = {
            "texts": arguments.texts,
            "kept_after_kill": kept,
            "seconds_to_finish": time.perf_counter() - started,
        }
        figures |= json.loads(done.stdout)
        figures["above_model_mb"] = figures["peak_mb"] - figures["model_mb"]
        figures["rows_in_shards"] = sum(len(part) for part in Manifest.load(folder))
    for name, value in figures.items():
        print(f"{name:>18}  {value:,.0f}")
    known = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    FIGURES.write_text(json.dumps({**known, arguments.encoder: figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
