"""The study of sizes: means over seeds, differences by seed, models cut before training, words kept or trained."""

import numpy as np
import pytest
import torch

from isometry.errors import RecipeError
from isometry.lab import Lab, Outcome
from isometry.lab.size_study import SizeStudy, full_size
from isometry.objectives import Menu, Size
from isometry.training.masked_language import sentence_model
from isometry.training.wordpiece import train_wordpiece

SETTINGS = {"steps": 3, "batch": 8, "lr": 1e-3, "loss": "cosent", "scale": 20.0, "rows": 40, "pairs": 30,
            "train_words": 0}  # fmt: skip
FULL, SMALL = Size(2, 32), Size(1, 8)


@pytest.fixture
def study(data_root):
    from transformers import BertConfig, BertModel

    made = SizeStudy(Lab(data_root=data_root, config=SETTINGS, seeds=(0, 1)))
    tokenizer = train_wordpiece(made.rows.columns[0], 200)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
    )
    made.__dict__["start"] = sentence_model(BertModel(config), tokenizer)
    return made


def words(model):
    return model[0].auto_model.get_input_embeddings().weight


def test_units_are_pairs_and_means_over_seeds(study):
    study.full_only([SMALL, FULL])
    study.train("menu", lambda seed: Menu((SMALL, FULL)), [SMALL, FULL])
    assert study.full == full_size(study.start) == FULL
    runs = study.found["menu"]
    assert len(runs) == len(study.losses["menu"]) == 2
    assert not np.array_equal(runs[0][FULL], runs[1][FULL])  # seeds differ
    np.testing.assert_allclose(study.mean("menu")[SMALL], (runs[0][SMALL] + runs[1][SMALL]) / 2)
    assert study.curve("menu")[FULL] == pytest.approx(study.mean("menu")[FULL].mean())
    outcome = Outcome()
    study.compare(outcome, "key", "menu", "full only", [SMALL, FULL])
    method, baseline, metric = outcome.comparisons["key"]
    assert len(method) == 30
    gains = outcome.facts["difference by seed, key"]
    assert len(gains) == 2
    assert np.mean(gains) == pytest.approx(method.mean(metric) - baseline.mean(metric), abs=1e-4)
    study.report_training(outcome)
    assert outcome.facts["loss, first and last tenth of the steps"].keys() == {"menu", "full only"}


def test_words_are_kept_or_trained(study):
    study.full_only([FULL])
    assert torch.equal(words(study.models["full only"]), words(study.start))
    study.train("trained", lambda seed: Menu((FULL,)), [FULL], train_words=1)
    assert not torch.equal(words(study.models["trained"]), words(study.start))
    assert words(study.start).requires_grad


def test_separate_models_are_cut_before_training(study):
    study.separate("separate", [SMALL, Size(1, 16)])
    assert [set(units) for units in study.found["separate"]] == [{SMALL, Size(1, 16)}] * 2
    assert full_size(study.models["separate"]) == Size(1, 32)
    assert study.cut_error("separate", [SMALL]) < 1e-5


def test_labelled_pairs_may_be_trained_on(data_root):
    study = SizeStudy(Lab(data_root=data_root, config=SETTINGS | {"nli": "pairs/snli", "rows": 200}))
    assert set(study.rows.labels) == {0.0, 0.5, 1.0}
    assert len(study.gold) == 30


def test_too_few_pairs_are_refused(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("sentence1\tsentence2\tscore\n" + "".join(f"a {i}\tb {i}\t{i % 5}\n" for i in range(15)))
    with pytest.raises(RecipeError, match="at least 16 scored pairs"):
        SizeStudy(Lab(user_data=path, config=SETTINGS))
