"""The splice on both padding sides, and who can see whom through the contextual token."""

import pytest
import torch

from isometry.encoders.backbones import tiny_decoder, tiny_encoder
from isometry.errors import DimensionMismatch, InputError, UnknownName
from isometry.modules.attention_mask import position_ids, run
from isometry.modules.contextual_token import ContextualToken, SoftTokenProjector, splice_token


@pytest.fixture(scope="module")
def model():
    return ContextualToken(tiny_encoder(30, dim=12, heads=2), tiny_decoder(50, dim=16, heads=2)).eval()


def vectors(model, ids, mask=None, read=None, **how):
    mask = torch.ones_like(ids) if mask is None else mask
    read = ids % 30 if read is None else read
    with torch.no_grad():
        return model(model.context(read, torch.ones_like(read)), ids, mask, **how)


def test_splice_beside_both_paddings():
    embeds = torch.arange(8.0).reshape(2, 4, 1)
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]])
    found = splice_token(torch.tensor([[-1.0], [-2.0]]), embeds, mask)
    assert found.embeds[..., 0].tolist() == [[0, 1, -1, 2, 3], [-2, 4, 5, 6, 7]]
    assert found.attention_mask.int().tolist() == [[0, 0, 1, 1, 1], [1, 1, 1, 1, 0]]
    assert found.where.tolist() == [2, 0]
    assert position_ids(found.attention_mask).tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 3, 3]]
    behind = splice_token(torch.tensor([[-1.0], [-2.0]]), embeds, mask, after=1)
    assert behind.embeds[..., 0].tolist() == [[0, 1, 2, -1, 3], [4, -2, 5, 6, 7]]


def test_splice_behind_the_whole_text_and_gradient():
    token = torch.ones(1, 2, requires_grad=True)
    found = splice_token(token, torch.zeros(1, 3, 2), torch.ones(1, 3), after=3)
    assert found.where.tolist() == [3]
    found.embeds[0, 3].sum().backward()
    assert token.grad.tolist() == [[1.0, 1.0]]


def test_padding_side_does_not_matter(model):
    ids = torch.tensor([[4, 8, 15, 16, 23]])
    plain = vectors(model, ids)
    for left in (True, False):
        pads = torch.full((1, 3), 7)
        whole = torch.cat([pads, ids] if left else [ids, pads], 1)
        mask = torch.cat([0 * pads, ids * 0 + 1] if left else [ids * 0 + 1, 0 * pads], 1)
        torch.testing.assert_close(vectors(model, whole, mask, read=ids % 30), plain)


def test_first_token_sees_the_last_through_the_context_only(model):
    ids = torch.tensor([[4, 8, 15, 16, 23], [4, 8, 15, 16, 42]])
    mask = torch.ones_like(ids)
    with torch.no_grad():
        soft = model.projector(model.context(ids % 30, mask))
        through, _, where = model.states(soft, ids, mask)
        without, _, _ = model.states(torch.zeros_like(soft), ids, mask)
    first = where[0] + 1
    assert not torch.equal(through[0, first], through[1, first])
    assert torch.equal(without[0, first], without[1, first])


def test_context_state_is_independent_of_the_decoders_text(model):
    read = torch.tensor([[3, 1, 4], [3, 1, 4]])
    ids = torch.tensor([[1, 2, 3], [9, 8, 7]])
    found = vectors(model, ids, read=read, readout="context")
    torch.testing.assert_close(found[0], found[1])
    last = vectors(model, ids, read=read, readout="last")
    assert (last[0] - last[1]).abs().max() > 1e-3


def test_a_zero_projector_is_a_zero_soft_token():
    model = ContextualToken(tiny_encoder(30, dim=12, heads=2), tiny_decoder(50, dim=16, heads=2)).eval()
    with torch.no_grad():
        model.projector[2].weight.zero_()
        model.projector[2].bias.zero_()
    ids = torch.tensor([[5, 6, 7]])
    embeds = model.decoder.get_input_embeddings()(ids)
    zero = torch.cat([torch.zeros_like(embeds[:, :1]), embeds], 1)
    with torch.no_grad():
        expected = run(model.decoder, torch.ones(1, 4), inputs_embeds=zero)[0, -1]
    found = vectors(model, ids, readout="last")[0]
    torch.testing.assert_close(found, torch.nn.functional.normalize(expected, dim=-1))


def test_readouts_and_their_widths(model):
    ids = torch.tensor([[5, 6, 7]])
    assert model.out_dim == 32
    both, context, last = (vectors(model, ids, readout=how) for how in ("both", "context", "last"))
    torch.testing.assert_close(both.norm(dim=-1), torch.ones(1))
    joined = [torch.nn.functional.normalize(part, dim=-1) for part in both.split(16, dim=-1)]
    torch.testing.assert_close(torch.cat(joined, 1), torch.cat([context, last], 1))
    assert vectors(model, ids, readout="last+mean").shape == (1, 32)
    with pytest.raises(UnknownName, match="readout"):
        vectors(model, ids, readout="first")


def test_soft_tokens_begin_as_long_as_word_embeddings(model):
    ids = torch.randint(30, (64, 8), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        lengths = model.projector(model.context(ids, torch.ones_like(ids))).norm(dim=-1).mean()
    words = model.decoder.get_input_embeddings().weight.norm(dim=-1).mean().detach()
    assert float(lengths) == pytest.approx(float(words), rel=0.1)
    head = SoftTokenProjector(3, 4)
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    head.fit_norm(x, 7.0)
    assert float(head(x).norm(dim=-1).mean().detach()) == pytest.approx(7.0, rel=1e-5)


def test_gradient_reaches_encoder_projector_and_decoder():
    model = ContextualToken(tiny_encoder(30, dim=12, heads=2), tiny_decoder(50, dim=16, heads=2))
    ids = torch.tensor([[5, 6, 7]])
    model(model.context(ids, torch.ones_like(ids)), ids, torch.ones_like(ids))[0, 0].backward()
    for part in (model.encoder, model.projector, model.decoder):
        assert any(p.grad is not None and bool(p.grad.any()) for p in part.parameters())


def test_bad_input(model):
    with pytest.raises(DimensionMismatch):
        splice_token(torch.zeros(1, 2), torch.zeros(1, 3, 4), torch.ones(1, 3))
    with pytest.raises(InputError, match="cannot follow 4"):
        splice_token(torch.zeros(1, 2), torch.zeros(1, 3, 2), torch.ones(1, 3), after=4)
    with pytest.raises(InputError, match="widths"):
        SoftTokenProjector(0, 3)
    with pytest.raises(UnknownName):
        ContextualToken(model.encoder, model.decoder, readout="all")
