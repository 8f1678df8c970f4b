"""Held-out perplexity: does a language model still predict plain text after it was made an embedder?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isometry.errors import EmptyInput, InputError
from isometry.modules.attention_mask import run
from isometry.objectives.generation import IGNORE, token_log_probs
from isometry.types import Scores
from isometry.types.progress import Progress


def text_losses(
    lm: Any,
    rows: Sequence[Sequence[int]],
    *,
    vocabulary: Tensor | None = None,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return each text's negative log-likelihood in nats and how many tokens were predicted, float64 and int64 ``[n]``.

    Parameters
    ----------
    lm
        A transformers causal language model, used causally, without gradient, in evaluation mode.
    rows
        Token numbers of each text, at least two; the first is given, the others are predicted.
    vocabulary
        bool ``[v]``: tokens that can be predicted, where some were added; see `old_vocabulary`.
    batch_size
        Texts at a time; it does not change the result.
    progress
        Called with (texts done, texts).

    Raises
    ------
    InputError
        If a text has fewer than two tokens.
    """
    if short := [number for number, row in enumerate(rows) if len(row) < 2]:
        raise InputError(f"Texts {short[:5]} have fewer than two tokens, so nothing is predicted: leave them out.")
    losses, counts = np.zeros(len(rows)), np.asarray([len(row) - 1 for row in rows], np.int64)
    order = np.argsort(counts, kind="stable")
    was_training = lm.training
    lm.eval()
    try:
        for start in range(0, len(rows), batch_size):
            chosen = order[start : start + batch_size]
            losses[chosen] = _losses(lm, [rows[i] for i in chosen], vocabulary)
            if progress is not None:
                progress(min(start + batch_size, len(rows)), len(rows))
    finally:
        lm.train(was_training)
    return losses, counts


def perplexity(lm: Any, rows: Sequence[Sequence[int]], *, vocabulary: Tensor | None = None, name: str = "") -> Scores:
    """Return the perplexity of each text (metric ``"perplexity"``) and, as a fact, that of all tokens together.

    The figure over all tokens is ``exp(sum of losses / number of predicted tokens)``, not the mean over texts.

    Raises
    ------
    EmptyInput
        If there is no text.
    """
    if not len(rows):
        raise EmptyInput("Perplexity needs at least one text.")
    losses, counts = text_losses(lm, rows, vocabulary=vocabulary)
    by_text = {str(number): float(value) for number, value in enumerate(np.exp(losses / counts))}
    overall = float(np.exp(losses.sum() / counts.sum()))
    return Scores.of("perplexity", name, {"perplexity": by_text}, all_tokens=overall, tokens=int(counts.sum()))


def _losses(lm: Any, rows: Sequence[Sequence[int]], vocabulary: Tensor | None) -> np.ndarray:
    ids = torch.full((len(rows), max(map(len, rows))), IGNORE)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
    mask = ids != IGNORE
    with torch.no_grad():
        states = run(lm, mask, input_ids=ids.clamp(min=0))
        values, _ = token_log_probs(lm.get_output_embeddings()(states), ids, vocabulary=vocabulary)
    return -values.sum(1).double().numpy()
