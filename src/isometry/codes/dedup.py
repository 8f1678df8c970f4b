"""Tables that keep one of several similar blocks of rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isometry.codes.table import TableCode
from isometry.errors import InputError
from isometry.numerics.block_sharing import blocks_of, share_blocks
from isometry.types import FloatArray


class DedupCode(TableCode):
    """Block deduplication (Dedup; Zhou et al., PVLDB 2022): a block nearly equal to an earlier one gives way to it.

    Candidates come from p-stable hashing (90 hashes); entries count as equal when they differ by less than
    ``closeness`` standard deviations of the table. Saves only what is nearly there twice: on dense embeddings, nothing.

    Parameters
    ----------
    block_rows
        Rows of a block.
    closeness, agreement
        When two entries are equal, and the share of equal entries that makes two blocks equal.
    seed
        Of the hashes.

    Examples
    --------
    >>> x = np.repeat(np.eye(4, dtype=np.float32), 8, axis=0)
    >>> code = DedupCode(block_rows=4).fit(x)
    >>> code.ratio < 0.6, bool((code.inverse_transform() == x).all())
    (True, True)
    """

    def __init__(
        self, block_rows: int = 10_000, *, closeness: float = 0.01, agreement: float = 0.7, seed: int = 0
    ) -> None:
        if block_rows < 1 or closeness <= 0 or not 0 < agreement <= 1:
            raise InputError(f"A Dedup code needs block_rows >= 1, closeness > 0 and agreement in (0, 1]; got "
                             f"{block_rows}, {closeness}, {agreement}.")  # fmt: skip
        self.block_rows, self.closeness, self.agreement, self.seed = block_rows, closeness, agreement, seed

    def _fit(self, x: FloatArray) -> None:
        blocks = blocks_of(x, min(self.block_rows, len(x)))
        owner = share_blocks(blocks, closeness=self.closeness, agreement=self.agreement, seed=self.seed)
        kept, place = np.unique(owner, return_inverse=True)
        self.blocks_, self.owner_ = blocks[kept].reshape(-1, x.shape[1]), place.astype(np.int32)
        if len(kept) == len(blocks):
            self.blocks_ = x.copy()  # without the padding of the last block

    def _rows(self, rows: NDArray[np.int64]) -> FloatArray:
        size = min(self.block_rows, self._shape()[0])
        return np.asarray(self.blocks_[self.owner_[rows // size].astype(np.int64) * size + rows % size], np.float32)

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """The kept blocks, and which one stands for each block."""
        return {"blocks": self.blocks_, "owner": self.owner_}
