"""Data sets as three kinds of rows."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.data import class_rows, read_rows, retrieval_rows, row_from, scored_rows, title_rows
from isometry.data.converters import Row, columns
from isometry.data.schemas import STS, Labelled, Pairs, Retrieval, Triplets
from isometry.errors import DataFormatError, DataWarning, EmptyInput, InputError
from isometry.types import Document


def test_retrieval_pairs_triplets_and_titles() -> None:
    corpus = [Document("1", "body", "Title"), Document("2", "other"), Document("3", "third")]
    data = Retrieval(corpus, {"q": "what", "r": "none"}, {"q": {"1": 2, "2": 0}, "r": {"3": 0}}, "set")
    assert retrieval_rows(data) == [Row("retrieval", "what", ("Title body",), ("other",), source="set")]
    assert retrieval_rows(Pairs(["a"], ["b"])) == [Row("retrieval", "a", ("b",))]
    assert retrieval_rows(Triplets(["a"], ["b"], ["c"])) == [Row("retrieval", "a", ("b",), ("c",))]
    assert title_rows(corpus, source="s") == [Row("retrieval", "Title", ("body",), source="s")]


def test_scores_are_kept_and_labels_become_scores() -> None:
    graded = scored_rows(STS(["a", "b"], ["c", "d"], np.array([4.5, 0.0]), "sts"))
    assert [row.score for row in graded] == [4.5, 0.0]
    nli = scored_rows(Pairs(["a"] * 3, ["b"] * 3, ["Entailment", "neutral", "contradiction"]))
    assert [row.score for row in nli] == [1.0, 0.5, 0.0]
    assert [row.score for row in scored_rows(Pairs(["a"] * 2, ["b"] * 2, ["0", "1"]))] == [0.0, 1.0]
    own = scored_rows(Pairs(["a"] * 2, ["b"] * 2, ["no", "yes"]), scores={"no": 0, "yes": 1})
    assert [row.score for row in own] == [0, 1]
    with pytest.raises(InputError, match="Row 1 has the label 'maybe'"):
        scored_rows(Pairs(["a"] * 2, ["b"] * 2, ["1", "maybe"]))
    with pytest.raises(InputError, match="no labels"):
        scored_rows(Pairs(["a"], ["b"]))
    with pytest.raises(InputError, match=r"All 2 pairs of 'tied' have the score 3.0"):
        scored_rows(STS(["a", "b"], ["c", "d"], np.array([3.0, 3.0]), "tied"))


@settings(deadline=None, max_examples=30)
@given(
    labels=st.lists(st.sampled_from("abcd"), min_size=4, max_size=30), count=st.integers(0, 5), seed=st.integers(0, 9)
)
def test_class_rows_hold_another_text_of_the_class_and_texts_of_others(labels, count, seed) -> None:
    labels = [*labels, "a", "a", "b", "b"]
    texts = [f"text {i}" for i in range(len(labels))]
    of = dict(zip(texts, labels, strict=True))
    single = [label for label in set(labels) if labels.count(label) == 1]
    data = Labelled(texts, labels, "set")
    if single:
        with pytest.warns(DataWarning, match=f"{len(single)} of {len(labels)} texts"):
            rows = class_rows(data, negatives=count, seed=seed)
    else:
        rows = class_rows(data, negatives=count, seed=seed)
    assert [row.text for row in rows] == [text for text in texts if of[text] not in single]
    for row in rows:
        assert row.label == of[row.text] == of[row.positives[0]]
        assert row.positives[0] != row.text
        assert len(row.negatives) == count
        assert all(of[text] != row.label for text in row.negatives)


def test_class_rows_never_pair_a_text_with_its_copy() -> None:
    data = Labelled(["same", "same", "other", "x", "y"], ["a", "a", "a", "b", "b"])
    for seed in range(20):
        assert all(row.text != row.positives[0] for row in class_rows(data, seed=seed))


def test_class_rows_refuse_what_cannot_be_contrasted() -> None:
    with pytest.raises(InputError, match="of class 'a'; there is nothing"):
        class_rows(Labelled(["x", "y"], ["a", "a"]))
    with pytest.raises(InputError, match="No class"), pytest.warns(DataWarning):
        class_rows(Labelled(["x", "y"], ["a", "b"]))


def test_files_of_rows_come_back(tmp_path) -> None:
    records = [
        {"kind": "retrieval", "query": "q", "positives": ["p"], "negatives": ["n"], "source": "s"},
        {"kind": "scored", "left": "a", "right": "b", "score": 2},
        {"kind": "class", "text": "t", "positives": ["u"], "label": 3},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(record) for record in records) + "\n\n")
    assert read_rows(path) == [
        Row("retrieval", "q", ("p",), ("n",), source="s"),
        Row("scored", "a", ("b",), score=2.0),
        Row("class", "t", ("u",), label="3"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"query": "q"}', "three schemas: retrieval .* kind None"),
        ('{"kind": "sentiment"}', "kind 'sentiment'"),
        ('{"kind": "scored", "left": "a", "right": "b"}', "'score' is missing"),
        ('{"kind": "scored", "left": "a", "right": "b", "score": NaN}', "'score'"),
        ('{"kind": "retrieval", "query": "q"}', "needs a positive"),
        ('{"kind": "retrieval", "query": "q", "positives": "p"}', "list of texts"),
        ('{"kind": "class", "text": "q", "positives": ["p"]}', "'label' is missing"),
        ('["a"]', "kind None"),
        ("{", "Expecting"),
    ],
)
def test_lines_that_fit_no_schema_are_named_with_their_number(tmp_path, line, message) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"kind": "scored", "left": "a", "right": "b", "score": 1}\n' + line)
    with pytest.raises(DataFormatError, match=message) as caught:
        read_rows(path)
    assert caught.value.line == 2


def test_an_empty_file_is_refused(tmp_path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n")
    with pytest.raises(EmptyInput):
        read_rows(path)


def test_batches_as_columns() -> None:
    rows = [row_from({"kind": "class", "text": t, "positives": [t + "+"], "negatives": n, "label": name})
            for t, n, name in (("a", ["x", "y"], "L"), ("b", ["z"], "M"), ("c", ["x"], "L"))]  # fmt: skip
    assert columns(rows) == ([["a", "b", "c"], ["a+", "b+", "c+"], ["x", "z", "x"]], [0, 1, 0])
    assert columns([Row("scored", "a", ("b",), score=0.0)]) == ([["a"], ["b"]], [0.0])
    assert columns([Row("retrieval", "a", ("b",))]) == ([["a"], ["b"]], None)
    with pytest.raises(InputError, match="one kind"):
        columns([Row("retrieval", "a", ("b",)), Row("scored", "a", ("b",), score=1.0)])
    with pytest.raises(InputError, match="none"):
        columns([])
