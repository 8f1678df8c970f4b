"""Trainable heads: closed forms, invariances, and the role each side plays."""

import pytest
import torch

from isometry.errors import InputError, UnknownName
from isometry.modules.pooling import LatentAttention, Perceiver, TrainablePooling, last_pool, layer_context, mean_pool

SIZES = {"latents": 5, "heads": 2, "head_dim": 4}
STATES = torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]])


@pytest.fixture(autouse=True)
def _no_gradient():
    with torch.no_grad():
        yield


def test_latent_attention_switched_off_is_the_mean():
    head = LatentAttention(8, **SIZES)
    assert not torch.allclose(head.pool(STATES, MASK), mean_pool(STATES, MASK), atol=1e-2)
    for parameter in (
        head.perceiver.out.weight,
        head.perceiver.feed_forward.out.weight,
        head.perceiver.feed_forward.out.bias,
    ):
        parameter.zero_()
    assert torch.equal(head.pool(STATES, MASK), mean_pool(STATES, MASK))


def test_latent_attention_by_hand():
    """One head written out as in the paper: queries from tokens, keys and values from latents."""
    head = LatentAttention(8, latents=5, heads=1, head_dim=4)
    block = head.perceiver
    q = block.norm_query(STATES) @ block.query.weight.T
    k, v = (block.norm_context(block.latents) @ block.key_value.weight.T).chunk(2, -1)
    h1 = STATES + torch.softmax(q @ k.T / 4**0.5, -1) @ v @ block.out.weight.T
    a, b = block.feed_forward.inner(block.norm_inner(h1)).chunk(2, -1)
    h2 = h1 + block.feed_forward.out(a * torch.nn.functional.gelu(b))
    assert torch.allclose(head.pool(STATES, MASK), mean_pool(h2, MASK), atol=1e-5)


@pytest.mark.parametrize("head", [LatentAttention(8, **SIZES), TrainablePooling(8, **SIZES)])
def test_order_of_latents_and_of_tokens_does_not_matter(head):
    before = head.pool(STATES, MASK)
    order = torch.tensor([2, 0, 1, 5, 4, 3])  # within the real tokens of row 1, and within its padding
    keep = [0, 1]
    assert torch.allclose(head.pool(STATES[keep][:, order], MASK[keep]), before[keep], atol=1e-5)
    head.perceiver.latents.copy_(head.perceiver.latents[[3, 1, 4, 0, 2]])
    assert torch.allclose(head.pool(STATES, MASK), before, atol=1e-5)


@pytest.mark.parametrize("head", [LatentAttention(8, **SIZES), TrainablePooling(8, **SIZES)])
def test_padding_does_not_matter(head):
    other = STATES.masked_fill(MASK[..., None] == 0, 100.0)
    assert torch.allclose(head.pool(other, MASK), head.pool(STATES, MASK), atol=1e-5)
    assert torch.allclose(head.pool(STATES[2:, :1], MASK[2:, :1]), head.pool(STATES[2:], MASK[2:]), atol=1e-5)


def test_one_state_to_look_at_leaves_nothing_to_choose():
    block = Perceiver(8, asking="latents", **SIZES)
    one = STATES[:, :1]
    attended = block.attend(one)
    assert torch.allclose(attended, attended[:, :1].expand_as(attended), atol=1e-6)
    block.query.weight.normal_()
    half = len(block.key_value.weight) // 2
    block.key_value.weight[:half].normal_()
    assert torch.allclose(block.attend(one), attended, atol=1e-6)
    block.key_value.weight[half:].normal_()
    assert not torch.allclose(block.attend(one), attended, atol=1e-2)


def test_layers_have_names_unless_their_embedding_is_zero():
    head = TrainablePooling(8, layers=6, **SIZES)
    head.layer_embedding.normal_()
    turned = STATES.flip(1)
    assert not torch.allclose(head.pool(turned), head.pool(STATES), atol=1e-3)
    head.layer_embedding.zero_()
    assert torch.allclose(head.pool(turned), head.pool(STATES), atol=1e-5)


def test_layer_context():
    layers = (STATES, STATES + 1)
    assert layer_context(layers, MASK, causal=True)[:, 1].equal(last_pool(STATES + 1, MASK))
    assert layer_context(layers, MASK, causal=False)[:, 0].equal(mean_pool(STATES, MASK))


@pytest.mark.parametrize(("layers", "causal"), [(None, True), (None, False), (2, True), (2, False)])
def test_features_in_and_out(layers, causal):
    head = TrainablePooling(8, layers=layers, causal=causal, **SIZES)
    all_layers = (STATES, STATES + 1, STATES * 2)
    features = {"token_embeddings": all_layers[-1], "attention_mask": MASK, "all_layer_embeddings": all_layers}
    out = head(features)["sentence_embedding"]
    if layers:
        expected = head.pool(layer_context(all_layers[1:], MASK, causal=causal))
    else:
        expected = head.pool(last_pool(all_layers[-1], MASK)[:, None]) if causal else head.pool(all_layers[-1], MASK)
    assert out.equal(expected)
    assert out.shape == (3, head.get_embedding_dimension())


def test_instruction_tokens_are_not_pooled():
    head = LatentAttention(8, **SIZES)
    features = {"token_embeddings": STATES[:2], "attention_mask": MASK[:2], "prompt_length": torch.tensor([2, 1])}
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [0, 1, 1, 0, 0, 0]])
    assert head(features)["sentence_embedding"].equal(head.pool(STATES[:2], mask))


def test_same_seed_same_head_and_generators_untouched():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    heads = [TrainablePooling(8, layers=2, seed=1, **SIZES) for _ in range(2)]
    assert torch.rand(1).equal(expected)
    assert heads[0].pool(STATES[:, :2]).equal(heads[1].pool(STATES[:, :2]))


def test_bad_input():
    with pytest.raises(InputError, match="at least 1"):
        LatentAttention(8, latents=0)
    with pytest.raises(UnknownName, match="asking"):
        Perceiver(8, asking="nobody")
    with pytest.raises(InputError, match="looks at 2 layers"):
        TrainablePooling(8, layers=2, **SIZES).pool(STATES)
    with pytest.raises(InputError, match="number of layers"):
        TrainablePooling(8, layers=0)
    with pytest.raises(InputError, match="all_layers"):
        TrainablePooling(8, layers=2, **SIZES)({"token_embeddings": STATES, "attention_mask": MASK})
