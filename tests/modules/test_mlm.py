from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

from isometry.errors import DimensionMismatch, EmptyInput, InputError
from isometry.modules import MaskingCollator, PredictionHead, hide_tokens, masked_loss, numeric_share, whole_word_mask

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["ab", "##c", "##d", "x", "y", "z", "12", "##3", "|"]


def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {token: i for i, token in enumerate(SPECIALS + WORDS)}
    pieces = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=pieces, **names)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=30), st.floats(0.01, 1.0), st.integers(0, 99))
def test_words_are_masked_whole_and_about_the_share_asked(lengths, rate, seed):
    words = [-1] + [w for w, n in enumerate(lengths) for _ in range(n)] + [-1, -1]
    chosen = whole_word_mask(torch.tensor([words]), rate, torch.Generator().manual_seed(seed))[0]
    assert not chosen[0]
    assert not chosen[-2:].any()
    parts = torch.split(chosen[1:-2], lengths)
    assert all(part.all() or not part.any() for part in parts)
    share = float(chosen.sum()) / sum(lengths)
    assert rate - 1e-6 <= share < rate + max(lengths) / sum(lengths) + 1e-6


def test_hidden_tokens_follow_the_shares_and_labels_hold_the_originals():
    ids = torch.full((200, 100), 7)
    chosen = torch.rand(ids.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    hidden, labels = hide_tokens(ids, chosen, mask_id=4, vocab_size=1000, generator=torch.Generator().manual_seed(1))
    assert torch.equal(hidden[~chosen], ids[~chosen])
    assert (labels[~chosen] == -100).all()
    assert (labels[chosen] == 7).all()
    assert abs(float((hidden[chosen] == 4).float().mean()) - 0.8) < 0.02
    assert abs(float((hidden[chosen] == 7).float().mean()) - 0.1) < 0.02


def test_collator_masks_twice_differently_and_repeats_for_a_seed():
    texts = ["abc abd x y z x y z abc", "x y"]

    def batch(seed=0):
        return MaskingCollator(tokenizer(), rate=0.3, decoder_rate=0.9, seed=seed)(texts)

    first, again = batch(), batch()
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["input_ids"], first["decoder_input_ids"])
    counts = [(first[k] != -100).sum() for k in ("labels", "decoder_labels")]
    assert counts[0] < counts[1]
    for prefix in ("", "decoder_"):
        shown, labels = first[f"{prefix}input_ids"], first[f"{prefix}labels"]
        assert (labels[:, 0] == -100).all()  # never [CLS]
        original = tokenizer()(texts, padding=True, return_tensors="pt")["input_ids"]
        assert torch.equal(torch.where(labels == -100, shown, labels), original)


def test_the_decoder_may_restore_another_text():
    batch = MaskingCollator(tokenizer())(["x y z"], ["abc abc abc abc"])
    assert batch["decoder_input_ids"].shape != batch["input_ids"].shape
    with pytest.raises(EmptyInput):
        MaskingCollator(tokenizer())(["x"], ["y", "z"])


def test_tables_get_their_own_attention():
    from isometry.data import serialize_table

    table = serialize_table(["x", "y"], [["abc", "z"], ["12", "abd"]], style="markers")
    batch = MaskingCollator(tokenizer())([table, table])
    assert batch["may_attend"].shape == (2, *[batch["input_ids"].shape[1]] * 2)
    assert not batch["may_attend"].all()
    with pytest.raises(InputError, match="either plain texts or tables"):
        MaskingCollator(tokenizer())([table, "x"])


def test_share_of_digits():
    ids = tokenizer().convert_tokens_to_ids(["12", "##3", "x", "ab"])
    assert numeric_share(torch.tensor([[-100, *ids]]), tokenizer()) == 0.5
    assert numeric_share(torch.tensor([[-100]]), tokenizer()) == 0.0


@pytest.mark.parametrize("kind", ["bert", "roberta", "modernbert"])
def test_heads_are_those_of_the_library(kind):
    torch.manual_seed(0)
    size = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    mlm = {
        "bert": lambda: BertForMaskedLM(BertConfig(**size, num_attention_heads=2)),
        "roberta": lambda: RobertaForMaskedLM(RobertaConfig(**size, num_attention_heads=2)),
        "modernbert": lambda: ModernBertForMaskedLM(ModernBertConfig(**size, num_attention_heads=2, **tokens)),
    }[kind]().eval()
    ids = torch.randint(5, 40, (2, 6))
    with torch.no_grad():
        states = mlm.base_model(input_ids=ids).last_hidden_state
        assert torch.allclose(PredictionHead(mlm)(states), mlm(input_ids=ids).logits, atol=1e-5)
        labels = torch.where(torch.rand(2, 6) < 0.5, ids, -100)
        labels[0, 0] = ids[0, 0]
        expected = mlm(input_ids=ids, labels=labels).loss
        assert torch.isclose(masked_loss(states, labels, PredictionHead(mlm)), expected, atol=1e-5)


def test_nothing_masked_costs_nothing():
    states = torch.ones(1, 2, 3, requires_grad=True)
    loss = masked_loss(states, torch.full((1, 2), -100), nn.Identity())
    loss.backward()
    assert loss == 0


def test_bad_input_is_refused():
    causal = LlamaForCausalLM(LlamaConfig(
        vocab_size=9, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
    ))  # fmt: skip
    with pytest.raises(InputError, match="no masked language"):
        PredictionHead(causal)
    with pytest.raises(InputError, match="rate"):
        whole_word_mask(torch.zeros(1, 2), 0.0, torch.Generator())
    with pytest.raises(DimensionMismatch):
        hide_tokens(torch.zeros(1, 2), torch.ones(1, 3).bool(), mask_id=0, vocab_size=2, generator=torch.Generator())
    blind = tokenizer()
    blind.mask_token = None
    with pytest.raises(InputError, match="mask token"):
        MaskingCollator(blind)
    with pytest.raises(EmptyInput):
        MaskingCollator(tokenizer())([])
