from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, ModernBertConfig, ModernBertForMaskedLM

from isometry.errors import DimensionMismatch, InputError
from isometry.modules import BottleneckDecoder, RetroMAE, SizedMAE, keep_dims, masked_loss
from isometry.modules.layer_states import layer_states

SIZE = {"vocab_size": 60, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}


def model() -> BertForMaskedLM:
    torch.manual_seed(0)
    return BertForMaskedLM(BertConfig(**SIZE, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))


def batch(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    out = {}
    for prefix, rate in (("", 0.2), ("decoder_", 0.6)):
        ids = torch.randint(5, 60, (4, 9), generator=generator)
        hidden = torch.rand(ids.shape, generator=generator) < rate
        hidden[:, 0], hidden[:, 1] = False, True
        out[f"{prefix}input_ids"] = ids.masked_fill(hidden, 4)
        out[f"{prefix}labels"] = ids.masked_fill(~hidden, -100)
        out[f"{prefix}attention_mask"] = torch.ones_like(ids)
    return out


def block_grads(mlm) -> list[torch.Tensor | None]:
    return [p.grad for p in mlm.bert.encoder.parameters()]


def test_the_decoder_reaches_the_blocks_only_through_the_vector():
    loss = RetroMAE(model())
    rows = batch()
    vector = loss.mlm.bert(input_ids=rows["input_ids"]).last_hidden_state[:, 0]
    loss.restore(vector.detach(), rows).backward()
    assert all(g is None for g in block_grads(loss.mlm))
    assert loss.mlm.bert.embeddings.word_embeddings.weight.grad is not None  # shared by design
    loss.restore(vector, rows).backward()
    assert any(g is not None and g.abs().sum() > 0 for g in block_grads(loss.mlm))


def test_the_decoder_sees_nothing_of_the_encoders_text_but_the_vector():
    loss = RetroMAE(model()).eval()
    first, second = batch(0), batch(1)
    mixed = {k: (first if k.startswith("decoder_") else second)[k] for k in first}
    vector = torch.randn(4, 16)
    assert torch.equal(loss.restore(vector, first), loss.restore(vector, mixed))
    assert not torch.equal(loss.restore(vector, first), loss.restore(-vector, first))
    first["decoder_input_ids"][:, 0] = 7  # the first token is replaced by the vector
    assert torch.equal(loss.restore(vector, first), loss.restore(vector, mixed))


def test_embeddings_and_head_are_shared_blocks_are_not():
    mlm = model()
    loss = RetroMAE(mlm)
    assert loss.decoder.body.embeddings is mlm.bert.embeddings
    assert loss.head.last is mlm.cls.predictions.decoder
    assert len(loss.decoder.body.encoder.layer) == 1
    extra = sum(p.numel() for p in loss.parameters()) - sum(p.numel() for p in mlm.parameters())
    assert extra == sum(p.numel() for p in mlm.bert.encoder.layer[0].parameters())
    again = RetroMAE(mlm)
    assert all(torch.equal(a, b) for a, b in zip(loss.parameters(), again.parameters(), strict=True))


def test_both_losses_count_and_either_may_be_switched_off():
    mlm, rows = model(), batch()
    encoder, decoder = RetroMAE(mlm).parts(rows)
    assert torch.isclose(RetroMAE(mlm)(rows), encoder + decoder)
    assert torch.isclose(RetroMAE(mlm, bottleneck=0.0)(rows), encoder)
    assert torch.isclose(encoder, mlm(input_ids=rows["input_ids"], labels=rows["labels"]).loss, atol=1e-6)


def test_a_few_steps_put_the_text_into_the_vector():
    loss, rows = RetroMAE(model()), batch()
    optimiser = torch.optim.Adam(loss.parameters(), lr=3e-3)
    for _ in range(120):
        optimiser.zero_grad()
        loss(rows).backward()
        optimiser.step()
    with torch.no_grad():
        vector = loss.mlm.bert(input_ids=rows["input_ids"]).last_hidden_state[:, 0]
        assert loss.restore(vector, rows) + 0.3 < loss.restore(vector.roll(1, 0), rows)


def test_structure_restricts_the_encoder():
    loss, rows = RetroMAE(model()), batch()
    everything = torch.ones(4, 9, 9, dtype=torch.bool)
    free = loss(rows | {"may_attend": everything})
    assert torch.isclose(free, loss(rows), atol=1e-5)
    assert not torch.isclose(loss(rows | {"may_attend": torch.eye(9).bool().expand(4, 9, 9)}), free)


def test_works_on_models_with_rotary_positions():
    torch.manual_seed(0)
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    theta = {"global_rope_theta": 80_000.0, "local_rope_theta": 10_000.0, "global_attn_every_n_layers": 3}
    mlm = ModernBertForMaskedLM(ModernBertConfig(**SIZE, **tokens, **theta))
    assert torch.isfinite(RetroMAE(mlm)(batch()))


def test_head_on_a_slice_of_the_full_width_is_the_standard_head():
    mlm, rows = model(), batch()
    sized = SizedMAE(mlm, [(1, 4), (3, 16)])
    rows["labels"][:, 2:] = -100  # one token a text, so that the mean over texts is that over tokens
    losses = {size: values.mean() for size, values in sized.mlm_losses(rows).items()}
    expected = mlm(input_ids=rows["input_ids"], labels=rows["labels"]).loss
    assert torch.isclose(losses[3, 16], expected, atol=1e-6)

    states = layer_states(mlm.bert, input_ids=rows["input_ids"], attention_mask=rows["attention_mask"])[1]
    dense = mlm.cls.predictions.transform.dense
    sliced = states[..., :4] @ dense.weight[:, :4].T + dense.bias
    assert torch.allclose(dense(keep_dims(states, 4)), sliced, atol=1e-6)
    transform = mlm.cls.predictions.transform
    logits = mlm.cls.predictions.decoder(transform.LayerNorm(transform.transform_act_fn(sliced)))
    assert torch.isclose(losses[1, 4], masked_loss(logits, rows["labels"], lambda x: x), atol=1e-6)


def test_sized_loss_is_the_mean_over_sizes_of_the_mean_of_both():
    mlm, rows = model(), batch()
    alone = [SizedMAE(mlm, [size])(rows) for size in ((1, 4), (2, 8), (3, 16))]
    together = SizedMAE(mlm, [(1, 4), (2, 8), (3, 16)])(rows)
    assert torch.isclose(together, torch.stack(alone).mean(), atol=1e-6)
    plain = SizedMAE(mlm, [(3, 16)], bottleneck=False)(rows)
    assert torch.isclose(plain, mlm(input_ids=rows["input_ids"], labels=rows["labels"]).loss, atol=1e-6)


def test_bad_input_is_refused():
    mlm = model()
    with pytest.raises(InputError, match=r"\(4, 16\)"):
        SizedMAE(mlm, [(4, 16)])
    with pytest.raises(DimensionMismatch, match="width 16"):
        BottleneckDecoder(mlm.bert)(torch.zeros(2, 8), torch.zeros(2, 3).long(), torch.ones(2, 3))
