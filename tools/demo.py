"""The main job, step by step, as a newcomer would type it. Run it with `make demo`."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

STEPS = (
    ("Index the built-in corpus: 102 summaries of embedding papers.", ["index", "papers"]),
    ("Ask it in your own words.", ["search", "make vectors smaller without losing recall", "-k", "3"]),
    ("Filter by what the documents say about themselves.",
     ["search", "which pooling works best?", "-k", "2", "--where", "year >= 2024", "-c", "papers"]),
    ("See which stage contributed what.",
     ["search", "searching vectors with attribute constraints", "-k", "1", "--explain", "-c", "papers"]),
    ("How good is that? Judged queries, 95 % intervals.",
     ["eval", "-c", "papers", "--mode", "hybrid", "--against", "keyword"]),
    ("What do these vectors look like?", ["inspect", "papers"]),
)  # fmt: skip


def main() -> None:
    command = str(Path(sys.executable).with_name("isometry"))
    started = time.perf_counter()
    for title, arguments in STEPS:
        if "search" in arguments and "-c" not in arguments:
            arguments = [*arguments, "-c", "papers"]
        print(f"\n\033[1m{title}\033[0m" if sys.stdout.isatty() else f"\n{title}")
        print(f"$ isometry {shlex.join(arguments)}", flush=True)
        subprocess.run([command, *arguments], check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    activate = "source .venv/bin/activate"
    print(f"\nDone in {time.perf_counter() - started:.0f} s. Now your own files:")
    print(f"  {activate}\n  isometry index ~/Documents\n  isometry search 'what you are looking for'")


if __name__ == "__main__":
    main()
