"""Vocabulary trimming: a model that knows only the tokens a corpus uses, with a table and a head as much smaller."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from isometry.errors import EmptyInput, InputError


def trim_vocabulary(lm: Any, keep: Iterable[int]) -> tuple[Any, dict[int, int]]:
    """Return a copy of a transformer restricted to some tokens, and their new numbers (vocabulary trimming).

    Hidden states of kept tokens are those of the whole model; predictions are its predictions renormalised over the
    kept tokens, so perplexities of trimmed models compare with each other only.

    Parameters
    ----------
    lm
        A transformers model, with or without a language-model head.
    keep
        Token numbers, in any order; repeated ones count once.

    Returns
    -------
    tuple
        The model, and ``{old number: new number}`` in ascending order.

    Raises
    ------
    EmptyInput
        If nothing is kept.
    InputError
        If a number is outside the vocabulary.
    """
    kept = sorted(set(keep))
    size = lm.get_input_embeddings().weight.shape[0]
    if not kept:
        raise EmptyInput("A vocabulary needs at least one token.")
    if kept[0] < 0 or kept[-1] >= size:
        raise InputError(f"Tokens to keep must be in 0..{size - 1}, got {kept[0]}..{kept[-1]}.")
    new = copy.deepcopy(lm)
    rows = [table[kept].clone() for table in _tables(new)]
    new.resize_token_embeddings(len(kept), mean_resizing=False)
    for table, old in zip(_tables(new), rows, strict=True):
        table.copy_(old)
    return new, {token: number for number, token in enumerate(kept)}


def trim_to_rows(lm: Any, rows: Sequence[Sequence[int]]) -> tuple[Any, list[list[int]]]:
    """Keep the tokens that occur in some rows; return the trimmed copy and the rows renumbered."""
    small, number = trim_vocabulary(lm, {token for row in rows for token in row})
    return small, [[number[token] for token in row] for row in rows]


def _tables(lm: Any) -> list[torch.Tensor]:
    """Input table and the head's, where there is one."""
    parts = (lm.get_input_embeddings(), lm.get_output_embeddings())
    return [part.weight.data for part in parts if part is not None]
