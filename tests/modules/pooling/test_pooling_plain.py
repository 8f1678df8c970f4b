"""Plain pooling against numpy on the tokens alone, whatever side is padded."""

import pytest
import torch

from isometry.errors import DimensionMismatch, InputError, UnknownName
from isometry.modules.pooling import pool
from isometry.modules.pooling.plain import POOLINGS

ROWS = [torch.randn(n, 5, generator=torch.Generator().manual_seed(n)) for n in (1, 4, 6)]
EXPECTED = {
    "cls": lambda x: x[0],
    "last": lambda x: x[-1],
    "max": lambda x: x.max(0).values,
    "mean": lambda x: x.mean(0),
    "weighted_mean": lambda x: (x * torch.arange(1.0, len(x) + 1)[:, None]).sum(0) / (len(x) * (len(x) + 1) / 2),
}


@pytest.mark.parametrize("name", POOLINGS)
@pytest.mark.parametrize("left", [True, False])
def test_padding_is_never_pooled(name, left):
    states, mask = torch.full((3, 7, 5), float("nan")), torch.zeros(3, 7, dtype=torch.long)
    for i, row in enumerate(ROWS):
        where = slice(7 - len(row), 7) if left else slice(0, len(row))
        states[i, where], mask[i, where] = row, 1
    expected = torch.stack([EXPECTED[name](row) for row in ROWS])
    assert torch.allclose(pool(states, mask, name), expected, atol=1e-6)


def test_gradient_is_finite_over_padding():
    states = torch.randn(2, 3, 4, requires_grad=True)
    mask = torch.tensor([[1, 0, 0], [1, 1, 0]])
    pool(states, mask, "mean").sum().backward()
    assert states.grad[mask == 0].abs().sum() == 0


def test_bad_input():
    with pytest.raises(UnknownName, match="pooling"):
        pool(torch.ones(1, 2, 3), torch.ones(1, 2), "sum")
    with pytest.raises(DimensionMismatch):
        pool(torch.ones(1, 2, 3), torch.ones(1, 3), "mean")
    with pytest.raises(InputError, match="Text 1"):
        pool(torch.ones(2, 2, 3), torch.tensor([[1, 0], [0, 0]]), "mean")
