"""Universal hashing of ids by ``((a x + b) mod p) mod m`` in 64-bit integers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

PRIME = 2**31 - 1  # a Mersenne prime: a product of two residues stays below 2^62


def coefficients(count: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Draw ``count`` pairs (a, b), int64 ``[count]`` each, with 0 < a < p and 0 <= b < p; the seed alone fixes them."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(1, PRIME, count)), torch.from_numpy(rng.integers(0, PRIME, count))


def universal_hash(keys: Tensor, a: Tensor, b: Tensor, buckets: int) -> Tensor:
    """Hash ids below 2^31 - 1 to ``[0, buckets)`` (Carter and Wegman 1979); shapes broadcast, int64.

    Two different ids share a bucket with probability at most about ``1 / buckets`` over the draw of (a, b).

    >>> a, b = coefficients(1, seed=0)
    >>> bool((universal_hash(torch.arange(1000), a, b, 7) < 7).all())
    True
    """
    return (a * keys.to(torch.int64) + b) % PRIME % buckets
