from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertModel

from isometry.errors import DimensionMismatch
from isometry.modules.attention_mask import run
from isometry.modules.table_mask import table_mask

# [CLS] h0 h1 [SEP] then two rows of two cells, the first cell of two tokens, then padding
CELLS = torch.tensor([[[-1, -1], [0, 0], [0, 1], [-1, -1], [1, 0], [1, 0], [1, 1], [2, 0], [2, 1], [-1, -1]]])
MASK = torch.tensor([[1] * 9 + [0]])


def test_a_cell_sees_its_row_its_column_headers_and_what_is_no_cell():
    may = table_mask(CELLS, MASK)[0]
    assert may[4].nonzero().flatten().tolist() == [0, 1, 2, 3, 4, 5, 6, 7]  # cell (1, 0) misses (2, 1) alone
    assert may[8].nonzero().flatten().tolist() == [0, 1, 2, 3, 6, 7, 8]
    assert may[0, :9].all()
    assert may[9].nonzero().flatten().tolist() == [9]
    assert not may[:9, 9].any()


def test_first_layer_of_a_cell_ignores_cells_outside_its_row_and_column():
    torch.manual_seed(0)
    config = BertConfig(vocab_size=30, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    body = BertModel(config).eval()
    may = table_mask(CELLS, MASK)
    ids = torch.arange(5, 15)[None]
    other = ids.clone()
    other[0, 8] = 25  # cell (2, 1)
    with torch.no_grad():
        before, after = (run(body, MASK, input_ids=x, may_attend=may, all_layers=True)[1][0] for x in (ids, other))
    changed = (before - after).abs().amax(1) > 1e-6
    assert torch.equal(changed[:9], may[0, :9, 8])
    assert not changed[4]
    assert not changed[5]
    assert changed[6]
    assert changed[7]


def test_shapes_are_checked():
    with pytest.raises(DimensionMismatch, match="cells"):
        table_mask(CELLS[..., 0], MASK)
