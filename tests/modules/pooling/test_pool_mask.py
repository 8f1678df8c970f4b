"""The pool mask: real tokens without the instruction, and a clear word where nothing is left."""

import pytest
import torch

from isometry.errors import DimensionMismatch, InputError
from isometry.modules.pooling.pool_mask import pool_mask


def test_pool_mask_leaves_out_the_instruction():
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 0]])
    assert pool_mask(mask).equal(mask.bool())
    assert pool_mask(mask, torch.tensor([2, 1])).int().tolist() == [[0, 0, 0, 0, 1], [0, 1, 1, 1, 0]]
    assert pool_mask(mask, 1).int().tolist() == [[0, 0, 0, 1, 1], [0, 1, 1, 1, 0]]


def test_instruction_that_fills_a_text_is_an_error():
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    with pytest.raises(InputError, match=r"text 1: no tokens left to pool .*max_length=8, instruction=3 tokens"):
        pool_mask(mask, 3, max_length=8)
    with pytest.raises(DimensionMismatch, match="instruction_tokens"):
        pool_mask(mask, torch.tensor([1, 2, 3]))
    with pytest.raises(DimensionMismatch, match="attention_mask"):
        pool_mask(mask[0], 1)
