"""Real vectors for the search benchmarks: the 116,184 distinct WordNet glosses, embedded by all-MiniLM-L6-v2.

Embedding them takes a few minutes once; the vectors are then kept in the user's cache folder.

    python benchmarks/glosses.py
"""

from __future__ import annotations

import csv
import gzip
import hashlib
from pathlib import Path

import numpy as np
import platformdirs


def texts(root: Path | None = None) -> list[str]:
    """Distinct glosses, sorted."""
    from isometry.data import find

    with gzip.open(find("wordnet", root) / "synsets.tsv.gz", "rt", encoding="utf-8", newline="") as file:
        return sorted({row["definition"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)})


def vectors(root: Path | None = None) -> np.ndarray:
    """Unit vectors, float32 ``[n, 384]``, in the order of `texts`."""
    from isometry.encoders import load

    glosses = texts(root)
    digest = hashlib.sha256("\n".join(glosses).encode()).hexdigest()[:16]
    kept = Path(platformdirs.user_cache_dir("isometry")) / "benchmarks" / f"glosses-{digest}.npy"
    if not kept.exists():
        x = load("minilm", engine="torch").encode_document(glosses, batch_size=64)
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept.with_suffix(".tmp.npy"), x)
        kept.with_suffix(".tmp.npy").replace(kept)
    return np.load(kept)


def split(held_out: int = 1000, root: Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Base vectors and ``held_out`` query vectors, shuffled by a fixed seed."""
    x = vectors(root)
    order = np.random.default_rng(0).permutation(len(x))
    return x[order[held_out:]], x[order[:held_out]]


if __name__ == "__main__":
    x = vectors()
    print(f"{len(x)} vectors of {x.shape[1]} dimensions")
