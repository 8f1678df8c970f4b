"""Towers: drawn and tokenized texts learn the same pairs, repeatably, and keep nothing of the head."""

import numpy as np
import pytest
import torch

from isometry.encoders import PixelEncoder
from isometry.encoders.backbones import tiny_encoder
from isometry.modules import PixelConfig, PixelTransformer, TextRenderer
from isometry.training import train_wordpiece
from isometry.training.towers import align, pixel_tower, subword_tower

TEXTS = [f"{a} {b}" for a in ("red", "green", "blue", "white") for b in ("bird", "stone", "house", "river")]


def tower(kind):
    if kind == "pixels":
        renderer = TextRenderer(patch_width=8, patches=16)
        return pixel_tower(renderer, PixelTransformer(PixelConfig(renderer.patch_pixels, 32, 1, 2, 16, 0.0), seed=0))
    tokenizer = train_wordpiece(TEXTS, 60)
    return subword_tower(tokenizer, tiny_encoder(len(tokenizer), dim=32, layers=1, heads=2, seed=0))


def same(rows, step):
    texts = [TEXTS[row] for row in rows]
    return texts, [text.split()[1] + " " + text.split()[0] for text in texts]


@pytest.mark.parametrize("kind", ["pixels", "subwords"])
def test_pairs_are_learned_and_the_head_is_left_out(kind):
    lengths = [len(text) for text in TEXTS]
    built = tower(kind)
    names = set(built.module.state_dict())
    losses = align(built, same, lengths, steps=80, batch_size=8, lr=3e-3)
    assert np.mean(losses[-8:]) < 0.5 * np.mean(losses[:8])
    assert set(built.module.state_dict()) == names
    assert not built.module.training
    again = tower(kind)
    assert align(again, same, lengths, steps=80, batch_size=8, lr=3e-3) == losses
    np.testing.assert_array_equal(again.encode(TEXTS), built.encode(TEXTS))
    left, right = (built.encode(side) for side in same(range(len(TEXTS)), 0))
    left, right = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (left, right))
    assert ((left @ right.T).argmax(1) == np.arange(len(TEXTS))).mean() > 0.5


def test_a_pixel_tower_encodes_as_its_encoder_does():
    built = tower("pixels")
    encoder = PixelEncoder(TextRenderer(patch_width=8, patches=16), built.module)
    np.testing.assert_array_equal(built.encode(TEXTS), encoder.encode(TEXTS))
    built.module.eval()
    with torch.no_grad():
        vectors = torch.nn.functional.normalize(built.embed(TEXTS), dim=1).numpy()
    np.testing.assert_allclose(vectors, built.encode(TEXTS), atol=1e-5)
