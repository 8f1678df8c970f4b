"""The linear head of late interaction."""

import pytest
import torch

from isometry.errors import InputError
from isometry.modules import TokenProjection


@pytest.mark.parametrize(("in_dim", "out_dim"), [(12, 5), (5, 12), (7, 7)])
def test_the_first_map_is_orthonormal_and_follows_the_seed(in_dim, out_dim):
    head = TokenProjection(in_dim, out_dim, normalize=False, seed=3)
    w = head.weight.detach()
    product = w @ w.T if out_dim <= in_dim else w.T @ w
    torch.testing.assert_close(product, torch.eye(min(in_dim, out_dim)), atol=1e-5, rtol=0)
    assert torch.equal(w, TokenProjection(in_dim, out_dim, seed=3).weight)
    assert not torch.equal(w, TokenProjection(in_dim, out_dim, seed=4).weight)


def test_it_is_linear_without_bias_then_of_norm_one():
    x = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0))
    plain, unit = TokenProjection(6, 4, normalize=False), TokenProjection(6, 4)
    torch.testing.assert_close(plain(x), torch.einsum("bth,ph->btp", x, plain.weight))
    torch.testing.assert_close(plain(2 * x), 2 * plain(x))
    torch.testing.assert_close(unit(x), plain(x) / plain(x).norm(dim=-1, keepdim=True))
    assert torch.isfinite(unit(torch.zeros(1, 6))).all()
    assert "6, 4" in repr(unit)


def test_widths_below_one_are_refused():
    with pytest.raises(InputError, match="at least 1"):
        TokenProjection(4, 0)
