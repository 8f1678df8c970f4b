"""The vision transformer over lines of patches: padding, positions, masking, what it refuses."""

import pytest
import torch

from isometry.errors import DimensionMismatch, InputError
from isometry.modules import MaskedPixels, PixelConfig, PixelTransformer
from isometry.modules.pixel_transformer import span_mask

CONFIG = PixelConfig(patch_pixels=12, dim=16, layers=2, heads=2, positions=10)


def model():
    return PixelTransformer(CONFIG).eval()


def test_padding_has_no_influence():
    patches = torch.rand(3, 8, 12, generator=torch.Generator().manual_seed(0))
    counts = torch.tensor([8, 3, 5])
    noisy = patches.clone()
    noisy[1, 3:], noisy[2, 5:] = 7.0, -7.0
    torch.testing.assert_close(model()(patches, counts), model()(noisy, counts))
    torch.testing.assert_close(model()(patches[1:2, :3], counts[1:2]), model()(patches, counts)[1:2])


def test_order_of_patches_matters_and_the_seed_decides():
    patches, counts = torch.rand(1, 6, 12), torch.tensor([6])
    assert not torch.allclose(model()(patches, counts), model()(patches.flip(1), counts), atol=1e-4)
    assert torch.equal(model()(patches, counts), model()(patches, counts))
    assert not torch.equal(PixelTransformer(CONFIG, seed=1).eval()(patches, counts), model()(patches, counts))


def test_positions_are_interpolated():
    longer = model().with_positions(19)
    assert longer.places.shape == (19, 16)
    torch.testing.assert_close(longer.places[::2], model().places)
    torch.testing.assert_close(longer.places[1::2], (model().places[1:] + model().places[:-1]) / 2)
    torch.testing.assert_close(model().with_positions(10).places, model().places)
    assert longer(torch.rand(1, 15, 12), torch.tensor([15])).shape == (1, 16)


def test_spans_cover_the_share():
    counts = torch.tensor([20, 40, 2, 1])
    torch.manual_seed(0)
    mask = span_mask(counts, 40, 0.25, 6)
    assert mask.sum(1).tolist() == [5, 10, 1, 1]
    for row, n in enumerate(counts.tolist()):
        assert not mask[row, n:].any()


def test_hidden_pixels_are_not_seen():
    masked = MaskedPixels(model()).eval()
    patches = torch.rand(2, 8, 12, generator=torch.Generator().manual_seed(0))
    counts, hidden = torch.tensor([8, 6]), torch.zeros(2, 8, dtype=torch.bool)
    hidden[0, 2:4] = hidden[1, 1] = True
    states = masked.encoder.states(patches, ~hidden)
    other = torch.where(hidden[..., None], torch.rand_like(patches), patches)
    torch.testing.assert_close(states[~hidden], masked.encoder.states(other, ~hidden)[~hidden])
    assert masked(patches, counts, hidden).detach() > 0


def test_masked_pretraining_learns():
    torch.manual_seed(0)
    encoder = PixelTransformer(PixelConfig(patch_pixels=12, dim=16, layers=1, heads=2, positions=10, dropout=0.0))
    masked = MaskedPixels(encoder)
    kinds = torch.rand(4, 12)
    patches = kinds[torch.randint(4, (64, 1))].expand(64, 8, 12)  # each line repeats one patch: hidden ones follow
    optimizer = torch.optim.Adam(masked.parameters(), lr=3e-3)
    losses = []
    for _ in range(120):
        loss = masked(patches, torch.full((64,), 8))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_bad_input():
    with pytest.raises(InputError, match="divisible by its heads"):
        PixelConfig(dim=10, heads=4)
    with pytest.raises(InputError, match="dropout"):
        PixelConfig(dropout=1.0)
    with pytest.raises(InputError, match="0 < share < 1"):
        MaskedPixels(model(), share=1.0)
    with pytest.raises(DimensionMismatch, match=r"s <= 10, 12"):
        model()(torch.rand(1, 11, 12), torch.tensor([11]))
    with pytest.raises(DimensionMismatch, match=r"within 1..5, got \[6\]"):
        model()(torch.rand(1, 5, 12), torch.tensor([6]))
