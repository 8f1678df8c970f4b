"""Training a decoder to write a text into inserted tokens, while it stays a language model (GEM, arXiv:2506.04344)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from isometry.errors import EmptyInput, InputError
from isometry.modules.attention_mask import run
from isometry.modules.special_tokens import (
    SPECIAL,
    Inserted,
    check_bottleneck,
    draw_splits,
    insert_tokens,
    old_vocabulary,
    special_states,
)
from isometry.objectives.generation import IGNORE, next_token_loss, token_log_probs
from isometry.objectives.info_nce import info_nce

Rows = Sequence[Sequence[int]]


class SpecialTokenModel(nn.Module):
    """A causal language model with inserted tokens whose states are the vector of what precedes them (GEM).

    Parameters
    ----------
    lm
        A transformers causal language model that already has the tokens, see `add_tokens`.
    tokens
        Their numbers.
    pad
        Padding token; any, since padding is masked.
    least
        Shortest prefix and suffix; texts below twice this carry no signal and are skipped.

    Raises
    ------
    InputError
        If the model's attention drops the mask, see `check_bottleneck`.

    Notes
    -----
    The tokens' embeddings are a parameter of their own, so that they learn even where the table of words is frozen;
    `settle` writes them back. They are never predicted.
    """

    vocabulary: Tensor

    def __init__(self, lm: Any, tokens: Sequence[int], *, pad: int = 0, least: int = 4) -> None:
        super().__init__()
        check_bottleneck(lm.base_model, tokens)
        self.lm, self.tokens, self.pad, self.least = lm, list(tokens), pad, least
        self.rows = nn.Parameter(lm.get_input_embeddings().weight[self.tokens].detach().clone())
        self.skipped = 0
        self.register_buffer("vocabulary", old_vocabulary(lm, tokens), persistent=False)

    def states(self, batch: Inserted, *, blind: bool = False) -> Tensor:
        """Return last hidden states ``[b, t, d]`` under the three-block mask."""
        inserted = batch.parts == SPECIAL
        embeds = self.lm.get_input_embeddings()(batch.input_ids)
        number = (inserted.long().cumsum(1) - 1).clamp(0, len(self.tokens) - 1)
        embeds = torch.where(inserted[..., None], self.rows[number].to(embeds.dtype), embeds)
        may = batch.may_attend(blind=blind)
        states: Tensor = run(self.lm, batch.attention_mask, inputs_embeds=embeds, may_attend=may)
        return states

    def forward(self, rows: Rows) -> Tensor:
        """Return normalised vectors ``[b, d]``: the mean state of tokens put behind each text."""
        batch = insert_tokens(rows, self.tokens, pad=self.pad)
        return normalize(special_states(self.states(batch), batch.parts), dim=-1)

    def bottleneck_loss(
        self, rows: Rows, splits: Sequence[int] | None = None, *, prefix_targets: bool = False
    ) -> Tensor:
        """Next-token loss of suffixes that see their prefix through the inserted tokens alone.

        ``splits`` default to random ones; texts too short for one are skipped and counted in ``skipped``.
        """
        if splits is None:
            kept, splits = draw_splits([len(row) for row in rows], least=self.least, seed=_draw())
            self.skipped += len(rows) - len(kept)
            if not kept:
                raise EmptyInput(f"No text of this batch has {2 * self.least} tokens, so none can be split.")
            rows = [rows[i] for i in kept]
        batch = insert_tokens(rows, self.tokens, splits, pad=self.pad, prefix_targets=prefix_targets)
        return next_token_loss(self._logits(self.states(batch)), batch.labels, vocabulary=self.vocabulary)

    def plain_loss(self, rows: Rows) -> Tensor:
        """Next-token loss of the texts as they are, causally: what keeps the model a language model."""
        ids, mask = padded(rows, self.pad)
        logits = self._logits(run(self.lm, mask, input_ids=ids))
        return next_token_loss(logits, ids.masked_fill(~mask, IGNORE), vocabulary=self.vocabulary)

    def mixed_loss(self, rows: Rows, *, share: float = 0.5) -> Tensor:
        """Give each text to the bottleneck with probability ``share``, else to plain prediction; mean over texts."""
        if not 0 <= share <= 1:
            raise InputError(f"share must lie in 0..1, got {share}.")
        long = [row for row in rows if len(row) >= 2 * self.least]
        self.skipped += len(rows) - len(long)
        if not long:
            raise EmptyInput(f"No text of this batch has {2 * self.least} tokens, so none can be split.")
        chosen = (torch.rand(len(long)) < share).tolist()
        squeezed, plain = ([row for row, c in zip(long, chosen, strict=True) if c == want] for want in (True, False))
        total = torch.zeros(())
        if squeezed:
            total = total + len(squeezed) * self.bottleneck_loss(squeezed)
        if plain:
            total = total + len(plain) * self.plain_loss(plain)
        return total / len(long)

    def summed_loss(self, rows: Rows, *, weight: float = 1.0) -> Tensor:
        """Return plain prediction plus ``weight`` times the bottleneck, both on every text."""
        return self.plain_loss(rows) + weight * self.bottleneck_loss(rows)

    def contrastive_loss(
        self, queries: Rows, documents: Rows, *, temperature: float = 0.05, plain_weight: float = 1.0
    ) -> Tensor:
        """InfoNCE of the vectors, with plain prediction of the documents as a regulariser (the second stage)."""
        contrast = info_nce(self(queries), self(documents), temperature=temperature)
        return contrast + plain_weight * self.plain_loss(documents) if plain_weight else contrast

    @torch.no_grad()
    def first_token_losses(self, rows: Rows, split: int) -> dict[str, Tensor]:
        """Return the loss in nats ``[b]`` of each first suffix token, behind its own text's tokens and another's.

        ``"own"``: the row itself; ``"swapped"``: the suffix behind the prefix of the next row (compression probe).
        """
        others = [*rows[1:], rows[0]]
        mixed = [[*other[:split], *row[split:]] for row, other in zip(rows, others, strict=True)]
        found = {}
        for name, group in (("own", rows), ("swapped", mixed)):
            batch = insert_tokens([row[: split + 1] for row in group], self.tokens, [split] * len(rows), pad=self.pad)
            logits = self._logits(self.states(batch))
            found[name] = -token_log_probs(logits, batch.labels, vocabulary=self.vocabulary)[0].sum(1)
        return found

    def settle(self) -> None:
        """Write the tokens' embeddings back into the model's table, so that it can be saved."""
        with torch.no_grad():
            self.lm.get_input_embeddings().weight[self.tokens] = self.rows.detach()

    def _logits(self, states: Tensor) -> Tensor:
        logits: Tensor = self.lm.get_output_embeddings()(states)
        return logits


def padded(rows: Rows, pad: int = 0) -> tuple[Tensor, Tensor]:
    """Pad rows of token numbers on the right: int64 and bool, both ``[b, t]``.

    >>> padded([[5, 6], [7]])[1].tolist()
    [[True, True], [True, False]]
    """
    if not rows or not min(map(len, rows)):
        raise EmptyInput("There is no text, or a text without a token.")
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    return ids, torch.arange(width)[None, :] < lengths[:, None]


def _draw() -> int:
    """Draw a seed from torch's generator, which the training loop seeds."""
    return int(torch.randint(2**31, ()))
