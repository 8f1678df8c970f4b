"""GEM's losses: which tokens they touch, and that a decoder learns to compress."""

import pytest
import torch

from isometry.encoders.backbones import tiny_decoder
from isometry.errors import EmptyInput, InputError
from isometry.modules.special_tokens import add_tokens
from isometry.training.loop import train
from isometry.training.special_tokens import SpecialTokenModel, padded


def make(seed=0, count=1, vocabulary=32):
    lm = tiny_decoder(vocabulary, dim=32, heads=2, seed=seed)
    return SpecialTokenModel(lm, add_tokens(lm, count))


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 32, (12,), generator=generator).tolist() for _ in range(6)]


def test_plain_loss_is_the_models_own(rows):
    model = make()
    ids = torch.tensor(rows)
    whole = tiny_decoder(32, dim=32, heads=2)
    expected = whole(ids, labels=ids).loss
    torch.testing.assert_close(model.plain_loss(rows), expected, rtol=1e-5, atol=1e-5)


def test_all_plain_all_squeezed_and_the_sum(rows):
    model = make()
    torch.manual_seed(0)
    torch.testing.assert_close(model.mixed_loss(rows, share=0.0), model.plain_loss(rows))
    torch.manual_seed(0)
    torch.rand(len(rows))
    expected = model.bottleneck_loss(rows)
    torch.manual_seed(0)
    torch.testing.assert_close(model.mixed_loss(rows, share=1.0), expected)
    torch.manual_seed(0)
    found = model.summed_loss(rows, weight=2.0)
    torch.manual_seed(0)
    torch.testing.assert_close(found, model.plain_loss(rows) + 2 * model.bottleneck_loss(rows))


def test_short_texts_are_skipped_and_counted(rows):
    model = make()
    whole = model.bottleneck_loss([row[:8] for row in rows], [4] * 6)
    found = model.bottleneck_loss([*(row[:8] for row in rows), [1, 2, 3]])
    torch.testing.assert_close(found, whole)
    assert model.skipped == 1
    with pytest.raises(EmptyInput, match="8 tokens"):
        model.bottleneck_loss([[1, 2]])
    with pytest.raises(EmptyInput, match="8 tokens"):
        model.mixed_loss([[1, 2]])


def test_token_embeddings_learn_where_words_are_frozen(rows):
    model = make(count=2)
    model.lm.get_input_embeddings().weight.requires_grad_(False)
    model.bottleneck_loss(rows).backward()
    assert model.rows.grad.abs().sum(1).all()
    with torch.no_grad():
        model.rows.add_(1)
    before = model(rows)
    model.settle()
    torch.testing.assert_close(model.lm.get_input_embeddings().weight[model.tokens], model.rows.detach())
    torch.testing.assert_close(SpecialTokenModel(model.lm, model.tokens)(rows), before)


def test_swapped_prefixes_matter_after_training_only():
    generator = torch.Generator().manual_seed(1)
    halves = torch.randint(0, 16, (256, 12), generator=generator) + 16 * torch.randint(
        0, 2, (256, 1), generator=generator
    )
    texts = halves.tolist()
    model = make(seed=1)
    before = model.first_token_losses(texts[:64], 6)
    batches = [texts[i : i + 32] for i in range(0, 256, 32)]
    train(model, batches, lambda m, batch: m.bottleneck_loss(batch, [6] * len(batch)), steps=60, lr=5e-3)
    after = model.first_token_losses(texts[:64], 6)
    assert before["swapped"].mean() - before["own"].mean() < 0.1
    assert after["swapped"].mean() - after["own"].mean() > 0.5


def test_vectors_are_normalised_and_contrastive_loss_runs(rows):
    model = make()
    assert torch.allclose(model(rows).norm(dim=-1), torch.ones(6))
    alone = model.contrastive_loss(rows, rows[::-1], plain_weight=0)
    torch.testing.assert_close(model.contrastive_loss(rows, rows[::-1]), alone + model.plain_loss(rows[::-1]))


def test_bad_input(rows):
    with pytest.raises(InputError, match="share"):
        make().mixed_loss(rows, share=2)
    with pytest.raises(EmptyInput):
        padded([[1], []])
