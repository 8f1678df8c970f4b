from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from isometry.modules import MaskingCollator, RetroMAE, SizedMAE
from isometry.training import Checkpoints
from isometry.training.masked_pretraining import pretrain
from isometry.training.wordpiece import train_wordpiece

TEXTS = [f"the {a} {b} the {a} again" for a in ("dog", "cat", "bird", "fish") for b in ("sees", "hears", "meets")] * 3


def tiny(vocabulary: int) -> BertForMaskedLM:
    torch.manual_seed(0)
    return BertForMaskedLM(
        BertConfig(
            vocab_size=vocabulary, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
        )
    )


def test_both_ways_of_pretraining_learn_and_repeat():
    tokenizer = train_wordpiece(TEXTS, 80)
    for make in (RetroMAE, lambda mlm: SizedMAE(mlm, [(1, 8), (2, 32)])):
        histories = []
        for _ in range(2):
            collate = MaskingCollator(tokenizer, rate=0.3, decoder_rate=0.6, seed=0)
            histories.append(pretrain(make(tiny(len(tokenizer))), TEXTS, collate, steps=40, batch_size=12, lr=3e-3))
        assert histories[0] == histories[1]
        assert np.mean(histories[0][-5:]) < 0.8 * histories[0][0]


def test_an_interrupted_pretraining_goes_on_and_ends_the_same(tmp_path):
    tokenizer = train_wordpiece(TEXTS, 80)

    class Killed(Exception):
        pass

    def run(keep=None, progress=None):
        module = RetroMAE(tiny(len(tokenizer)))
        collate = MaskingCollator(tokenizer, rate=0.3, decoder_rate=0.6, seed=0)
        history = pretrain(module, TEXTS, collate, steps=12, batch_size=12, lr=3e-3, progress=progress, keep=keep)
        return history, list(module.parameters())

    def killer(done, total):
        if done == 8:
            raise Killed

    whole, weights = run()
    keep = Checkpoints(tmp_path, every=3)
    with pytest.raises(Killed):
        run(keep, killer)
    again, found = run(keep)
    assert again == whole
    assert all(torch.equal(a, b) for a, b in zip(weights, found, strict=True))
