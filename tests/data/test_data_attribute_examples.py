"""The synthetic task: examples reveal the attribute, nothing else does."""

import numpy as np
import pytest

from isometry.data import AttributeExamples
from isometry.errors import InputError

TASK = AttributeExamples(attributes=3, values=5)


def read(batch, i):
    """Take one padded row apart into items with answers, and the query's item."""
    ids = batch.ids[i][batch.mask[i] == 1].tolist()
    *examples, last = [ids[j : j + 5] for j in range(0, len(ids), 5)]
    return [(e[:3], e[3], e[4]) for e in examples], last


def test_rows_say_what_they_should():
    rng = np.random.default_rng(0)
    counts = np.array([0, 1, 4, 2] * 25)
    batch = TASK.batch(counts, rng)
    for i, count in enumerate(counts):
        examples, last = read(batch, i)
        assert len(examples) == count
        item, marker = last[:3], last[3]
        assert marker == 1
        assert [token - 2 for token in item] == batch.choices[i].tolist()
        attribute = item.index(batch.target[i] + 2)
        assert all(shown[attribute] == answer and mark == 1 for shown, mark, answer in examples)
        assert all((token - 2) // 5 == a for shown, _, _ in examples for a, token in enumerate(shown))
    assert (batch.ids[batch.mask == 0] == 0).all()
    assert (batch.mask[:, -1] == 1).all()  # padded on the left


def test_a_reader_of_examples_is_always_right_and_any_other_is_at_chance():
    batch = TASK.batch(np.full(600, 2), np.random.default_rng(1))
    scores = np.zeros((600, 15), np.float32)
    for i in range(600):
        (_, _, answer), *_ = read(batch, i)[0]
        attribute = (answer - 2) // 5
        scores[i, attribute * 5 : attribute * 5 + 5] = 1
    assert batch.accuracy(scores) == 1
    assert batch.accuracy(np.random.default_rng(2).random((600, 15)).astype(np.float32)) == pytest.approx(
        1 / 3, abs=0.06
    )


def test_documents_are_all_answers():
    assert TASK.documents.tolist() == [[value, 1] for value in range(2, 17)]


def test_bad_input():
    with pytest.raises(InputError, match="at least 2 attributes"):
        AttributeExamples(attributes=1)
    with pytest.raises(InputError, match="number of examples"):
        TASK.batch(np.array([], np.int64), np.random.default_rng(0))
