"""Exact MaxSim between sets of token vectors: a fused, register-tiled product, single-threaded.

A general matrix product writes every token-by-token score to memory and a second pass reads them for the maxima. Here
the maxima are taken while the products are in registers, and only one number per query and document is written.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from isometry.errors import InputError
from isometry.indexes.maxsim_tile import COLUMNS, TOKENS, pointer, tile
from isometry.types import Embeddings, FloatArray, IntArray, check_reach

HALF_BIAS: Final = np.float32(2.0**112)  # float16 bits moved into a float32 are this much too small
PADDED: Final = 1 << 22  # token-by-token scores held at once by the padded way


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _document(tokens: Any, start: int, count: int, queries: Any, maxima: Any, rows: Any) -> None:
    """Largest product of each query token with ``tokens[start:start + count]``, into ``maxima``."""
    dim, size = tokens.shape[1], queries.shape[1] * queries.shape[2]
    maxima[:] = -np.inf
    for block in range(queries.shape[0]):
        for t in range(0, count, TOKENS):
            for u in range(TOKENS):  # the last tile repeats the last token: a maximum does not mind
                rows[u] = start + min(t + u, count - 1)
            tile(pointer(tokens), pointer(rows), dim, pointer(queries), block * size, pointer(maxima), block * COLUMNS)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _decode_int8(codes: Any, scale: Any, start: int, count: int, out: Any) -> None:
    for t in range(count):
        step = scale[start + t]
        for j in range(out.shape[1]):
            out[t, j] = np.float32(codes[start + t, j]) * step


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _decode_half(codes: Any, start: int, count: int, out: Any, bits: Any) -> None:
    for t in range(count):
        for j in range(out.shape[1]):
            half = np.int32(codes[start + t, j])
            bits[t, j] = ((half & 0x8000) << 16) | ((half & 0x7FFF) << 13)
        for j in range(out.shape[1]):
            out[t, j] *= HALF_BIAS


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _sum(maxima: Any, offsets: Any, out: Any, i: int) -> None:
    for q in range(len(offsets) - 1):
        total = np.float32(0)
        for c in range(offsets[q], offsets[q + 1]):
            total += maxima[c]
        out[q, i] = total


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _scan(tokens: Any, starts: Any, counts: Any, queries: Any, offsets: Any, out: Any) -> None:
    maxima, rows = np.empty(queries.shape[0] * COLUMNS, np.float32), np.empty(TOKENS, np.int64)
    for i in range(len(starts)):
        _document(tokens, starts[i], counts[i], queries, maxima, rows)
        _sum(maxima, offsets, out, i)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _scan_int8(codes: Any, scale: Any, starts: Any, counts: Any, queries: Any, offsets: Any, out: Any) -> None:
    maxima, rows = np.empty(queries.shape[0] * COLUMNS, np.float32), np.empty(TOKENS, np.int64)
    tokens = np.empty((counts.max(), codes.shape[1]), np.float32)
    for i in range(len(starts)):
        _decode_int8(codes, scale, starts[i], counts[i], tokens)
        _document(tokens, 0, counts[i], queries, maxima, rows)
        _sum(maxima, offsets, out, i)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _scan_half(codes: Any, starts: Any, counts: Any, queries: Any, offsets: Any, out: Any) -> None:
    maxima, rows = np.empty(queries.shape[0] * COLUMNS, np.float32), np.empty(TOKENS, np.int64)
    tokens = np.empty((counts.max(), codes.shape[1]), np.float32)
    bits = tokens.view(np.int32)
    for i in range(len(starts)):
        _decode_half(codes, starts[i], counts[i], tokens, bits)
        _document(tokens, 0, counts[i], queries, maxima, rows)
        _sum(maxima, offsets, out, i)


def pack(queries: FloatArray) -> FloatArray:
    """Query tokens ``[t, d]`` as the blocks ``[ceil(t / COLUMNS), d, COLUMNS]`` that `scan` reads, zeros behind."""
    t, d = queries.shape
    blocks = -(-t // COLUMNS)
    padded = np.zeros((blocks * COLUMNS, d), np.float32)
    padded[:t] = queries
    return np.ascontiguousarray(padded.reshape(blocks, COLUMNS, d).transpose(0, 2, 1))


def scan(
    codes: NDArray[Any], scale: FloatArray, starts: IntArray, counts: IntArray, queries: FloatArray, offsets: IntArray
) -> FloatArray:
    """MaxSim of stacked queries with documents somewhere in an array of tokens, float32 ``[q, n]``.

    A score depends on the query's and the document's tokens alone, to the last bit: not on what else is asked.

    Parameters
    ----------
    codes
        float32, float16 or int8 ``[t, d]``, contiguous.
    scale
        float32 ``[t]`` for int8 (token = scale * code); not read otherwise.
    starts, counts
        int64 ``[n]``: document i owns rows ``starts[i]:starts[i] + counts[i]``, at least one.
    queries, offsets
        float32 ``[t, d]`` and int64 ``[q + 1]``: all queries' tokens, one after the other.
    """
    out = np.empty((len(offsets) - 1, len(starts)), np.float32)
    if not out.size:
        return out
    packed = pack(queries)
    if codes.dtype == np.int8:
        _scan_int8(codes, scale, starts, counts, packed, offsets, out)
    elif codes.dtype == np.float16:
        _scan_half(codes.view(np.uint16), starts, counts, packed, offsets, out)
    else:
        _scan(codes, starts, counts, packed, offsets, out)
    return out


def ragged(emb: Embeddings, what: str) -> IntArray:
    """Offsets of multi-vector embeddings; `InputError` if they are none, an item has no token, or products overflow."""
    if emb.offsets is None:
        raise InputError(f"{what} must be multi-vector embeddings (with offsets); these hold one vector per id.")
    if len(empty := np.flatnonzero(np.diff(emb.offsets) == 0)):
        raise InputError(f"{what} hold {len(empty)} items without a token vector, first {emb.ids[empty[0]]!r}; "
                         "leave them out.")  # fmt: skip
    check_reach(emb.vectors, what)
    return emb.offsets


def maxsim_scores(
    queries: Embeddings, documents: Embeddings, *, how: Literal["ragged", "padded"] = "ragged"
) -> FloatArray:
    """MaxSim of each query with each document (ColBERT, arXiv:2004.12832, eq. 3), float32 ``[q, n]``.

    Parameters
    ----------
    queries, documents
        Multi-vector embeddings of one space.
    how
        ``"ragged"``: the fused product. ``"padded"``: matrix products over documents padded to one length, then the
        maxima, as tensor libraries do it; several times slower.

    Raises
    ------
    InputError
        If an item has no token vector, or the embeddings are not multi-vector.
    SpaceMismatch
        If the spaces differ.

    Examples
    --------
    >>> from isometry.types import Space, id_array
    >>> x = np.array([[1, 0], [0, 1], [1, 0]], np.float32)
    >>> emb = Embeddings(x, id_array("ab"), Space("toy", 2, similarity="maxsim"), offsets=np.array([0, 2, 3]))
    >>> maxsim_scores(emb, emb)
    array([[2., 1.],
           [1., 1.]], dtype=float32)
    """
    documents.space.check(queries.space)
    asked, held = ragged(queries, "queries"), ragged(documents, "documents")
    starts, counts = held[:-1], np.diff(held)
    if how == "padded":
        return _padded(queries, asked, documents, starts, counts)
    return scan(documents.vectors, np.empty(0, np.float32), starts, counts, queries.vectors, asked)


def _padded(
    queries: Embeddings, asked: IntArray, documents: Embeddings, starts: IntArray, counts: IntArray
) -> FloatArray:
    n, longest = len(counts), int(counts.max(initial=1))
    out = np.empty((len(queries), n), np.float32)
    room = max(1, PADDED // (longest * max(1, len(queries.vectors))))
    place = np.arange(longest)
    for first in range(0, n, room):
        part = slice(first, min(n, first + room))
        real = place < counts[part, None]
        rows = starts[part, None] + np.minimum(place, counts[part, None] - 1)
        scores = documents.vectors[rows] @ queries.vectors.T  # [n, m, t]
        scores[~real] = -np.inf
        out[:, part] = np.add.reduceat(scores.max(axis=1), asked[:-1], axis=1).T if len(queries) else 0
    return out
