"""Standardised states: every layer and dimension on one scale, by the texts trained on alone."""

import numpy as np
import pytest
import torch

from isometry.recipes.pooling_and_attention import Frozen


@pytest.fixture
def frozen():
    generator = torch.Generator().manual_seed(0)
    layers = [5 + 3 * torch.randn(12, 4, 6, generator=generator) for _ in range(3)]
    mask = (torch.arange(7) < torch.arange(1, 13)[:, None]).long()
    tokens = (2 + torch.randn(12, 7, 6, generator=generator)) * mask[..., None]
    return Frozen({str(i): i for i in range(12)}, *layers, tokens, mask)


def test_scale_is_that_of_the_texts_trained_on(frozen):
    rows = np.arange(8)
    scaled = frozen.standardised(rows)
    for states in (scaled.causal, scaled.bidirectional, scaled.mean_causal):
        torch.testing.assert_close(states[rows].mean(0), torch.zeros(4, 6), atol=1e-5, rtol=0)
        torch.testing.assert_close(states[rows].std(0), torch.ones(4, 6))
    seen = scaled.tokens[rows][frozen.mask[rows].bool()]
    torch.testing.assert_close(seen.mean(0), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.std(0), torch.ones(6))
    changed = frozen.standardised(np.arange(12))
    assert not torch.allclose(changed.causal, scaled.causal)


def test_what_all_texts_share_is_taken_away(frozen):
    shifted = Frozen(frozen.place, *(s + 1000 for s in (frozen.causal, frozen.bidirectional, frozen.mean_causal)),
                     frozen.tokens, frozen.mask)  # fmt: skip
    rows = np.arange(12)
    torch.testing.assert_close(shifted.standardised(rows).causal, frozen.standardised(rows).causal, atol=1e-2, rtol=0)
