"""Drawn text: determinism, what fits, which scripts are refused, and how far one letter reaches."""

import hashlib

import numpy as np
import pytest

pytest.importorskip("PIL")

from isometry.errors import InputError
from isometry.modules import TextRenderer
from isometry.modules.text_renderer import monospace_font, needs_shaping


def proportional():
    return monospace_font().with_name("DejaVuSans.ttf")


def test_the_same_text_is_the_same_picture():
    texts = ["A cat sat.", "Größe, ĉevalo, Жук, λόγος"]
    first, again = TextRenderer().render(texts), TextRenderer().render(texts[::-1])
    assert hashlib.sha256(first.images[0].tobytes()).digest() == hashlib.sha256(again.images[1].tobytes()).digest()
    assert not np.array_equal(first.images[0], first.images[1])
    assert TextRenderer().fingerprint == TextRenderer(monospace_font()).fingerprint
    assert TextRenderer().fingerprint != TextRenderer(size=12).fingerprint


def test_ink_ends_with_one_black_patch():
    renderer = TextRenderer(patches=10)
    images, counts, cut = renderer.render(["four letters", "", "l" * 10])
    patches = renderer.to_patches(images)
    assert patches.shape == (3, 10, 256)
    assert not cut.any()
    assert counts.tolist() == [-(-12 * 7 // 16) + 1, 1, -(-70 // 16) + 1]
    for row, count in enumerate(counts):
        assert (patches[row, count - 1] == 1).all()
        assert (patches[row, count:] == 0).all()
        assert patches[row, : count - 1].max(initial=0.5) <= 1


def test_long_text_is_cut_and_counted():
    renderer = TextRenderer(patches=4)
    images, counts, cut = renderer.render(["x" * 100, "x" * 6])
    assert counts.tolist() == [4, 4]
    assert cut.tolist() == [100 * 7 - 3 * 16, 0]
    assert np.array_equal(images[0], renderer.render(["x" * 99])[0][0])


def test_white_space_and_composition_do_not_matter():
    images = TextRenderer().render(["a  b\té", " a b e\u0301"])[0]
    assert np.array_equal(images[0], images[1])


def changed(renderer, one, other):
    a, b = renderer.to_patches(renderer.render([one, other]).images)
    return np.flatnonzero((a != b).any(axis=1))


def test_one_letter_reaches_no_further_than_its_patches_in_a_monospaced_font():
    text = "the quick brown fox jumps over it"
    for place in range(len(text)):
        where = changed(TextRenderer(), text, f"{text[:place]}m{text[place + 1 :]}")
        left, right = 7 * place // 16, (7 * place + 7) // 16
        assert len(where) <= 2
        assert set(where) <= set(range(left, right + 1))
    wide = changed(TextRenderer(proportional()), text, f"the qu{'m'}ck brown fox jumps over it")
    assert len(wide) > 5  # a proportional font moves everything after it


def test_remembered_pictures_are_those_drawn():
    texts = ["a text", "another text that is longer", "a  text", "a third one"]
    plain, kept = TextRenderer(patches=12), TextRenderer(patches=12, remember=2)
    for _ in range(2):
        for a, b in zip(plain.render(texts), kept.render(texts), strict=True):
            assert np.array_equal(a, b)
    assert list(kept._lines) == ["a text", "another text that is longer"]
    assert not plain._lines
    assert plain.fingerprint == kept.fingerprint


def test_words_in_patches_of_their_own_keep_theirs_after_a_lost_letter():
    texts = ["a small bird sings", "a smll bird sings"]
    same = {}
    for words in (True, False):
        renderer = TextRenderer(patch_width=8, patches=40, words=words)
        images, counts, _ = renderer.render(texts)
        full, lost = (part[: n - 1] for part, n in zip(renderer.to_patches(images), counts, strict=True))
        last = len("bird sings") * 7 // 8  # patches of the two later words, which are as many with gaps or more
        same[words] = np.array_equal(full[-last:], lost[-last:])
    assert same == {True: True, False: False}
    whole, parts = TextRenderer(patch_width=8), TextRenderer(patch_width=8, words=True)
    assert whole.fingerprint != parts.fingerprint
    assert np.array_equal(whole.render(["word"]).images, parts.render(["word"]).images)
    assert parts.render(["a b"]).patches[0] == 4  # a and blank are 14 pixels, two patches; b one; the end one
    assert TextRenderer(patch_width=8, patches=3, words=True).render(["a b"]).cut[0] == 7


def test_scripts_that_need_shaping_are_refused():
    for text in ("שלום", "سلام", "हिन्दी", "q\u0307"):
        with pytest.raises(InputError, match="right to left or combines"):
            TextRenderer().render(["fine", text])
    assert not needs_shaping("é")


def test_missing_glyphs_are_named():
    with pytest.raises(InputError, match=r"DejaVu Sans Mono Book has no glyph for '中' \(U\+4E2D\), '文' \(U\+6587\)"):
        TextRenderer().render(["中文"])


def test_bad_input(tmp_path):
    with pytest.raises(InputError, match="patches >= 2"):
        TextRenderer(patches=1)
    (tmp_path / "no.ttf").write_bytes(b"x")
    with pytest.raises(InputError, match="cannot be read as a font"):
        TextRenderer(tmp_path / "no.ttf").render(["a"])
