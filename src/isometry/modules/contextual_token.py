"""A soft token that has read the whole text, put before a causal decoder's input (Causal2Vec, arXiv:2507.23386).

A small bidirectional encoder reads the text; its pooled state, projected to the decoder's width, becomes one more
input embedding ahead of the text. The decoder stays strictly causal, and yet every token can look at a summary of what
follows. The vector joins the last hidden states at the soft token and at the last token, which makes up for the
latter's leaning towards the end of a text.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from isometry.errors import DimensionMismatch, InputError, UnknownName
from isometry.modules.attention_mask import run
from isometry.modules.pooling.plain import last_pool, pool

READOUTS = ("both", "context", "last", "last+mean")


class Spliced(NamedTuple):
    """Input embeddings with a soft token among them."""

    embeds: Tensor
    attention_mask: Tensor
    where: Tensor


def splice_token(token: Tensor, embeds: Tensor, attention_mask: Tensor, *, after: int = 0) -> Spliced:
    """Insert one soft token before the first real token of every row, or behind the first ``after`` of them.

    Parameters
    ----------
    token
        ``[b, d]``.
    embeds
        Input embeddings ``[b, t, d]``, padded on either side.
    attention_mask
        ``[b, t]``, not 0 at real tokens.
    after
        How many real tokens stay ahead of it, e.g. 1 for a begin-of-sequence token.

    Returns
    -------
    Spliced
        Embeddings ``[b, t + 1, d]``, mask ``[b, t + 1]`` and the soft token's column ``[b]``. Padding stays on its
        side; positions counted from the mask move on by one behind the soft token.

    Raises
    ------
    DimensionMismatch
        If shapes do not fit.
    InputError
        If a row has fewer than ``after`` real tokens.

    Examples
    --------
    >>> text, soft = torch.tensor([[[0.0], [1.0], [2.0]]]), torch.tensor([[9.0]])
    >>> splice_token(soft, text, torch.tensor([[0, 1, 1]])).embeds.flatten().tolist()
    [0.0, 9.0, 1.0, 2.0]
    """
    b, t, d = embeds.shape if embeds.ndim == 3 else (0, 0, 0)
    if not b or token.shape != (b, d) or attention_mask.shape != (b, t):
        shapes = f"{list(token.shape)}, {list(embeds.shape)} and {list(attention_mask.shape)}"
        raise DimensionMismatch(f"token, embeds and attention_mask must be [b, d], [b, t, d] and [b, t], got {shapes}.")
    real = attention_mask.bool()
    if after < 0 or (real.sum(1) < after).any():
        raise InputError(f"The soft token cannot follow {after} real tokens: a row has only {int(real.sum(1).min())}.")
    where = real.int().argmax(1) + after
    columns = torch.arange(t + 1, device=embeds.device)[None, :]
    source = (columns - (columns > where[:, None]).long()).clamp(max=t - 1)
    here = columns == where[:, None]
    moved = embeds.gather(1, source[..., None].expand(b, t + 1, d))
    return Spliced(torch.where(here[..., None], token[:, None], moved), real.gather(1, source) | here, where)


class SoftTokenProjector(nn.Sequential):
    """Linear, GELU, linear: from an encoder's width to a decoder's input embeddings.

    Parameters
    ----------
    in_dim, out_dim
        Widths of the encoder's and the decoder's states.
    seed
        Of the initial weights.
    """

    def __init__(self, in_dim: int, out_dim: int, *, seed: int = 0) -> None:
        if min(in_dim, out_dim) < 1:
            raise InputError(f"A projector needs widths of at least 1, got {in_dim} and {out_dim}.")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            super().__init__(nn.Linear(in_dim, out_dim), nn.GELU(), nn.Linear(out_dim, out_dim))

    @torch.no_grad()
    def fit_norm(self, vectors: Tensor, norm: float) -> None:
        """Scale the last layer so that projections of ``vectors [n, in_dim]`` have the mean length ``norm``.

        A soft token far longer or shorter than word embeddings would upset the decoder from the first step.
        """
        last: Any = self[-1]
        factor = norm / float(self(vectors).norm(dim=-1).mean())
        last.weight.mul_(factor)
        last.bias.mul_(factor)


class ContextualToken(nn.Module):
    """Causal2Vec: a causal decoder that reads a summary of its text before the text.

    Parameters
    ----------
    encoder
        A small bidirectional transformers encoder (BERT-like); its own tokenizer and window apply.
    decoder
        A decoder's body, or a language model, whose body is used.
    encoder_pooling
        ``"mean"`` or ``"cls"``, see `isometry.modules.pooling`.
    readout
        ``"both"``: the states at the soft token and at the last token side by side, ``[b, 2d]`` (the method);
        ``"context"`` or ``"last"``: one of them; ``"last+mean"``: the last token's and the mean of the text's.
    after
        Real tokens ahead of the soft token (1 where the tokenizer begins with a begin-of-sequence token).
    seed
        Of the projector.

    Notes
    -----
    The soft token's state is a deep map of the encoder's pooled state and depends on nothing else (but ``after`` tokens
    ahead of it). An instruction given to the decoder alone leaves it unchanged, so `context` can be cached by text.
    """

    def __init__(
        self,
        encoder: Any,
        decoder: Any,
        *,
        encoder_pooling: str = "mean",
        readout: str = "both",
        after: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if readout not in READOUTS:
            raise UnknownName("readout", readout, READOUTS)
        self.encoder, self.decoder = encoder, decoder.base_model
        self.encoder_pooling, self.readout, self.after = encoder_pooling, readout, after
        self.projector = SoftTokenProjector(encoder.config.hidden_size, self.dim, seed=seed)
        self._fit(seed)

    @property
    def dim(self) -> int:
        """Width d of the decoder's states."""
        return int(self.decoder.config.hidden_size)

    @property
    def out_dim(self) -> int:
        """Width of the vectors: 2d where two states are joined."""
        return self.dim * (2 if self.readout in ("both", "last+mean") else 1)

    def context(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the encoder's pooled state ``[b, d_b]`` of texts in the encoder's own tokens."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return pool(states, attention_mask, self.encoder_pooling)

    def states(self, soft: Tensor, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run the decoder behind soft tokens ``[b, d]``: last states ``[b, t + 1, d]``, mask, soft column ``[b]``."""
        embeds = self.decoder.get_input_embeddings()(input_ids)
        spliced = splice_token(soft, embeds, attention_mask, after=self.after)
        return run(self.decoder, spliced.attention_mask, inputs_embeds=spliced.embeds), *spliced[1:]

    def forward(
        self, context: Tensor, input_ids: Tensor, attention_mask: Tensor, *, readout: str | None = None
    ) -> Tensor:
        """Return normalised vectors of texts, from `context` and the decoder's tokens ``[b, t]``."""
        states, mask, where = self.states(self.projector(context), input_ids, attention_mask)
        return normalize(self.read(states, mask, where, readout or self.readout), dim=-1)

    def read(self, states: Tensor, mask: Tensor, where: Tensor, readout: str) -> Tensor:
        """Join the states the readout names, ``[b, d]`` or ``[b, 2d]``, not normalised."""
        if readout not in READOUTS:
            raise UnknownName("readout", readout, READOUTS)
        rows = torch.arange(len(states), device=states.device)
        if readout == "context":
            return states[rows, where]
        last = last_pool(states, mask)
        if readout == "last":
            return last
        if readout == "both":
            return torch.cat([states[rows, where], last], dim=-1)
        text = mask.clone()
        text[rows, where] = False
        return torch.cat([last, pool(states, text, "mean")], dim=-1)

    @torch.no_grad()
    def _fit(self, seed: int) -> None:
        """Bring soft tokens to the length of word embeddings, judged on random token sequences."""
        words = self.encoder.get_input_embeddings().num_embeddings
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(words, (16, 8), generator=generator)
        was_training = self.encoder.training
        probe = self.encoder.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        self.encoder.train(was_training)
        norm = float(self.decoder.get_input_embeddings().weight.norm(dim=-1).mean())
        self.projector.fit_norm(pool(probe, torch.ones_like(ids), self.encoder_pooling), norm)
