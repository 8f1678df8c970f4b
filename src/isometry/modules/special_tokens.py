"""Inserted tokens as a bottleneck: what follows them sees the text before only through them (GEM, arXiv:2506.04344).

A row is ``x_1 .. x_s, g_1 .. g_k, x_{s+1} .. x_L``. The prefix attends causally; each inserted token attends to the
whole prefix and to itself, not to its siblings; the suffix attends causally to itself and to all inserted tokens, never
to the prefix. To predict the suffix, the model must write the prefix into the inserted tokens' states. For a
vector, the tokens are put behind the whole text, and their states are averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from isometry.errors import DimensionMismatch, EmptyInput, InputError
from isometry.modules.attention_mask import run

PAD, PREFIX, SPECIAL, SUFFIX = -1, 0, 1, 2
IGNORE = -100


@dataclass(frozen=True)
class Inserted:
    """A padded batch with inserted tokens.

    Parameters
    ----------
    input_ids, attention_mask
        int64 ``[b, t]``.
    parts
        int64 ``[b, t]``: 0 prefix, 1 inserted, 2 suffix, -1 padding.
    labels
        int64 ``[b, t]``: suffix tokens (and prefix tokens where asked for), else -100. The first suffix token is
        predicted from the last inserted one; no inserted token is ever a target.
    """

    input_ids: Tensor
    attention_mask: Tensor
    parts: Tensor
    labels: Tensor

    def may_attend(self, *, blind: bool = False) -> Tensor:
        """Return the rule table of this batch, see `bottleneck_mask`."""
        return bottleneck_mask(self.parts, blind=blind)


def bottleneck_mask(parts: Tensor, *, blind: bool = False) -> Tensor:
    """Return who may attend to whom around inserted tokens (the three-block mask of GEM), bool ``[b, t, t]``.

    Parameters
    ----------
    parts
        int64 ``[b, t]``: 0 prefix, 1 inserted, 2 suffix, -1 padding; within a row the parts follow in this order.
    blind
        Also bar the inserted tokens from the prefix. Then nothing at all can pass, which `check_bottleneck` uses.

    Notes
    -----
    A padded position attends to itself alone: an empty row would make its softmax NaN.

    Examples
    --------
    >>> bottleneck_mask(torch.tensor([[0, 1, 2]]))[0].int().tolist()
    [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    """
    if parts.ndim != 2:
        raise DimensionMismatch(f"parts must be [b, t], got {list(parts.shape)}.")
    row, column = parts[:, :, None], parts[:, None, :]
    order = torch.arange(parts.shape[1], device=parts.device)
    itself, earlier = order[:, None] == order[None, :], order[:, None] > order[None, :]
    same = (row == column) & (row != SPECIAL)
    into = ((row == SUFFIX) & (column == SPECIAL)) | ((row == SPECIAL) & (column == PREFIX) & (not blind))
    return itself | (earlier & (same | into) & (row != PAD))


def insert_tokens(
    rows: Sequence[Sequence[int]],
    tokens: Sequence[int],
    splits: Sequence[int] | None = None,
    *,
    pad: int = 0,
    side: Literal["left", "right"] = "right",
    prefix_targets: bool = False,
) -> Inserted:
    """Insert tokens into every row after its first ``splits[i]`` tokens; default: behind the whole row.

    Parameters
    ----------
    rows
        Token numbers of every text, without padding.
    tokens
        The inserted tokens g_1 .. g_k.
    splits
        Where each prefix ends, in 1..len(row).
    pad, side
        Padding token and the side it is put on.
    prefix_targets
        Whether prefix tokens are predicted as well.

    Raises
    ------
    EmptyInput
        If there is no row, or no token to insert.
    InputError
        If a split leaves no prefix or lies behind its row.

    Examples
    --------
    >>> batch = insert_tokens([[5, 6, 7]], [9], [2])
    >>> batch.input_ids.tolist(), batch.labels.tolist()
    ([[5, 6, 9, 7]], [[-100, -100, -100, 7]])
    """
    if not rows or not tokens:
        raise EmptyInput("Insertion needs at least one row and one token to insert.")
    splits = [len(row) for row in rows] if splits is None else splits
    for number, (row, split) in enumerate(zip(rows, splits, strict=True)):
        if not 1 <= split <= len(row):
            raise InputError(
                f"Row {number} cannot be split after {split} tokens: its prefix needs 1..{len(row)} of them."
            )
    width = max(map(len, rows)) + len(tokens)
    ids = torch.full((len(rows), width), pad)
    parts = torch.full_like(ids, PAD)
    for number, (row, split) in enumerate(zip(rows, splits, strict=True)):
        whole = [*row[:split], *tokens, *row[split:]]
        start = 0 if side == "right" else width - len(whole)
        ids[number, start : start + len(whole)] = torch.tensor(whole)
        kinds = [PREFIX] * split + [SPECIAL] * len(tokens) + [SUFFIX] * (len(row) - split)
        parts[number, start : start + len(whole)] = torch.tensor(kinds)
    counted = (parts == SUFFIX) | (parts == PREFIX) if prefix_targets else parts == SUFFIX
    return Inserted(ids, (parts != PAD).long(), parts, ids.masked_fill(~counted, IGNORE))


def draw_splits(lengths: Sequence[int], *, least: int = 4, seed: int = 0) -> tuple[list[int], list[int]]:
    """Draw where to insert: uniform in ``least .. length - least``; return (rows long enough, their splits).

    Rows shorter than ``2 * least`` carry no signal and are skipped: ``len(lengths) - len(kept)`` of them.

    >>> draw_splits([8, 3])
    ([0], [4])
    """
    if least < 1:
        raise InputError(f"Prefix and suffix need at least 1 token each, got least={least}.")
    generator = torch.Generator().manual_seed(seed)
    kept = [row for row, length in enumerate(lengths) if length >= 2 * least]
    ranges = [lengths[row] - 2 * least + 1 for row in kept]
    return kept, [least + int(torch.randint(r, (), generator=generator)) for r in ranges]


def special_states(states: Tensor, parts: Tensor) -> Tensor:
    """Return the mean state ``[b, d]`` of each row's inserted tokens, from states ``[b, t, d]``."""
    weight = (parts == SPECIAL).to(states.dtype)[..., None]
    if not weight.sum(1).all():
        raise InputError("A row holds no inserted token, so it has no vector; pass the parts of `insert_tokens`.")
    return (states * weight).sum(1) / weight.sum(1)


def add_tokens(lm: Any, count: int, *, tokenizer: Any = None) -> list[int]:
    """Add ``count`` tokens to a language model in place and return their numbers.

    Their input (and output) rows begin as the mean of the old rows: at a random place a new row of a tied head could
    take probability from the old words. Predictions should still leave them out, see `old_vocabulary`.

    Parameters
    ----------
    lm
        A transformers model with a language-model head.
    tokenizer
        Learns the names ``<|embed_1|>`` ...; needed to save them with the model.

    Raises
    ------
    InputError
        If ``count`` is below 1.
    """
    if count < 1:
        raise InputError(f"Add at least one token, got {count}.")
    old = lm.get_input_embeddings().weight.shape[0]
    if tokenizer is not None:
        names = [f"<|embed_{i + 1}|>" for i in range(count)]
        tokenizer.add_special_tokens({"additional_special_tokens": names})
        numbers: list[int] = tokenizer.convert_tokens_to_ids(names)
    else:
        numbers = list(range(old, old + count))
    lm.resize_token_embeddings(max(old, max(numbers) + 1), mean_resizing=False)
    with torch.no_grad():
        for table in (lm.get_input_embeddings().weight, lm.get_output_embeddings().weight):
            table[numbers] = table[: min(old, min(numbers))].mean(0)
    return numbers


def old_vocabulary(lm: Any, tokens: Sequence[int]) -> Tensor:
    """Return bool ``[v]``: every token the head knows but the inserted ones (vocabulary mask)."""
    known = torch.ones(lm.get_output_embeddings().weight.shape[0], dtype=torch.bool)
    known[list(tokens)] = False
    return known


def check_bottleneck(body: Any, tokens: Sequence[int], *, length: int = 6) -> None:
    """Verify that a decoder obeys the mask, by changing one prefix token; as some kernels drop masks silently.

    With inserted tokens blind to the prefix, suffix states must not change at all; with the real mask they must.

    Raises
    ------
    InputError
        If either fails: training would then copy through and learn nothing.
    """
    row = [i for i in range(body.get_input_embeddings().weight.shape[0]) if i not in set(tokens)][: 2 * length]
    if len(row) < 3:
        raise InputError("Checking the mask takes a vocabulary of at least 3 tokens besides the inserted ones.")
    split = len(row) // 2
    batches = [insert_tokens([first + row[1:]], tokens, [split]) for first in ([row[0]], [row[-1]])]
    was_training = body.training
    body.eval()
    try:
        with torch.no_grad():
            gaps = [_gap(body, batches, blind=blind) for blind in (True, False)]
    finally:
        body.train(was_training)
    if gaps[0] > 0 or gaps[1] == 0:
        raise InputError(
            f"{type(body).__name__} does not follow the attention mask (the suffix moved by {gaps[0]:.2g} where it "
            f"must not, by {gaps[1]:.2g} where it must): load it with attn_implementation='sdpa' or 'eager'."
        )


def _gap(body: Any, batches: Sequence[Inserted], *, blind: bool) -> float:
    """Largest difference of suffix states between two batches."""
    first, second = (
        run(body, b.attention_mask, input_ids=b.input_ids, may_attend=b.may_attend(blind=blind))[b.parts == SUFFIX]
        for b in batches
    )
    return float((first - second).abs().max())
