"""Value types: round trips through Arrow and Parquet, spaces that refuse to mix, hits in order."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.errors import DataFormatError, DimensionMismatch, InputError, SpaceMismatch
from isometry.types import Document, Embeddings, Hits, Queries, Scores, Space, check_reach, check_vectors, normal_text

SPACE = Space("m", 3, prompts={"query": "q: "}, chain=("whiten",))


def embeddings(n: int, seed: int = 0, *, multi: bool = False) -> Embeddings:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 4, n) if multi else np.ones(n, int)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64) if multi else None
    vectors = rng.normal(size=(int(counts.sum()), 3)).astype(np.float32)
    cut = rng.integers(0, 9, n)
    return Embeddings(vectors, [f"d{i}" for i in range(n)], SPACE, role="document", offsets=offsets, cut_tokens=cut)


@settings(deadline=None, max_examples=30)
@given(n=st.integers(0, 12), seed=st.integers(0, 99), multi=st.booleans())
def test_arrow_round_trip_keeps_everything(n, seed, multi):
    before = embeddings(n, seed, multi=multi)
    after = Embeddings.from_arrow(before.to_arrow())
    assert after.space == before.space
    assert after.role == "document"
    assert after.ids.tolist() == before.ids.tolist()
    np.testing.assert_array_equal(after.vectors, before.vectors)
    np.testing.assert_array_equal(after.cut_tokens, before.cut_tokens)
    for i in range(n):
        np.testing.assert_array_equal(after.item(i), before.item(i))


def test_parquet_is_read_by_a_new_process(tmp_path):
    before = embeddings(5, multi=True)
    before.to_parquet(tmp_path / "e.parquet")
    code = (
        "import sys; from isometry.types import Embeddings; e = Embeddings.from_parquet(sys.argv[1]);"
        "print(e.space.id, len(e), float(e.vectors.sum()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "e.parquet")], capture_output=True, text=True, check=True
    )
    space, n, total = done.stdout.split()
    assert (space, int(n)) == (before.space.id, 5)
    assert float(total) == pytest.approx(float(before.vectors.sum()))


def test_slices_of_a_multi_vector_table_keep_their_rows():
    before = embeddings(6, 3, multi=True)
    after = Embeddings.from_arrow(before.to_arrow().slice(2, 3))
    for i in range(3):
        np.testing.assert_array_equal(after.item(i), before.item(i + 2))


def test_take_by_mask_equals_take_by_position():
    before = embeddings(6, 1, multi=True)
    mask = np.array([True, False, True, False, False, True])
    a, b = before.take(mask), before.take([0, 2, 5])
    np.testing.assert_array_equal(a.vectors, b.vectors)
    np.testing.assert_array_equal(a.offsets, b.offsets)


def test_files_that_are_not_embeddings_say_so(tmp_path):
    import pyarrow as pa

    with pytest.raises(DataFormatError, match="name no space"):
        Embeddings.from_arrow(pa.table({"id": ["a"], "vector": [[1.0]]}))
    with pytest.raises(DataFormatError, match="are missing"):
        Embeddings.from_arrow(pa.table({"x": [1]}))
    (tmp_path / "x.parquet").write_text("no parquet")
    with pytest.raises(DataFormatError, match="not a readable Parquet"):
        Embeddings.from_parquet(tmp_path / "x.parquet")


def test_vectors_with_nan_or_another_width_are_refused():
    with pytest.raises(DimensionMismatch, match="first in row 1"):
        check_vectors([[1.0, 2.0], [np.nan, 0.0]])
    with pytest.raises(DimensionMismatch, match="first in row 0"):
        check_vectors([[np.inf, -np.inf]])
    with pytest.raises(DimensionMismatch, match="must be 3 wide, got 2"):
        Embeddings(np.zeros((1, 2)), ["a"], SPACE)
    with pytest.raises(DimensionMismatch, match=r"matrix \[n, d\]"):
        check_vectors(np.zeros(3))
    with pytest.raises(InputError, match="2 embeddings need 2 ids"):
        Embeddings(np.zeros((2, 3)), ["a"], SPACE)
    with pytest.raises(InputError, match="rise from 0 to 2"):
        Embeddings(np.zeros((2, 3)), ["a"], SPACE, offsets=np.array([0, 1]))


def test_overflowing_sums_are_not_mistaken_for_infinity():
    """Finite float32 values whose float32 sum overflows are fine."""
    assert check_vectors(np.full((4, 2), 3e38, np.float32)).shape == (4, 2)


def test_space_id_depends_on_every_field_and_survives_json():
    assert Space.from_json(SPACE.to_json()) == SPACE
    assert len({SPACE.id, SPACE.then("cut", dim=2).id, Space("m", 3).id, Space("n", 3).id}) == 4
    with pytest.raises(SpaceMismatch, match=r"m \(3-d\).*m \(3-d\) > whiten"):
        SPACE.check(Space("m", 3))


def test_hits_are_sorted_with_ties_by_id_and_never_padded():
    hits = Hits.build(["q", "r"], [[("b", 1.0), ("a", 1.0), ("c", 2.0)], []], k=5)
    assert list(hits) == [("q", [("c", 2.0), ("a", 1.0), ("b", 1.0)]), ("r", [])]
    assert hits.to_run() == {"q": {"c": 2.0, "a": 1.0, "b": 1.0}, "r": {}}
    assert hits.to_arrow()["rank"].to_pylist() == [1, 2, 3]
    near = Hits.build(["q"], [[("b", 0.1 + 1e-12), ("a", 0.1)]])
    assert near.ids.tolist() == ["a", "b"], "scores that are equal as float32 are ties"
    with pytest.raises(InputError, match="need 2 offsets"):
        Hits(hits.query_ids[:1], hits.offsets, hits.ids, hits.scores)


def test_scores_keep_units_and_means():
    scores = Scores.of("t", "s", {"ndcg": {"q1": 0.5, "q2": 1.0}, "map": {"q1": 0.0}})
    assert scores.mean("ndcg") == 0.75
    assert scores.by_unit("map") == {"q1": 0.0}
    assert np.isnan(scores.mean("nothing"))
    assert scores.to_arrow().num_rows == 3


def test_a_document_is_embedded_as_title_space_text_stripped():
    assert Document("1", " text ", title="T").content == "T  text"
    assert Document("1", "text").content == "text"
    assert Queries.of({"a": "x"}).ids.tolist() == ["a"]
    assert Queries.of(["x", "y"]).ids.tolist() == ["0", "1"]


def test_numbers_whose_products_leave_float32_are_refused():
    assert check_reach(np.full((4, 4), 5e17, np.float32)).shape == (4, 4)  # length 1e18
    assert check_reach(np.zeros((0, 4), np.float32)).shape == (0, 4)
    with pytest.raises(InputError, match=r"queries hold numbers as large as 1e\+18.*scale them down"):
        check_reach(np.full((1, 4), -1e18, np.float32), "queries")
    tiny = np.full((2, 4), 1e-20, np.float32)
    assert check_reach(tiny) is tiny
    with pytest.raises(InputError, match=r"no number above 1e-20.*scale them up"):
        check_reach(tiny, least=True)


@pytest.mark.parametrize("wrong", [[["a"]], [[1.0], [1.0, 2.0]], [[None, {}]]])
def test_what_is_no_matrix_of_numbers_is_refused(wrong):
    with pytest.raises(DimensionMismatch, match="of numbers"):
        check_vectors(wrong)


@pytest.mark.parametrize(("one", "other"), [
    ("Ｃａｆé,  au-LAIT!", "café au lait"), (" Two  words", "two Words"), ("What's NEW?", "what s new"), ("C#", "c # "),
])  # fmt: skip
def test_texts_are_one_up_to_case_space_punctuation_and_form(one, other):
    assert normal_text(one) == normal_text(other)
    assert normal_text(normal_text(one)) == normal_text(one)


@pytest.mark.parametrize(("one", "other"), [
    ("5 + 5", "5 + 6"), ("5 + 5", "5 * 5"), ("C", "C++"), ("C", "C#"), ("x < y", "x > y"), ("5 $", "5 €"), ("?!", "."),
])  # fmt: skip
def test_signs_that_carry_meaning_keep_texts_apart(one, other):
    assert normal_text(one) != normal_text(other)


def test_nothing_but_signs_is_kept_as_it_is():
    assert normal_text(" ?! ") == "?!"
