"""Cross-attention between a text's states and a learned set of latents, with either of them asking."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from isometry.errors import InputError, UnknownName

Asking = Literal["states", "latents"]


class FeedForward(nn.Module):
    """Gated feed-forward layer ``W2 (a * gelu(b))`` with ``[a, b] = W1 x`` (GEGLU, arXiv:2002.05202)."""

    def __init__(self, dim: int, mult: int = 4) -> None:
        super().__init__()
        self.inner = nn.Linear(dim, 2 * mult * dim)
        self.out = nn.Linear(mult * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[..., dim]`` to ``[..., dim]``."""
        value, gate = self.inner(x).chunk(2, dim=-1)
        out: Tensor = self.out(value * gelu(gate))
        return out


class Perceiver(nn.Module):
    """Pre-norm cross-attention and gated feed-forward, both residual, between states and trainable latents.

    With ``asking="states"`` every state looks up the latents, a learned dictionary (latent attention of NV-Embed,
    arXiv:2405.17428); with ``asking="latents"`` every latent looks over the states (Perceiver, arXiv:2103.03206, and
    the trainable pooling of arXiv:2409.02727). The two heads have the same weights and different meanings.

    Parameters
    ----------
    dim
        Width of states, latents and outputs.
    asking
        Which side the queries come from; the other gives keys and values.
    latents, heads, head_dim
        Number of latents, attention heads and width of a head.
    mult
        Width of the feed-forward layer in multiples of ``dim``.
    seed
        Initial weights; latents are drawn from N(0, 1).

    Examples
    --------
    >>> Perceiver(8, asking="latents", latents=3, heads=2, head_dim=4)(torch.ones(5, 7, 8)).shape
    torch.Size([5, 3, 8])
    """

    def __init__(
        self,
        dim: int,
        *,
        asking: Asking,
        latents: int = 64,
        heads: int = 4,
        head_dim: int = 64,
        mult: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if min(dim, latents, heads, head_dim, mult) < 1:
            raise InputError(
                "A perceiver needs sizes of at least 1, got "
                f"dim={dim}, latents={latents}, heads={heads}, head_dim={head_dim}, mult={mult}."
            )
        if asking not in ("states", "latents"):
            raise UnknownName("asking side", asking, ("states", "latents"))
        self.asking, self.heads, self.head_dim = asking, heads, head_dim
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.latents = nn.Parameter(torch.randn(latents, dim))
            self.norm_query, self.norm_context, self.norm_inner = (nn.LayerNorm(dim) for _ in range(3))
            self.query = nn.Linear(dim, heads * head_dim, bias=False)
            self.key_value = nn.Linear(dim, 2 * heads * head_dim, bias=False)
            self.out = nn.Linear(heads * head_dim, dim, bias=False)
            self.feed_forward = FeedForward(dim, mult)

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return ``[b, t, dim]`` where states ask, ``[b, latents, dim]`` where latents do.

        Parameters
        ----------
        states
            ``[b, t, dim]``.
        mask
            ``[b, t]``, not 0 at the states latents may look at; without meaning where states ask.
        """
        latents = self.latents.expand(len(states), -1, -1)
        x = states if self.asking == "states" else latents
        x = x + self.attend(states, mask)
        out: Tensor = x + self.feed_forward(self.norm_inner(x))
        return out

    def attend(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the output of the attention alone, without the residual."""
        latents = self.latents.expand(len(states), -1, -1)
        asking, context = (states, latents) if self.asking == "states" else (latents, states)
        q = self._split(self.query(self.norm_query(asking)))
        k, v = (self._split(x) for x in self.key_value(self.norm_context(context)).chunk(2, dim=-1))
        seen = mask.bool()[:, None, None, :] if mask is not None and self.asking == "latents" else None
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=seen)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        """Cut ``[b, n, heads * head_dim]`` into ``[b, heads, n, head_dim]``."""
        return x.view(*x.shape[:-1], self.heads, self.head_dim).transpose(1, 2)
