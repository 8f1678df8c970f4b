"""Attention masks: who sees whom, padding on either side, and that a body really follows."""

import pytest
import torch

from isometry.encoders.backbones import tiny_decoder, tiny_encoder
from isometry.errors import DimensionMismatch, InputError, UnknownName
from isometry.modules.attention_mask import KINDS, allowed, check_attention, position_ids, run

MASK = torch.tensor([[1, 1, 1, 0], [0, 1, 1, 1], [1, 1, 1, 1]])


@pytest.fixture(scope="module")
def decoder():
    return tiny_decoder(60, dim=32, layers=3)


def test_causal_equals_the_body_s_own(decoder):
    ids = torch.randint(0, 60, (2, 7))
    with torch.no_grad():
        own = decoder.base_model(input_ids=ids, output_hidden_states=True)
        ours = run(decoder, torch.ones_like(ids), input_ids=ids, all_layers=True)
    assert torch.allclose(own.last_hidden_state, ours[-1], atol=1e-6)
    assert len(ours) == 4
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(own.hidden_states, ours, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_only_allowed_tokens_are_seen(decoder, kind):
    """Changing any one token changes exactly the states that may see it, directly or over several layers."""
    prefix = torch.tensor([2, 1, 3]) if kind == "prefix" else None
    ids = torch.randint(0, 60, MASK.shape, generator=torch.Generator().manual_seed(0))
    may = allowed(kind, MASK, prefix=prefix)
    reach = may.float() @ may.float() @ may.float() > 0
    for token in range(4):
        other = ids.clone()
        other[:, token] = (other[:, token] + 1) % 60
        with torch.no_grad():
            a, b = (run(decoder, MASK, input_ids=x, kind=kind, prefix=prefix) for x in (ids, other))
        assert torch.equal((a != b).any(-1), reach[:, :, token])


def test_last_token_changes_the_first_only_when_bidirectional(decoder):
    ids = torch.arange(8)[None]
    other = ids.clone()
    other[0, -1] = 50
    with torch.no_grad():
        for kind, same in (("causal", True), ("bidirectional", False)):
            a, b = (run(decoder, torch.ones_like(ids), input_ids=x, kind=kind)[0, 0] for x in (ids, other))
            assert torch.equal(a, b) == same


@pytest.mark.parametrize("kind", ["causal", "bidirectional"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_padding_does_not_matter(kind, attention):
    body = tiny_decoder(60, dim=32).base_model
    body.set_attn_implementation(attention)
    ids = torch.randint(1, 60, (1, 5))
    pad = torch.zeros(1, 3, dtype=torch.long)
    one, none = torch.ones_like(ids), torch.zeros_like(pad)
    with torch.no_grad():
        plain = run(body, one, input_ids=ids, kind=kind)
        right = run(body, torch.cat([one, none], 1), input_ids=torch.cat([ids, pad], 1), kind=kind)[:, :5]
        left = run(body, torch.cat([none, one], 1), input_ids=torch.cat([pad, ids], 1), kind=kind)[:, 3:]
    assert torch.allclose(plain, right, atol=1e-5)
    assert torch.allclose(plain, left, atol=1e-5)


def test_embeddings_and_gradients_pass(decoder):
    ids = torch.randint(0, 60, (2, 4))
    embedded = decoder.get_input_embeddings()(ids).detach().requires_grad_()
    states = run(decoder, torch.ones_like(ids), inputs_embeds=embedded, kind="bidirectional")
    states[:, 0].sum().backward()
    assert (embedded.grad.abs().sum(-1) > 0).all()  # the first token sees all
    with torch.no_grad():
        assert torch.allclose(
            states, run(decoder, torch.ones_like(ids), input_ids=ids, kind="bidirectional"), atol=1e-6
        )


def test_own_mask(decoder):
    ids = torch.randint(0, 60, (1, 4))
    alone = torch.eye(4, dtype=torch.bool)[None]
    with torch.no_grad():
        a = run(decoder, torch.ones_like(ids), input_ids=ids, may_attend=alone)
        other = ids.clone()
        other[0, 0] = (ids[0, 0] + 1) % 60
        b = run(decoder, torch.ones_like(ids), input_ids=other, may_attend=alone)
    assert torch.equal(a[:, 1:], b[:, 1:])


def test_positions():
    assert position_ids(MASK).tolist() == [[0, 1, 2, 2], [0, 0, 1, 2], [0, 1, 2, 3]]


@pytest.mark.parametrize("kind", KINDS)
def test_check_passes_and_leaves_the_mode(decoder, kind):
    decoder.train()
    check_attention(decoder, kind)
    check_attention(tiny_encoder(60, dim=32), kind)
    assert decoder.training
    decoder.eval()


def test_check_notices_a_body_that_ignores_its_mask(decoder):
    class Deaf(torch.nn.Module):
        def __init__(self, body):
            super().__init__()
            self.body = body

        @property
        def base_model(self):
            return self

        def get_input_embeddings(self):
            return self.body.get_input_embeddings()

        def forward(self, input_ids, **_):
            return self.body(input_ids=input_ids)

    with pytest.raises(InputError, match="does not see later tokens"):
        check_attention(Deaf(decoder.base_model), "bidirectional")


def test_bad_input(decoder):
    with pytest.raises(UnknownName, match="attention"):
        allowed("sideways", MASK)
    with pytest.raises(InputError, match="prefix"):
        allowed("prefix", MASK)
    with pytest.raises(InputError, match="prefix"):
        allowed("causal", MASK, prefix=2)
    with pytest.raises(InputError, match="Text 1 of the batch"):
        position_ids(torch.tensor([[1, 1], [0, 0]]))
    with pytest.raises(DimensionMismatch):
        position_ids(torch.ones(3))
    with pytest.raises(InputError, match="either"):
        run(decoder, MASK)
    with pytest.raises(DimensionMismatch, match="agree"):
        run(decoder, MASK, input_ids=torch.ones(3, 5, dtype=torch.long))
    with pytest.raises(DimensionMismatch, match="may_attend"):
        run(decoder, MASK, input_ids=MASK, may_attend=torch.ones(3, 4, 4))
