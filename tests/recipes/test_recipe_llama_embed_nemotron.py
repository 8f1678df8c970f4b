"""Hard negatives of rows of both tasks, and planted copies of positives."""

import numpy as np
import pytest

from isometry.lab import Lab
from isometry.lab.head_bench import Rows
from isometry.recipes.llama_embed_nemotron import HARD, planted, with_hard_negatives

SUBJECTS = ("card", "transfer", "exchange rate", "pin", "top up", "refund", "cash machine", "limit")
ASKED = ("why is my {} wrong", "how do I change my {}", "tell me about the {}")


@pytest.fixture
def rows(minilm):
    lab = Lab(config={"batch": 4})
    lab.__dict__["_encoder"] = minilm
    texts = [how.format(what) for what in SUBJECTS for how in ASKED]
    labels = np.arange(len(SUBJECTS)).repeat(len(ASKED))
    other = np.roll(np.arange(len(texts)).reshape(-1, len(ASKED)), 1, axis=1).ravel()
    features = lab.embed(texts)
    bare = Rows((features, features[other]), (texts, [texts[i] for i in other]), labels)
    return with_hard_negatives(lab, bare)


def test_no_hard_negative_is_of_the_rows_class(rows):
    assert len(rows.columns) == 2 + HARD
    for text, label, *negatives in zip(rows.texts[0], rows.labels, *rows.texts[2:], strict=True):
        assert SUBJECTS[label] in text
        assert not any(SUBJECTS[label] in negative for negative in negatives)


def test_a_quarter_of_the_rows_gets_a_copy_of_its_positive(rows):
    copies = planted(rows)
    same = (copies.columns[2] == copies.columns[1]).all(1)
    assert same.sum() == len(rows) // 4
    assert [text == own.upper() for text, own in zip(copies.texts[2], copies.texts[1], strict=True)] == same.tolist()
    np.testing.assert_array_equal(copies.columns[3], rows.columns[3])
