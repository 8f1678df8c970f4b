"""The compression recipe on a user's own ratings, on their texts, and on what fits neither."""

import numpy as np
import pytest

from isometry.data.schemas import Interactions
from isometry.errors import InputError, RecipeError
from isometry.lab import runner
from isometry.recipes import vector_storage_compression as recipe


@pytest.fixture
def lab(monkeypatch, tmp_path):
    """A lab whose encoder draws a vector per text, and whose scale is small."""
    lab = runner.lab_for("vector-storage-compression", "smoke", user_data=tmp_path)
    lab.config = {**lab.config, "budgets": [0.5], "rows": 3000}

    def embed(texts, role="document"):
        x = np.random.default_rng(0).standard_normal((len(texts), 32)).astype(np.float32)
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    monkeypatch.setattr(lab, "embed", embed)
    return lab


def rated(n=3000, ratings=True):
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 80, n), rng.integers(0, 150, n)
    values = (3 + users % 3 - items % 2 + rng.integers(0, 2, n)).clip(1, 5).astype(np.float32)
    return Interactions([f"u{u}" for u in users], [f"i{i}" for i in items], values if ratings else None)


def test_own_ratings_are_trained_on(lab, monkeypatch):
    monkeypatch.setattr(recipe, "load_set", lambda *_, **__: rated())
    outcome = recipe.run(lab)
    assert "user': 80, 'item': 150" in outcome.facts["clicks"]
    assert {row["method"] for row in outcome.facts["methods by budget, seed 0"]} == {"full", *recipe.METHODS}
    assert "retrieval" not in outcome.facts
    assert {"auc", "memory"} == set(outcome.plots)


def test_ratings_without_scores_cannot_be_clicks(lab, monkeypatch):
    monkeypatch.setattr(recipe, "load_set", lambda *_, **__: rated(ratings=False))
    with pytest.raises(RecipeError, match="has no ratings"):
        recipe.run(lab)


def test_own_texts_are_compressed(lab, monkeypatch):
    def load(*_, **__):
        raise InputError("no interactions")

    class Text:
        def __init__(self, content):
            self.content = content

    monkeypatch.setattr(recipe, "load_set", load)
    monkeypatch.setattr(lab, "documents", lambda name: [Text(f"text {i}") for i in range(180)])
    outcome = recipe.run(lab)
    assert outcome.facts["retrieval"].startswith("150 vectors of width 32")
    assert "clicks" not in outcome.facts
    monkeypatch.setattr(lab, "documents", lambda name: [Text("only one")])
    with pytest.raises(RecipeError, match="at least 40 documents"):
        recipe.run(lab)
