"""DSE's study: parts without common pairs, also of a user's own data, and pairs that really nobody labelled."""

import numpy as np
import pytest

from isometry.errors import RecipeError
from isometry.lab import Lab
from isometry.modules import cut_layers
from isometry.modules.pooling import with_top_layers
from isometry.recipes import distilled_sentence_embedding as recipe

COLOURS, THINGS = ("red", "green", "blue", "white", "black"), ("boat", "house", "tree", "river", "horse", "song")
ROWS = [
    (f"a {a} {x}", f"the {b} {x} over there", (a == b) * 3 + i % 3)
    for i, (a, b, x) in enumerate((a, b, x) for a in COLOURS for b in COLOURS for x in THINGS)
]


def lab_of(tmp_path, rows):
    path = tmp_path / "scored.tsv"
    path.write_text("sentence1\tsentence2\tscore\n" + "".join(f"{a}\t{b}\t{s}\n" for a, b, s in rows))
    return Lab(config=dict(recipe.CARD.presets["smoke"]) | {"pairs": 0, "dev": 0, "tests": 0}, user_data=path)


def test_a_users_pairs_are_drawn_apart(tmp_path):
    study = recipe.prepare(lab_of(tmp_path, ROWS))
    parts = [set(side.pairs) for side in (study.learn, study.dev, study.test)]
    assert [len(part) for part in parts] == [90, 22, 38]
    assert len(set.union(*parts)) == 150
    known = {(a, b): s / 5 for a, b, s in ROWS}
    for side in (study.learn, study.dev, study.test):
        np.testing.assert_allclose([known[pair] for pair in side.pairs], side.scores)
        assert (side.labels == (side.scores >= 0.6)).all()
    with pytest.raises(RecipeError, match="some alike and some not"):
        recipe.prepare(lab_of(tmp_path, [(a, b, 1) for a, b, _ in ROWS]))


def test_further_pairs_are_none_of_the_labelled_ones_and_half_of_them_are_near(tmp_path, minilm):
    study = recipe.prepare(lab_of(tmp_path, ROWS))
    pairs = recipe.more_pairs(study, with_top_layers(cut_layers(minilm.model, 1), last=1), 40)
    labelled = {frozenset(pair) for pair in study.learn.pairs}
    assert 30 <= len(pairs) == len(set(pairs)) <= 40
    assert not any(frozenset(pair) in labelled or pair[0] == pair[1] for pair in pairs)
    texts = {text for pair in study.learn.pairs for text in pair}
    assert {text for pair in pairs for text in pair} <= texts
    vectors = {text: minilm.model.encode(text, show_progress_bar=False) for text in texts}
    cosines = [float(vectors[a] @ vectors[b]) for a, b in pairs]
    assert np.mean(cosines[:15]) > np.mean(cosines[-15:]) + 0.1
