"""Damages to text: what they keep, how many they make, that the seed decides."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.data import perturb
from isometry.data.perturbations import (
    KEYS,
    PERTURBATIONS,
    crop_words,
    drop_words,
    shuffle_within,
    shuffle_words,
    typos,
)
from isometry.errors import InputError, UnknownName

words = st.lists(st.text("abcdefgh", min_size=1, max_size=6), min_size=1, max_size=12).map(" ".join)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("kind", sorted(PERTURBATIONS))
def test_nothing_at_strength_zero_and_the_seed_decides(kind):
    texts = ["A quick brown fox, it seems, jumps over the dog.", "Another one of these texts here"]
    assert perturb(texts, kind, strength=0) == texts
    assert perturb(texts, kind, strength=2, seed=1) == perturb(texts, kind, strength=2, seed=1)
    assert perturb(texts, kind, strength=3, seed=1) != texts
    assert perturb(texts * 2, kind, strength=2)[:2] == perturb(texts, kind, strength=2)


@given(text=words, seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_shuffles_keep_the_words(text, seed):
    assert sorted(shuffle_words(text, rng(seed)).split()) == sorted(text.split())
    inner = shuffle_within(text, rng(seed)).split()
    assert sorted(inner) == sorted(text.split())
    assert (inner[0], inner[-1]) == (text.split()[0], text.split()[-1])


def test_sub_sentences_keep_their_ends_and_punctuation():
    text = "one two three four five, six seven eight nine ten. Done"
    for seed in range(20):
        found = shuffle_within(text, rng(seed))
        first, second = found.split(",")
        assert (first.split()[0], first.split()[-1]) == ("one", "five")
        assert (second.split()[0], second.split()[-2]) == ("six", "ten.")
        assert found.endswith(" ten. Done")
        assert set(first.split()) == {"one", "two", "three", "four", "five"}
    assert len({shuffle_within(text, rng(seed)) for seed in range(20)}) > 5


def distance(a, b):
    """Edit distance with swaps of neighbours (optimal string alignment)."""
    d = np.zeros((len(a) + 1, len(b) + 1), int)
    d[:, 0], d[0] = range(len(a) + 1), range(len(b) + 1)
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            d[i, j] = min(d[i - 1, j] + 1, d[i, j - 1] + 1, d[i - 1, j - 1] + (a[i - 1] != b[j - 1]))
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                d[i, j] = min(d[i, j], d[i - 2, j - 2] + 1)
    return d[-1, -1]


@given(text=words, count=st.integers(1, 4), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_typos_are_as_many_edits_at_most(text, count, seed):
    assert distance(text, typos(text, count, rng(seed))) <= 2 * count  # a swap may undo or spread another edit
    assert distance(text, typos(text, 1, rng(seed))) == 1
    assert distance(text, typos(text, 1, rng(seed), kinds=["substitute"])) == 1


def test_substitutes_are_neighbouring_keys_and_capitals_stay():
    assert set(KEYS["g"]) == set("fhtyvb")
    for c, others in KEYS.items():
        assert all(c in KEYS[other] for other in others)
    for seed in range(30):
        wrong = typos("G", 1, rng(seed), kinds=["substitute"])
        assert wrong.isupper()
        assert wrong.lower() in KEYS["g"]
    assert typos("123 !", 3, rng()) == "123 !"


def test_lost_words_and_crops():
    text = "a b c d e f g h i j"
    assert len(drop_words(text, 3, rng()).split()) == 7
    assert len(drop_words(text, 99, rng()).split()) == 1
    for seed in range(20):
        part = crop_words(text, 0.7, rng(seed))
        assert part in text
        assert len(part.split()) >= 7
    assert crop_words(text, 1.0, rng()) == text


def test_bad_input():
    with pytest.raises(UnknownName, match="perturbation 'typo'"):
        perturb(["a"], "typo", strength=1)
    with pytest.raises(InputError, match="strength"):
        perturb(["a"], "typos", strength=-1)
    with pytest.raises(InputError, match="typos must be"):
        typos("a", -1, rng())
    with pytest.raises(UnknownName, match="typo 'x'"):
        typos("a", 1, rng(), kinds=["x"])
    with pytest.raises(InputError, match="share of words"):
        crop_words("a b", 0, rng())
