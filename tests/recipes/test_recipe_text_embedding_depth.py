"""The depth recipe on a user's own labelled data, and its topics of WordNet."""

import numpy as np
import pytest

from isometry.data.schemas import Labelled
from isometry.errors import RecipeError
from isometry.lab import runner
from isometry.recipes.text_embedding_depth import _TOPICS, _glosses, run

TOPICS = {
    "sea": "wave tide salt ship reef",
    "oven": "bread flour yeast crust dough",
    "law": "court judge oath plea bail",
}


def labelled(per_class=30, topics=TOPICS):
    rng = np.random.default_rng(0)
    rows = [(" ".join(rng.choice(words.split(), 3)), t) for t, words in topics.items() for _ in range(per_class)]
    return Labelled([r[0] for r in rows], [r[1] for r in rows], name="mine")


@pytest.fixture
def lab(monkeypatch, tmp_path):
    """A lab whose user data are three topics and whose encoder counts words, with some noise."""
    lab = runner.lab_for("text-embedding-depth", "smoke", user_data=tmp_path)
    vocabulary = " ".join(TOPICS.values()).split()

    def embed(texts, role="document"):
        rng = np.random.default_rng(1)
        counts = np.asarray([[text.split().count(word) for word in vocabulary] for text in texts], np.float32)
        return (counts + rng.normal(0, 0.3, counts.shape) + 0.3).astype(np.float32)

    monkeypatch.setattr(lab, "embed", embed)
    return lab


def test_own_data_replace_every_named_set(lab, monkeypatch):
    monkeypatch.setattr(lab, "labelled", lambda name, split: labelled())
    outcome = run(lab)
    assert set(outcome.comparisons) == {"selects-labelled", "finds-labelled"}
    depth, limit, metric = outcome.comparisons["finds-labelled"]
    assert depth.mean(metric) > limit
    deepest, random, metric = outcome.comparisons["selects-labelled"]
    assert deepest.by_unit(metric).keys() == random.by_unit(metric).keys()
    assert 0.5 < random.mean(metric) <= 1


def test_too_few_classes_are_refused(lab, monkeypatch):
    monkeypatch.setattr(lab, "labelled", lambda name, split: labelled(topics={"sea": TOPICS["sea"]}))
    with pytest.raises(RecipeError, match="two classes of 10 texts"):
        run(lab)


def test_topics_of_wordnet_are_disjoint_and_large(data_root):
    glosses = _glosses(data_root / "wordnet")
    assert list(glosses) == list(_TOPICS.values())
    assert min(map(len, glosses.values())) >= 650
    assert any("feline mammal" in gloss for gloss in glosses["animal"])
    assert not any("feline mammal" in gloss for gloss in glosses["artifact"])
