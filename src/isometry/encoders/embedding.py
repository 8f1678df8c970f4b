"""The door from texts to `Embeddings`: what does not fit is counted, what is known is not computed again."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from isometry.encoders.text import TextEncoder, check_texts
from isometry.errors import TextTooLong, Truncated, UnknownName
from isometry.types import Embeddings, FloatArray, IntArray, Role, id_array, unit
from isometry.types.progress import Progress

if TYPE_CHECKING:
    from isometry.encoders.cache import EmbeddingCache

OnTruncate = Literal["warn", "error", "chunk", "ignore"]


def embed(
    encoder: TextEncoder,
    items: Sequence[str],
    *,
    role: Role,
    ids: Sequence[str] | None = None,
    on_truncate: OnTruncate = "warn",
    cache: EmbeddingCache | None = None,
    allow_empty: bool = False,
    progress: Progress | None = None,
) -> Embeddings:
    """Embed texts in one role.

    Equal texts are encoded once, and texts in ``cache`` not at all.

    Parameters
    ----------
    items
        Texts, none of them empty.
    ids
        One each; default ``"0"``, ``"1"`` ...
    on_truncate
        What to do with a text beyond the window: ``"warn"`` once with the counts, raise an ``"error"``, ``"ignore"``
        it, or ``"chunk"``: encode its windows and take their mean weighted by tokens, scaled to norm 1 where the
        space is. All but ``"chunk"`` count the tokens left out in ``cut_tokens``.
    cache
        Vectors by space, role and text.
    allow_empty
        Take empty texts too, as retrieval benchmarks do, whose judgments may name them.
    progress
        Called with (done, total).

    Raises
    ------
    EmptyInput, InputError
        If an item is empty or no text.
    TextTooLong
        Under ``on_truncate="error"``; names the first row.
    """
    if on_truncate not in get_args(OnTruncate):
        raise UnknownName("on_truncate", str(on_truncate), get_args(OnTruncate))
    texts = check_texts(items, empty=allow_empty)
    names = id_array(map(str, range(len(texts))) if ids is None else ids)
    cut = _cut(encoder, texts, role)
    _report(cut, encoder, on_truncate)
    unique = list(dict.fromkeys(texts))
    pieces = {text: _windows(encoder, text, role) for text in unique} if on_truncate == "chunk" and cut.any() else {}
    wanted = list(dict.fromkeys(piece for text in unique for piece, _ in pieces.get(text, [(text, 1)])))
    vectors = _vectors(encoder, wanted, role, cache, progress)
    if pieces:
        rows = {text: row for row, text in enumerate(wanted)}
        vectors = _means(vectors, [[(rows[p], n) for p, n in pieces[text]] for text in unique], encoder)
        cut = np.zeros_like(cut)
    order = {text: row for row, text in enumerate(unique if pieces else wanted)}
    picked = vectors[[order[text] for text in texts]] if texts else vectors
    return Embeddings(picked, names, encoder.space, role=role, cut_tokens=cut)


def _cut(encoder: TextEncoder, texts: list[str], role: Role) -> IntArray:
    """Tokens of each text that do not fit; a text of fewer characters than the window has tokens surely fits."""
    room = encoder.room(role)
    counts: IntArray = np.zeros(len(texts), np.int64)
    long = [row for row, text in enumerate(texts) if len(text) > room]
    if long:
        counts[long] = encoder.count_tokens([texts[row] for row in long])
    return np.maximum(counts - room, 0)


def _report(cut: IntArray, encoder: TextEncoder, on_truncate: OnTruncate) -> None:
    rows = np.flatnonzero(cut)
    if not len(rows):
        return
    first = int(rows[0])
    if on_truncate == "error":
        raise TextTooLong(
            f"Row {first} is {cut[first]:,} tokens too long for {encoder.space.model} (window {encoder.max_tokens}); "
            "shorten it, or use on_truncate='chunk'."
        )
    if on_truncate == "warn":
        message = (
            f"{len(rows):,} of {len(cut):,} texts are longer than the window of {encoder.max_tokens} tokens; "
            f"{int(cut.sum()):,} tokens were left out."
        )
        warnings.warn(message, Truncated, stacklevel=3)


def _windows(encoder: TextEncoder, text: str, role: Role) -> list[tuple[str, int]]:
    """Cut a text into stretches that fit, each with its number of tokens."""
    room = encoder.room(role)
    if len(text) <= room:
        return [(text, 1)]
    spans = encoder.token_spans(text)
    found: list[tuple[str, int]] = []
    start = 0
    while start < len(spans):
        stop = min(start + room, len(spans))
        while True:
            piece = text[spans[start][0] : spans[stop - 1][1]]
            tokens = int(encoder.count_tokens([piece])[0])
            if tokens <= room or stop == start + 1:
                break
            stop = max(start + 1, stop - (tokens - room))  # a word cut in two may have more tokens than whole
        if piece.strip():
            found.append((piece, max(tokens, 1)))
        start = stop
    return found or [(text, 1)]


def _means(vectors: FloatArray, groups: list[list[tuple[int, int]]], encoder: TextEncoder) -> FloatArray:
    means = np.stack([np.average(vectors[[r for r, _ in g]], axis=0, weights=[n for _, n in g]) for g in groups])
    if encoder.space.normalized:
        means = unit(means)
    return means.astype(np.float32)


def _vectors(
    encoder: TextEncoder,
    texts: list[str],
    role: Role,
    cache: EmbeddingCache | None,
    progress: Progress | None,
) -> FloatArray:
    vectors = np.empty((len(texts), encoder.space.dim), np.float32)
    # Engines and windows share a space, but a reference run must not be handed what another kept.
    variant = "" if cache is None else f"{encoder.precision}, {encoder.max_tokens} tokens"
    known: NDArray[np.bool_] = np.zeros(len(texts), bool)
    if cache is not None:
        known = cache.get_many(encoder.space, role, texts, out=vectors, variant=variant)
    done = int(known.sum())

    def report(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, len(texts))

    report(0)
    missing = np.flatnonzero(~known)
    for start in range(0, len(missing), 4096):  # in stretches, so that an interrupted run keeps what it has cached
        rows = missing[start : start + 4096]
        stretch = [texts[row] for row in rows]
        vectors[rows] = encoder.encode(stretch, role=role, report=report)
        if cache is not None:
            cache.put_many(encoder.space, role, stretch, vectors[rows], variant=variant)
    return vectors
