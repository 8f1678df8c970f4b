"""Both recipes that merge: their plans on every kind of rows, and their runs on a user's labelled texts."""

import pytest
import torch

from isometry.data.schemas import Labelled
from isometry.errors import InputError, RecipeError
from isometry.lab import runner
from isometry.recipes import llama_embed_nemotron, qwen3_embedding
from isometry.training import Tuning

COLUMNS = {
    "pairs": [["a red boat", "two cats", "rain"], ["one crimson ship", "a pair of cats", "wet weather"]],
    "triplets": [["a red boat", "rain"], ["one crimson ship", "wet weather"], ["a red house", "sun"]],
    "labelled": [["a red boat", "rain", "snow"], ["one crimson ship", "storm", "storm"]],
    "sts": [["a red boat", "rain"], ["one crimson ship", "sun"]],
}
LABELS = {"labelled": torch.tensor([0, 1, 1]), "sts": torch.tensor([0.9, 0.1])}


def value(recipe, kind, model):
    plan = recipe.plan(Tuning(model, model, kind))
    features = [{**model.preprocess(texts), "text": texts} for texts in COLUMNS[kind]]
    loss = plan.loss(features, LABELS.get(kind))
    assert loss.requires_grad
    return plan, loss.item()


@pytest.mark.parametrize("kind", COLUMNS)
def test_plan_of_averaging(kind, minilm):
    plan, loss = value(llama_embed_nemotron, kind, minilm.model)
    assert plan.runs == 4
    assert loss > 0


@pytest.mark.parametrize("kind", ["pairs", "triplets", "labelled"])
def test_plan_of_five_terms(kind, minilm):
    plan, loss = value(qwen3_embedding, kind, minilm.model)
    assert plan.runs == 1
    assert plan.loss.blocks == ("qd", "qq", "pp")
    assert loss > 0


def test_five_terms_refuse_graded_pairs(minilm):
    with pytest.raises(InputError, match="graded similarities"):
        value(qwen3_embedding, "sts", minilm.model)


def labelled():
    words = {"sea": "wave tide salt ship", "oven": "bread flour yeast crust", "law": "court judge oath plea"}
    rows = [
        (f"{a} and {b} {c}", name) for name, some in words.items() for a in some.split() for b in some.split()
        for c in ("today", "again") if a != b
    ]  # fmt: skip
    return Labelled([text for text, _ in rows], [name for _, name in rows], name="mine")


def refuse(*_):
    raise RecipeError("not of this kind")


@pytest.mark.parametrize("recipe", [llama_embed_nemotron, qwen3_embedding])
def test_user_data_of_labelled_texts(recipe, monkeypatch, tmp_path):
    (tmp_path / "mine.txt").write_text("The sea has waves. When the tide comes, the ship rises.\n")
    slug = recipe.CARD.slug
    lab = runner.lab_for(slug, "smoke", user_data=tmp_path / "mine.txt", cache=tmp_path)
    monkeypatch.setattr(lab, "sts", refuse)
    monkeypatch.setattr(lab, "labelled", lambda *_: labelled())
    outcome = recipe.run(lab)
    assert outcome.facts["tasks"] == ["classes"]
    assert all(ok for ok, _ in outcome.invariants.values())
    assert outcome.comparisons.keys() | outcome.invariants.keys() == {claim.key for claim in recipe.CARD.claims}
