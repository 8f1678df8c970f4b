"""Synthetic texts mean what their tasks say."""

import numpy as np
import pytest

from isometry.data.token_tasks import SelectorTask, TopicTask
from isometry.errors import InputError


def test_pairs_share_meanings_and_nothing_else():
    task = SelectorTask()
    left, right = task.pairs(200, seed=1)
    assert left.shape == (200, 9)
    np.testing.assert_array_equal(task.meanings(left), task.meanings(right))
    assert (left[:, -1] != right[:, -1]).all()
    assert (left[:, -1] >= 32).all()
    assert left.max() < task.vocabulary
    assert len(np.unique(task.meanings(left), axis=0)) == 200
    assert all(len(set(row)) == 8 for row in left[:, :-1].tolist())


def test_early_tokens_alone_do_not_tell_the_meaning():
    task = SelectorTask()
    left, _ = task.pairs(50)
    other = left.copy()
    other[:, -1] = 32 + (left[:, -1] - 32 + 1) % 4
    assert (task.meanings(left) != task.meanings(other)).any(axis=1).all()


def test_seeds():
    task = SelectorTask()
    np.testing.assert_array_equal(task.pairs(5, seed=3)[0], task.pairs(5, seed=3)[0])
    assert (task.pairs(5, seed=3)[0] != task.pairs(5, seed=4)[0]).any()


def test_texts_keep_to_their_topics():
    task = TopicTask()
    texts, topics = task.texts(300, 12, seed=2)
    table = task.table()
    assert all(set(row) <= set(table[t]) for row, t in zip(texts.tolist(), topics, strict=True))
    assert task.floor == pytest.approx(np.log(16))
    given, same = task.texts(3, 5, topics=np.array([4, 4, 9]))
    assert same.tolist() == [4, 4, 9]
    assert set(given[2]) <= set(table[9])
    stray, topics = task.texts(2000, 10, seed=2, noise=0.5)
    outside = np.mean([word not in table[t] for row, t in zip(stray, topics, strict=True) for word in row])
    assert outside == pytest.approx(0.5 * (1 - 16 / 256), abs=0.02)


def test_bad_input():
    with pytest.raises(InputError, match="two selectors"):
        SelectorTask(selectors=1)
    with pytest.raises(InputError, match="topic"):
        TopicTask(words=300)
    with pytest.raises(InputError, match="noise"):
        TopicTask().texts(1, 2, noise=2)
