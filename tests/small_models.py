"""Models from scratch that fit in a test: a sentence-transformers folder of a few thousand weights."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ANIMALS = ("cat", "dog", "car", "tax", "owl", "ship", "tree", "song")
WORDS = ("red", "old", "small", "quick", "quiet", "bright", "heavy", "soft", "round", "cold")
OTHER = ("a", "the", "what", "about", "number", "was", "seen", "near", "gate", "and", "of", "in", ".", "?")


def save_small_model(folder: Path, *, seed: int = 0, dim: int = 16, layers: int = 2, words: int = 0) -> Path:
    """Write a tiny BERT with a word-level vocabulary as a sentence-transformers folder; ``words`` adds tokens."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import BertConfig, BertModel
    from transformers.utils import logging

    plain = folder.parent / f"{folder.name}-plain"
    tokenizer = _word_tokenizer(plain, [f"extra{i}" for i in range(words)])
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=dim, num_hidden_layers=layers, num_attention_heads=2,
        intermediate_size=2 * dim, max_position_embeddings=64,
    )  # fmt: skip
    logging.disable_progress_bar()
    BertModel(config, add_pooling_layer=False).save_pretrained(plain)
    body = Transformer(str(plain))
    model = SentenceTransformer(modules=[body, Pooling(dim, "mean"), Normalize()], device="cpu")
    model.max_seq_length = 64
    model.save_pretrained(str(folder), create_model_card=False)
    return folder


def save_small_decoder(folder: Path, *, dim: int = 16, layers: int = 1) -> Path:
    """Write a tiny causal language model that knows the words yes and no as a transformers folder."""
    from isometry.encoders.backbones import tiny_decoder
    from isometry.modules.quiet import quiet

    tokenizer = _word_tokenizer(folder, ["yes", "no", "judge", "document", "query"])
    with quiet():
        tiny_decoder(len(tokenizer), dim=dim, layers=layers, heads=2).save_pretrained(folder)
    return folder


def _word_tokenizer(folder: Path, more: Sequence[str]) -> Any:
    """Write and return a word-level tokenizer."""
    from transformers import BertTokenizerFast

    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *ANIMALS, *WORDS, *OTHER, *map(str, range(100)), *more]
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(vocab) + "\n")
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=64)
    tokenizer.save_pretrained(folder)
    return tokenizer


def write_pairs(path: Path, n: int = 200, *, seed: int = 0) -> Path:
    """Write a table of questions and the documents that answer them."""
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        thing, number = ANIMALS[i % len(ANIMALS)], i % 100
        question = f"what about the {rng.choice(WORDS)} {thing} number {number} ?"
        rows.append(f"{question}\ta {rng.choice(WORDS)} {thing} number {number} was seen near the gate {i // 100} .")
    path.write_text("query\tdocument\n" + "\n".join(rows) + "\n")
    return path
