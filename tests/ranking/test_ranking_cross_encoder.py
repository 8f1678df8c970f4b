"""The scorer gives raw logits in order, reranks as a stage, and reads back what it wrote."""

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from isometry.encoders import load
from isometry.errors import DataFormatError, EmptyInput, InputError
from isometry.ranking import CrossEncoderScorer
from isometry.training.cross_encoder import cross_encoder
from isometry.types import Hits, Queries

PAIRS = [("tea", "a cup of tea"), ("tea", "a motorway through a very long green valley"), ("wine", "red")]


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    tokenizer = load("minilm", engine="torch").model.tokenizer
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=64, num_labels=2)  # fmt: skip
    return BertForSequenceClassification(config).eval(), tokenizer


def logits_of(classifier, pairs):
    model, tokenizer = classifier
    with torch.no_grad():
        rows = [model(**tokenizer(*pair, return_tensors="pt")).logits[0] for pair in pairs]
    return torch.stack(rows).numpy()


def test_logits_are_the_classifiers_and_survive_saving(classifier, tmp_path):
    scorer = CrossEncoderScorer.of(*classifier, batch_size=2)
    wanted = logits_of(classifier, PAIRS)
    np.testing.assert_allclose(scorer.logits(PAIRS), wanted, atol=1e-5)
    np.testing.assert_allclose(scorer.predict(PAIRS), wanted[:, 1] - wanted[:, 0], atol=1e-5)
    scorer.save(tmp_path / "model")
    again = CrossEncoderScorer.load(tmp_path / "model")
    np.testing.assert_allclose(again.logits(PAIRS), wanted, atol=1e-5)
    assert scorer.logits([]).shape == (0, 2)


def test_stage_orders_hits_by_the_score(classifier):
    scorer = CrossEncoderScorer.of(*classifier)
    texts = {"a": "a cup of tea", "b": "a motorway", "c": "red", "d": "left out"}
    hits = Hits.build(["q"], [[("a", 4.0), ("b", 3.0), ("c", 2.0), ("d", 1.0)]])
    queries = Queries.of({"q": "tea"})
    found = scorer.stage(texts, depth=3)(queries, hits)
    by_id = dict(zip("abc", scorer.predict([("tea", texts[i]) for i in "abc"]), strict=True))
    assert found.ids.tolist() == sorted("abc", key=lambda i: -by_id[i])
    assert found.scores.tolist() == sorted(map(float, by_id.values()), reverse=True)


def test_bad_input(classifier, tmp_path):
    scorer = CrossEncoderScorer.of(*classifier)
    with pytest.raises(EmptyInput, match="Pair 1 has an empty text"):
        scorer.logits([("a", "b"), ("a", " ")])
    with pytest.raises(DataFormatError, match="cannot be loaded"):
        CrossEncoderScorer.load(tmp_path)
    embedder = load("minilm", engine="torch").model
    embedder.save(str(tmp_path / "embedder"))
    with pytest.raises(DataFormatError, match="was never trained to score pairs"):
        CrossEncoderScorer.load(tmp_path / "embedder")
    cross_encoder(embedder).save(str(tmp_path / "own"))
    assert CrossEncoderScorer.load(tmp_path / "own").labels == 1
    with pytest.raises(InputError, match="batch_size"):
        CrossEncoderScorer(scorer.model, batch_size=0)
    scorer.model[0].model.config.num_labels = 3
    scorer.model[0].model.classifier = torch.nn.Linear(32, 3)
    with pytest.raises(InputError, match="1 or 2 labels"):
        scorer.predict(PAIRS)
