"""Hybrid and vector search against BM25 alone, on the judged queries of real sets, with intervals.

python benchmarks/hybrid.py [--sets ir/scifact ir/cranfield]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

FIGURES = Path(__file__).parent / "figures" / "hybrid.json"


def main() -> None:
    from isometry.encoders import load
    from isometry.types import finite
    from isometry.workbench import evaluate_set

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["ir/scifact", "ir/cranfield"])
    arguments = parser.parse_args()
    rows = []
    for name in arguments.sets:
        for mode in ("hybrid", "vector"):
            result = evaluate_set(name, load("minilm"), mode=mode, against="keyword")
            rows.append(result.to_dict())
            found = rows[-1]["against"]["metrics"]["ndcg@10"]
            print(f"{name} {mode}: nDCG@10 {result.scores.mean('ndcg@10'):.4f}, against keyword {found}")
    FIGURES.write_text(json.dumps(finite({"rows": rows}), indent=1) + "\n")


if __name__ == "__main__":
    main()
