"""Attention masks for decoder bodies: causal, bidirectional, prefix, or any given one, with padding on either side.

A decoder of transformers builds its causal mask itself from a ``[b, t]`` attention mask. Given a four-dimensional
additive mask it uses that as it stands; this is how a decoder is made to see both ways without touching its weights.
`check_attention` verifies that it really does.
"""

from __future__ import annotations

from typing import Any, Literal, overload

import torch
from torch import Tensor

from isometry.errors import DimensionMismatch, InputError, UnknownName

KINDS = ("causal", "bidirectional", "prefix")
AttentionKind = Literal["causal", "bidirectional", "prefix"]


def allowed(kind: str, attention_mask: Tensor, *, prefix: Tensor | int | None = None) -> Tensor:
    """Return which token may attend to which, bool ``[b, t, t]`` (query, key).

    Parameters
    ----------
    kind
        ``"causal"``: itself and what precedes it; ``"bidirectional"``: every real token; ``"prefix"``: the first
        ``prefix`` real tokens see each other both ways, the rest is causal.
    attention_mask
        ``[b, t]``, not 0 at real tokens; padding on either side.
    prefix
        For ``"prefix"``: number of real tokens, one for all or int ``[b]``.

    Notes
    -----
    A padding token attends to itself alone: a row without any key would turn into NaN.

    >>> allowed("causal", torch.tensor([[0, 1, 1]]))[0].int().tolist()
    [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    """
    real = _mask(attention_mask)
    if kind not in KINDS:
        raise UnknownName("kind of attention", kind, KINDS)
    if (kind == "prefix") != (prefix is not None):
        raise InputError(
            "Give prefix, the number of tokens seen both ways, for attention of kind 'prefix' and only there."
        )
    t = real.shape[1]
    may = real.new_ones(t, t) if kind == "bidirectional" else real.new_ones(t, t).tril()
    may = may.expand(len(real), t, t)
    if prefix is not None:
        length = torch.as_tensor(prefix, device=real.device).expand(len(real))
        inside = real & (position_ids(real) < length[:, None])
        may = may | (inside[:, :, None] & inside[:, None, :])
    may = may & real[:, :, None] & real[:, None, :]
    return may | torch.eye(t, dtype=torch.bool, device=real.device)


def position_ids(attention_mask: Tensor) -> Tensor:
    """Return positions int64 ``[b, t]`` that begin with 0 at the first real token, whichever side is padded.

    >>> position_ids(torch.tensor([[0, 1, 1], [1, 1, 0]])).tolist()
    [[0, 0, 1], [0, 1, 1]]
    """
    return (_mask(attention_mask).long().cumsum(1) - 1).clamp(min=0)


