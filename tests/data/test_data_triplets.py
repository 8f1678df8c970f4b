"""Splits share no document and no text; hard triplets are triplets, and hard."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isometry.data import (
    class_triplets,
    confusable_classes,
    labelled_sides,
    pair_triplets,
    split_by_document,
    text_overlap,
)
from isometry.data.schemas import Labelled
from isometry.errors import DimensionMismatch, EmptyInput, InputError

ROWS = st.lists(st.tuples(st.sampled_from("abcde"), st.lists(st.sampled_from("pqrstuvw"), max_size=3)), min_size=4)


def test_overlap_counts_texts_up_to_their_normal_form():
    assert text_overlap(["A b", "c"], ["a  B!", "a b", "d"]) == 1


@given(ROWS, st.integers(0, 99), st.sampled_from([0.2, 0.5, 0.8]))
def test_nothing_is_on_both_sides(rows, seed, share):
    documents, texts = [d for d, _ in rows], [t for _, t in rows]
    try:
        split = split_by_document(documents, texts, share=share, seed=seed)
    except InputError:
        return
    everything = np.sort(np.concatenate([split.train, split.test, split.dropped]))
    assert np.array_equal(everything, np.arange(len(rows)))
    assert not {documents[i] for i in split.train} & {documents[i] for i in split.test}
    sides = [[text for i in side for text in texts[i]] for side in (split.train, split.test)]
    assert text_overlap(*sides) == 0
    held = {text for i in split.test for text in texts[i]}
    assert all(held & set(texts[i]) for i in split.dropped)  # nothing is dropped without need


def test_the_share_counts_documents():
    split = split_by_document(list("aaaabcdefg"), [[str(i)] for i in range(10)], share=0.4, seed=3)
    assert len({"aaaabcdefg"[i] for i in split.test}) == 3  # of seven documents
    assert len(split.dropped) == 0


@pytest.mark.parametrize(("documents", "share"), [("aa", 0.5), ("ab", 0), ("ab", 1), ("abc", 0.5)])
def test_bad_splits(documents, share):
    with pytest.raises(InputError, match="A split by document needs"):
        split_by_document(documents, [["x"], ["y"]], share=share)


def test_a_split_without_training_rows():
    with pytest.raises(InputError, match="Every training row shares a text"):
        split_by_document("ab", [["x"], ["X."]], share=0.5)


def test_class_triplets_are_hard_triplets():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(6, 16))
    labels = [i % 6 for i in range(60)]
    vectors = (centres[labels] + 0.1 * rng.normal(size=(60, 16))).astype(np.float32)
    rivals = confusable_classes(vectors, labels, nearest=2)
    means = np.stack([vectors[i::6].mean(0) for i in range(6)]).astype(np.float64)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    for name, others in rivals.items():
        ranked = sorted(set(range(6)) - {name}, key=lambda j: -means[name] @ means[j])
        assert others == ranked[:2]
    rows = class_triplets(vectors, labels, 500, nearest=2, seed=1)
    assert rows.shape == (500, 3)
    for anchor, positive, negative in rows.tolist():
        assert anchor != positive
        assert labels[anchor] == labels[positive]
        assert labels[negative] in rivals[labels[anchor]]
    assert len({labels[a] for a in rows[:, 0]}) == 6
    assert np.array_equal(rows, class_triplets(vectors, labels, 500, nearest=2, seed=1))


def test_bad_class_triplets():
    vectors = np.eye(3, dtype=np.float32)
    with pytest.raises(InputError, match="1 <= nearest < classes"):
        confusable_classes(vectors, "abc", nearest=3)
    with pytest.raises(InputError, match="2 labels"):
        confusable_classes(vectors, "ab", nearest=1)
    with pytest.raises(EmptyInput, match="a class with two texts"):
        class_triplets(vectors, "abc", 5, nearest=1)


def test_pair_triplets_skip_every_positive_of_the_anchor():
    anchors, positives = ["What is X?", "what is x", "What is Y?", "Z"], ["X is one.", "X is two.", "Y is one.", "z1"]
    pool = ["x is one", "X is two!", "WHAT IS X", "Y is one.", "other"]
    candidates = [[0, 1, 2, 3], [1, 0, 4], [3, 0], []]
    triplets, rows = pair_triplets(anchors, positives, pool, candidates)
    assert rows.tolist() == [0, 1, 2]
    assert triplets.negative == ["Y is one.", "other", "x is one"]
    assert triplets.anchor == anchors[:3]
    with pytest.raises(EmptyInput, match="No pair has a candidate"):
        pair_triplets(anchors[:1], positives[:1], pool, [[0]])
    with pytest.raises(DimensionMismatch, match="equal columns"):
        pair_triplets(anchors, positives, pool, [])


def test_labelled_sides_share_no_text():
    part = Labelled([f"text {i % 40}" for i in range(50)], [f"c{i % 5}" for i in range(50)])
    first, second = labelled_sides([part], classes=3, each=4, seed=2)
    assert text_overlap(first.texts, second.texts) == 0
    assert set(first.labels) == {"c0", "c1", "c2"}
    assert max(first.labels.count(label) for label in first.labels) <= 4
    test = Labelled(["Text 0.", "other"], ["c0", "c1"])
    first, second = labelled_sides([part, test])
    assert list(second.texts) == list(test.texts)
    assert len(first.texts) == 48  # "text 0" stood there twice
