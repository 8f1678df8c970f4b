"""Which tokens are pooled: the real ones, without those of the instruction."""

from __future__ import annotations

import torch
from torch import Tensor

from isometry.errors import DimensionMismatch, InputError


def pool_mask(
    attention_mask: Tensor, instruction_tokens: Tensor | int | None = None, *, max_length: int | None = None
) -> Tensor:
    """Return the attention mask less each text's first ``instruction_tokens`` real tokens, bool ``[b, t]``.

    Instruction tokens are attended to but not pooled, in training and afterwards (NV-Embed, arXiv:2405.17428).

    Parameters
    ----------
    attention_mask
        ``[b, t]``, padded on either side.
    instruction_tokens
        How many, for all texts or int ``[b]``, counted after tokenization and with what the tokenizer puts in front.
    max_length
        The length texts were cut to, for the message.

    Raises
    ------
    InputError
        If nothing is left of a text; its mean would be NaN.

    >>> pool_mask(torch.tensor([[0, 1, 1, 1]]), 2).int().tolist()
    [[0, 0, 0, 1]]
    """
    real = attention_mask.bool()
    if real.ndim != 2:
        raise DimensionMismatch(f"attention_mask must be [b, t], got {list(real.shape)}.")
    count = torch.as_tensor(0 if instruction_tokens is None else instruction_tokens, device=real.device)
    if count.ndim and count.shape not in ((1,), (len(real),)):
        raise DimensionMismatch(f"instruction_tokens must be a number or [b] = [{len(real)}], got {list(count.shape)}.")
    left = real & (real.cumsum(1) > count.reshape(-1, 1))
    if not left.any(1).all():
        row = int((~left.any(1)).nonzero()[0])
        limit = real.shape[1] if max_length is None else max_length
        raise InputError(
            f"text {row}: no tokens left to pool after removing the instruction (max_length={limit}, "
            f"instruction={int(count.expand(len(real))[row])} tokens); shorten it or raise max_length."
        )
    return left
