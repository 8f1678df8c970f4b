"""Attention by the structure of a table: a cell sees its row, its column and the headers."""

from __future__ import annotations

import torch
from torch import Tensor

from isometry.errors import DimensionMismatch


def table_mask(cells: Tensor, attention_mask: Tensor) -> Tensor:
    """Return which token of a serialised table may attend to which (table mask, Granite Embedding R2).

    A cell's token sees its own row, its own column, all headers, and what belongs to no cell ([CLS], separators);
    tokens of no cell see everything. Within one layer nothing of a cell reaches another row's other columns.

    Parameters
    ----------
    cells
        int64 ``[b, t, 2]``: row and column of each token's cell; row 0 is the header; -1 where there is no cell.
    attention_mask
        ``[b, t]``, not 0 at real tokens.

    Returns
    -------
    torch.Tensor
        bool ``[b, t, t]`` (query, key); padding attends to itself alone.

    Examples
    --------
    >>> cells = torch.tensor([[[-1, -1], [0, 0], [1, 0], [2, 1]]])    # [CLS], a header, two cells apart
    >>> table_mask(cells, torch.ones(1, 4))[0].int().tolist()
    [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 0, 1]]
    """
    if cells.ndim != 3 or cells.shape[2] != 2 or cells.shape[:2] != attention_mask.shape:
        raise DimensionMismatch(
            f"cells must be [b, t, 2] beside attention_mask [b, t], got {list(cells.shape)} and "
            f"{list(attention_mask.shape)}."
        )
    rows, columns = cells[..., 0], cells[..., 1]
    free = rows < 0
    may = (rows[:, :, None] == rows[:, None, :]) | (columns[:, :, None] == columns[:, None, :])
    may = may | (rows == 0)[:, None, :] | free[:, :, None] | free[:, None, :]
    real = attention_mask.bool()
    may = may & real[:, :, None] & real[:, None, :]
    return may | torch.eye(cells.shape[1], dtype=torch.bool, device=cells.device)
