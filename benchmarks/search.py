"""The first search of a process and a warm one, on a collection of 10,000 documents.

    python benchmarks/search.py [--documents 10000] [--repeats 5]

Cold: ``isometry search`` in a new process, wall clock, median. Its floor is a process that imports what the encoder
needs and embeds one query with it; the difference is our own overhead. Warm: `Searcher.search` in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FIGURES = Path(__file__).parent / "figures"
FLOOR = "from isometry.encoders import load; load('minilm').encode_query(['a question about electronics'])"
HELP = ["--help"]


def wall(command: list[str], repeats: int, env: dict[str, str]) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=env)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def corpus(count: int) -> list[str]:
    from isometry.data import load_set

    texts = [d.content for name in ("ir/npl", "ir/scifact") for d in load_set(name, kind="retrieval").corpus]
    if len(texts) < count:
        sys.exit(f"Only {len(texts)} texts found, {count} wanted.")
    return texts[:count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "ISOMETRY_HOME": folder, "HF_HUB_OFFLINE": "1"}
        os.environ["ISOMETRY_HOME"] = folder
        source = Path(folder) / "texts.jsonl"
        with source.open("w", encoding="utf-8") as file:
            for i, text in enumerate(corpus(arguments.documents)):
                file.write(json.dumps({"id": f"d{i}", "text": text}) + "\n")
        cli = [sys.executable, "-m", "isometry.cli.app"]
        started = time.perf_counter()
        subprocess.run([*cli, "index", str(source), "--name", "bench"], check=True, capture_output=True, env=env)
        figures = {"documents": arguments.documents, "index_seconds": time.perf_counter() - started}
        query = "measurement of dielectric constant"
        figures["help_seconds"] = wall([*cli, "--help"], arguments.repeats, env)
        figures["import_seconds"] = wall([sys.executable, "-c", "import isometry"], arguments.repeats, env) - wall(
            [sys.executable, "-c", "pass"], arguments.repeats, env
        )
        for mode in ("hybrid", "vector", "keyword"):
            command = [*cli, "search", query, "-c", "bench", "--mode", mode]
            figures[f"cold_{mode}_seconds"] = wall(command, arguments.repeats, env)
        figures["floor_seconds"] = wall([sys.executable, "-c", FLOOR], arguments.repeats, env)
        figures["own_overhead_seconds"] = figures["cold_hybrid_seconds"] - figures["floor_seconds"]
        figures |= warm(query, arguments.repeats)
    for name, value in figures.items():
        print(f"{name:>24}  {value:,.3f}")
    FIGURES.mkdir(exist_ok=True)
    (FIGURES / "search.json").write_text(json.dumps(figures, indent=1) + "\n")


def warm(query: str, repeats: int) -> dict[str, float]:
    from isometry.workbench import Searcher, open_collection

    figures = {}
    with open_collection("bench") as collection:
        searcher = Searcher(collection)
        for mode in ("hybrid", "vector", "keyword"):
            searcher.search(query, mode=mode)
            times = []
            for i in range(repeats * 10):
                started = time.perf_counter()
                searcher.search(f"{query} {i}", mode=mode)
                times.append(time.perf_counter() - started)
            figures[f"warm_{mode}_ms"] = statistics.median(times) * 1000
    return figures


if __name__ == "__main__":
    main()
