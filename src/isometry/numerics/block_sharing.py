"""Which blocks of rows of a table are so alike that one can stand for the other (found by p-stable hashing)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def blocks_of(table: Floats, block_rows: int) -> Floats:
    """Cut ``[n, d]`` into blocks ``[m, block_rows * d]``; the last is padded with zeros."""
    n, d = table.shape
    count = -(-n // block_rows)
    padded = np.zeros((count * block_rows, d), np.float32)
    padded[:n] = table
    return padded.reshape(count, block_rows * d)


def stable_hashes(points: Floats, *, width: float, tables: int, seed: int) -> Ints:
    """L2 locality-sensitive hashes ``floor((a x + b) / width)``, int64 ``[m, tables]`` (Datar et al. 2004)."""
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((points.shape[1], tables)).astype(np.float32)
    return np.floor((points @ directions) / width + rng.random(tables)).astype(np.int64)


def share_blocks(
    blocks: Floats, *, closeness: float, agreement: float = 0.7, width: float = 0.09, tables: int = 90, keep: int = 1,
    seed: int = 0,
) -> Ints:  # fmt: skip
    """Replace blocks by earlier similar ones; return for each block the one that stands for it, int64 ``[m]``.

    Blocks are visited by ascending third quartile of their magnitudes (unimportant ones first); a block gives way to an
    earlier kept one that shares a hash and agrees with it in at least ``agreement`` of its entries (Dedup: Zhou et al.,
    PVLDB 2022; one hash per table).

    Parameters
    ----------
    closeness
        Entries agree when they differ by less, in units of the table's standard deviation (an absolute threshold would
        depend on how the table was scaled).
    agreement
        Share of entries that must agree.
    width, tables
        Bucket width of the hashes, relative to the norm of a block of typical entries, and number of hash tables.
    keep
        Stop as soon as so many blocks are left.
    """
    scale = float(blocks.std()) or 1.0
    hashes = stable_hashes(blocks / scale, width=max(width, closeness) * np.sqrt(blocks.shape[1]), tables=tables,
                           seed=seed)  # fmt: skip
    owner, left = np.arange(len(blocks)), len(blocks)
    buckets: list[dict[int, list[int]]] = [{} for _ in range(tables)]
    for i in np.argsort(np.quantile(np.abs(blocks), 0.75, axis=1), kind="stable").tolist():
        near = sorted({j for bucket, key in zip(buckets, hashes[i].tolist(), strict=True) for j in bucket.get(key, ())})
        if near and left > keep:
            same = (np.abs(blocks[near] - blocks[i]) < closeness * scale).mean(axis=1)
            if same.max() >= agreement:
                owner[i], left = near[int(same.argmax())], left - 1
                continue
        for bucket, key in zip(buckets, hashes[i].tolist(), strict=True):
            bucket.setdefault(key, []).append(i)
    return owner