@overload
def run(
    body: Any, attention_mask: Tensor, *, input_ids: Tensor | None = ..., inputs_embeds: Tensor | None = ...,
    kind: str = ..., prefix: Tensor | int | None = ..., may_attend: Tensor | None = ...,
    all_layers: Literal[False] = ...,
) -> Tensor: ...  # fmt: skip
@overload
def run(
    body: Any, attention_mask: Tensor, *, input_ids: Tensor | None = ..., inputs_embeds: Tensor | None = ...,
    kind: str = ..., prefix: Tensor | int | None = ..., may_attend: Tensor | None = ...,
    all_layers: Literal[True],
) -> tuple[Tensor, ...]: ...  # fmt: skip
def run(
    body: Any,
    attention_mask: Tensor,
    *,
    input_ids: Tensor | None = None,
    inputs_embeds: Tensor | None = None,
    kind: str = "causal",
    prefix: Tensor | int | None = None,
    may_attend: Tensor | None = None,
    all_layers: bool = False,
) -> Tensor | tuple[Tensor, ...]:
    """Run a transformers body under an attention mask of your choice, with gradient, and return its hidden states.

    Parameters
    ----------
    body
        A decoder's body, or a language model, whose body is taken. Attention ``"sdpa"`` or ``"eager"``.
    attention_mask
        ``[b, t]``, not 0 at real tokens.
    input_ids, inputs_embeds
        ``[b, t]`` or ``[b, t, d]``; exactly one of them.
    kind, prefix
        As in `allowed`.
    may_attend
        bool ``[b, t, t]`` to use instead of ``kind``.
    all_layers
        Return the states of all layers: ``n + 1`` tensors, index 0 the token embeddings, index ``n`` the last hidden
        states. In most decoders the last alone has gone through the final norm.

    Returns
    -------
    torch.Tensor
        Last hidden states ``[b, t, d]``, or a tuple of such; what stands at padding means nothing.
    """
    real = _mask(attention_mask)
    if (input_ids is None) == (inputs_embeds is None):
        raise InputError("Give either input_ids or inputs_embeds.")
    given = input_ids if input_ids is not None else inputs_embeds
    assert given is not None
    if given.shape[:2] != real.shape:
        raise DimensionMismatch(
            f"Tokens {list(given.shape)} and attention_mask {list(real.shape)} must agree in [b, t]."
        )
    may = allowed(kind, real, prefix=prefix) if may_attend is None else may_attend
    if may.shape != (*real.shape, real.shape[1]) or may.dtype != torch.bool:
        raise DimensionMismatch(f"may_attend must be bool [b, t, t], got {may.dtype} {list(may.shape)}.")
    inner = body.base_model
    dtype = next(inner.parameters()).dtype
    additive = torch.zeros(may.shape, dtype=dtype, device=may.device).masked_fill(~may, torch.finfo(dtype).min)
    tokens = {"input_ids": input_ids} if inputs_embeds is None else {"inputs_embeds": inputs_embeds}
    out = inner(
        **tokens,
        attention_mask=additive[:, None],
        position_ids=position_ids(real),
        use_cache=False,
        output_hidden_states=all_layers,
    )
    states: tuple[Tensor, ...] | Tensor = tuple(out.hidden_states) if all_layers else out.last_hidden_state
    return states


@torch.no_grad()
def check_attention(body: Any, kind: str, *, atol: float = 1e-5) -> None:
    """Verify by changing the last token that a body really attends as asked; a silent fallback is the usual fault.

    Parameters
    ----------
    body
        As in `run`.
    kind
        The kind of attention to verify; a prefix is verified with half of the tokens.
    atol
        What counts as unchanged.

    Raises
    ------
    InputError
        If a token sees what it should not, or does not see what it should.
    """
    was_training = body.training
    body.eval()
    try:
        vocabulary = body.get_input_embeddings().num_embeddings
        device = next(body.parameters()).device
        ids = (torch.arange(6, device=device) * 7 + 3)[None] % vocabulary
        mask = torch.ones_like(ids)
        prefix = 3 if kind == "prefix" else None
        may = allowed(kind, mask, prefix=prefix)[0]
        for changed in (2, 5):
            other = ids.clone()
            other[0, changed] = (ids[0, changed] + 1) % vocabulary
            before, after = (run(body, mask, input_ids=x, kind=kind, prefix=prefix)[0] for x in (ids, other))
            moved = (before - after).abs().amax(-1) > atol
            if not torch.equal(moved, may[:, changed]):
                wrong = "sees later tokens" if (moved & ~may[:, changed]).any() else "does not see later tokens"
                raise InputError(
                    f"{type(body).__name__} does not attend {kind}: it {wrong} whatever mask it is given; load it with "
                    "attn_implementation='sdpa' or 'eager'."
                )
    finally:
        body.train(was_training)


def _mask(attention_mask: Tensor) -> Tensor:
    if attention_mask.ndim != 2:
        raise DimensionMismatch(f"attention_mask must be [b, t], got {list(attention_mask.shape)}.")
    real = attention_mask.bool()
    if not real.any(1).all():
        raise InputError(
            f"Text {int((~real.any(1)).nonzero()[0])} of the batch has no token: its attention mask is all 0."
        )
    return real
