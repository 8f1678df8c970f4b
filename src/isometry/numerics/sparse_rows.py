"""Tables that are mostly zeros: CSR where rows are well filled, COO where they are not."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
CSR_FROM = 3  # entries a row on average


def column_bytes(d: int) -> int:
    """Bytes of one column number."""
    return 1 if d <= 256 else 2


def sparse_bytes(n: int, d: int, kept: int) -> int:
    """Bytes of a table ``[n, d]`` with ``kept`` entries: values, columns, and row pointers (CSR) or rows (COO).

    >>> sparse_bytes(100, 16, 50)
    450
    """
    rows = 4 * (n + 1) if kept >= CSR_FROM * n else 4 * kept
    return kept * (4 + column_bytes(d)) + rows


def most_kept(n: int, d: int, limit: float) -> int:
    """Return the most entries whose bytes stay within ``limit`` (-1 if not even none fits)."""
    return max((k for k in _candidates(n, d, limit) if sparse_bytes(n, d, k) <= limit), default=-1)


def _candidates(n: int, d: int, limit: float) -> list[int]:
    """Fullest count of either form (COO ends where CSR begins)."""
    coo = min(int(limit // (8 + column_bytes(d))), CSR_FROM * n - 1, n * d)
    csr = min(int((limit - 4 * (n + 1)) // (4 + column_bytes(d))), n * d)
    return [k for k in (coo, csr if csr >= CSR_FROM * n else -1) if 0 <= k <= n * d]


def top_mask(values: Floats, kept: int) -> NDArray[np.bool_]:
    """Mark the ``kept`` entries of largest magnitude (exactly that many; ties fall to the earlier entry)."""
    mask = np.zeros(values.size, bool)
    mask[np.argsort(-np.abs(values).reshape(-1), kind="stable")[:kept]] = True
    return mask.reshape(values.shape)


def to_sparse(table: Floats, mask: NDArray[np.bool_]) -> dict[str, NDArray[np.generic]]:
    """Keep the entries under ``mask``: ``values``, ``columns``, and ``pointers`` (CSR) or ``rows`` (COO)."""
    rows, columns = np.nonzero(mask)
    narrow = np.uint8 if column_bytes(table.shape[1]) == 1 else np.int16
    arrays: dict[str, NDArray[np.generic]] = {
        "values": table[mask].astype(np.float32),
        "columns": columns.astype(narrow),
    }
    if len(rows) >= CSR_FROM * len(table):
        arrays["pointers"] = np.searchsorted(rows, np.arange(len(table) + 1)).astype(np.int32)
    else:
        arrays["rows"] = rows.astype(np.int32)
    return arrays


def sparse_rows(arrays: Mapping[str, NDArray[np.generic]], ids: NDArray[np.int64], d: int) -> Floats:
    """Rows ``[b, d]`` of a table kept by `to_sparse`."""
    if "pointers" in arrays:
        start, stop = arrays["pointers"][ids].astype(np.int64), arrays["pointers"][ids + 1].astype(np.int64)
    else:
        start = np.searchsorted(arrays["rows"], ids)
        stop = np.searchsorted(arrays["rows"], ids, side="right")
    counts = stop - start
    target = np.repeat(np.arange(len(ids)), counts)
    source = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(start, counts)
    dense = np.zeros((len(ids), d), np.float32)
    dense[target, arrays["columns"][source].astype(np.int64)] = arrays["values"][source]
    return dense
