"""The pixel encoder: protocol, batches, cut texts, files."""

import numpy as np
import pytest

pytest.importorskip("PIL")

from isometry.encoders import PixelEncoder
from isometry.errors import CorruptStore, InputError, Truncated
from isometry.modules import PixelConfig, PixelTransformer, TextRenderer
from isometry.modules.text_renderer import monospace_font
from isometry.protocols import Encoder


def encoder(font=None):
    renderer = TextRenderer(font, patches=12)
    return PixelEncoder(renderer, PixelTransformer(PixelConfig(renderer.patch_pixels, 16, 1, 2, 12)))


def test_is_an_encoder_whose_vectors_do_not_depend_on_company():
    pixels = encoder()
    assert isinstance(pixels, Encoder)
    texts = ["a cat", "two words more", "", "a cat"]
    vectors = pixels.encode_document(texts)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(vectors[:1], pixels.encode_query(texts[:1], batch_size=1), atol=1e-6)
    np.testing.assert_allclose(vectors[0], vectors[3], atol=1e-6)
    np.testing.assert_allclose(pixels.encode_query(["cat"], prompt="a "), vectors[:1], atol=1e-6)


def test_cut_texts_are_told():
    with pytest.warns(Truncated, match="1 of 2 texts were cut to 12 patches"):
        encoder().encode(["x" * 200, "x"])


def test_file(tmp_path):
    pixels = encoder()
    pixels.save(tmp_path / "model")
    again = PixelEncoder.load(tmp_path / "model")
    assert again.space == pixels.space
    assert np.array_equal(again.encode(["some text"]), pixels.encode(["some text"]))
    with pytest.raises(InputError, match="trained on DejaVu Sans Mono Book"):
        PixelEncoder.load(tmp_path / "model", font=monospace_font().with_name("DejaVuSans.ttf"))
    (tmp_path / "model" / "model.safetensors").write_bytes(b"x")
    with pytest.raises(CorruptStore, match="no pixel encoder"):
        PixelEncoder.load(tmp_path / "model")


def test_sizes_must_agree():
    with pytest.raises(InputError, match="up to 64 patches of 256 pixels"):
        PixelEncoder(TextRenderer(), PixelTransformer(PixelConfig(256, 16, 1, 2, 12)))
