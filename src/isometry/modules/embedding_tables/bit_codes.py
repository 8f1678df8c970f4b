"""Small whole numbers packed into bytes, a whole number of bytes per row."""

from __future__ import annotations

import torch
from torch import Tensor


def packed_width(parts: int, bits: int) -> int:
    """Bytes of a row of ``parts`` numbers of ``bits`` bits."""
    return (parts * bits + 7) // 8


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """Pack numbers below ``2 ** bits``, int64 ``[n, parts]``, to uint8 ``[n, packed_width]``, lowest bit first.

    >>> unpack_bits(pack_bits(torch.tensor([[5, 1, 7]]), 3), 3, 3)
    tensor([[5, 1, 7]])
    """
    n, parts = codes.shape
    stream = (codes[:, :, None] >> torch.arange(bits) & 1).flatten(1)
    filled = torch.zeros(n, 8 * packed_width(parts, bits), dtype=torch.int64)
    filled[:, : parts * bits] = stream
    return (filled.reshape(n, -1, 8) << torch.arange(8)).sum(2).to(torch.uint8)


def unpack_bits(packed: Tensor, parts: int, bits: int) -> Tensor:
    """Inverse of `pack_bits`, int64 ``[n, parts]``."""
    if bits == 8:
        return packed.to(torch.int64)
    stream = (packed.to(torch.int64)[:, :, None] >> torch.arange(8) & 1).flatten(1)
    return (stream[:, : parts * bits].reshape(len(packed), parts, bits) << torch.arange(bits)).sum(2)
