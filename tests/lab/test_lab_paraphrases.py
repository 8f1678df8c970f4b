"""Pairs to learn from and to judge by."""

import numpy as np
import pytest

from isometry.errors import RecipeError
from isometry.lab import Lab
from isometry.lab.paraphrases import Paraphrases, paraphrases


def write(path, rows):
    path.write_text("\n".join("\t".join(map(str, row)) for row in rows), encoding="utf-8")
    return path


def test_the_named_set_gives_close_pairs_to_learn_from(data_root):
    data = paraphrases(Lab(data_root=data_root), limit=200)
    whole = Lab(data_root=data_root).sts("sts/stsb", "train")
    close = {(a, b) for a, b, s in zip(whole.left, whole.right, whole.scores, strict=True) if s >= 0.8 * 5}
    assert len(data.left) == len(data.right) == len(data.gold) == 200
    assert set(zip(data.left, data.right, strict=True)) <= close
    assert data.metric == "spearman"


def test_the_users_scored_pairs_are_split(tmp_path):
    rows = [("sentence1", "sentence2", "score"), *((f"left {i}", f"right {i}", i % 6) for i in range(120))]
    data = paraphrases(Lab(user_data=write(tmp_path / "pairs.tsv", rows)), least=10)
    assert len(data.test[0]) == len(data.gold) == 36
    assert not set(data.left) & set(data.test[0])
    assert {int(text.split()[1]) % 6 for text in data.left} == {4, 5}
    with pytest.raises(RecipeError, match="at least 500 positive pairs"):
        paraphrases(Lab(user_data=tmp_path / "pairs.tsv"), least=500)


def test_of_labelled_pairs_only_the_positive_ones_are_taken(tmp_path):
    rows = [("sentence1", "sentence2", "label"), *((f"left {i}", f"right {i}", "01"[i % 2]) for i in range(120))]
    data = paraphrases(Lab(user_data=write(tmp_path / "pairs.tsv", rows)))
    assert data.gold is None
    assert len(data.left) + len(data.test[0]) == 60
    assert all(int(text.split()[1]) % 2 for text in [*data.left, *data.test[0]])


def test_scores_of_vectors():
    eye = np.eye(3, dtype=np.float32)
    graded = Paraphrases([], [], ([], []), np.array([2.0, 1.0, 0.0]))
    ranked = np.float32([[1, 0, 0], [0.6, 0.8, 0], [0, 1, 0]])
    assert graded.score(eye[[0, 0, 0]], ranked) == pytest.approx(1.0)
    positives = Paraphrases([], [], ([], []), None)
    assert positives.metric == "mrr"
    assert positives.score(eye, eye) == 1.0
    assert positives.score(eye, eye[[1, 0, 2]]) == pytest.approx(
        (1 / 3 + 1 / 3 + 1) / 3
    )  # ties count against the partner
