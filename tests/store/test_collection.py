"""The Collection: what goes in comes out, search equals brute force, every misuse has its error."""

from __future__ import annotations

import json
import shutil
import sqlite3
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.codes import BinaryCode, ScalarCode
from isometry.errors import (
    CorruptStore,
    DataFormatError,
    InputError,
    SpaceMismatch,
    StoreError,
    StoreVersion,
    UnknownName,
)
from isometry.store import Collection, Filter, neighbours
from isometry.types import Document, Embeddings, Queries, Space, id_array

SPACE = Space("toy", 8)
OTHER = Space("other", 4, similarity="euclidean", normalized=False, prompts={"query": "q: "}, chain=("pca4",))


def vectors(ids, space=SPACE, seed=0):
    x = np.random.default_rng(seed).normal(size=(len(ids), space.dim)).astype(np.float32)
    if space.normalized:
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    return Embeddings(x, id_array(ids), space)


def books(n, start=0):
    return [
        Document(f"d{i}", f"text number{i} apple", f"title {i}", f"s.md:{i}", {"year": 2000 + i % 7, "tags": ["a"]})
        for i in range(start, start + n)
    ]


@pytest.fixture
def filled(tmp_path):
    with Collection.create(tmp_path / "c", SPACE) as made:
        items = books(60)
        made.upsert(items, vectors([d.id for d in items]))
        yield made


def brute_force(embeddings, queries, k, allowed=None):
    rows = []
    for q in queries.vectors.astype(np.float64):
        scores = {
            i: float(np.float32(v.astype(np.float64) @ q))
            for i, v in zip(embeddings.ids, embeddings.vectors, strict=True)
            if allowed is None or i in allowed
        }
        rows.append(sorted(scores, key=lambda i: (-scores[i], i))[:k])
    return rows


def answers(hits):
    return [[i for i, _ in row] for _, row in hits]


def test_documents_and_vectors_come_back_as_they_were(filled):
    items = books(60)
    assert list(filled.iterate(batch=7)) == items
    assert filled.get(["d9", "d3", "d9"]) == [items[9], items[3], items[9]]
    assert filled.ids() == [d.id for d in items]
    assert len(filled) == filled.count() == 60
    found = filled.embeddings()
    np.testing.assert_array_equal(found.vectors, vectors(filled.ids()).vectors)
    assert found.ids.tolist() == filled.ids()
    assert found.space == SPACE
    some = filled.embeddings(ids=["d5", "d1"])
    np.testing.assert_array_equal(some.vectors, found.vectors[[5, 1]])
    assert list(filled.iterate("year = 2003", batch=2)) == [d for d in items if d.payload["year"] == 2003]


def test_order_of_embeddings_does_not_matter(tmp_path):
    items = books(5)
    with Collection.create(tmp_path / "c", SPACE) as made:
        made.upsert(items, vectors([d.id for d in items]).take([4, 2, 0, 1, 3]))
        np.testing.assert_array_equal(made.embeddings().vectors, vectors([d.id for d in items]).vectors)


def test_search_equals_brute_force_through_every_change(filled):
    queries = vectors(["x", "y", "z"], seed=5)
    with Collection.open(filled.path) as reader:
        for step in range(6):
            expected = brute_force(filled.embeddings(), queries, 7)
            assert answers(filled.search(queries, 7)) == answers(reader.search(queries, 7)) == expected
            allowed = set(filled.ids("year >= 2003"))
            chosen = brute_force(filled.embeddings(), queries, 7, allowed)
            assert answers(reader.search(queries, 7, "year >= 2003")) == chosen
            if step == 0:
                filled.delete([f"d{i}" for i in range(0, 20)])
            elif step == 1:
                filled.upsert(books(30, 10), vectors([d.id for d in books(30, 10)], seed=2))
            elif step == 2:
                filled.snapshot()
            elif step == 3:
                filled.delete(where="year = 2001")
                filled.compact()
            elif step == 4:
                filled.delete(["d45"])
                filled.upsert(books(1, 45), vectors(["d45"], seed=9))


@pytest.mark.parametrize("how", ["snapshot", "no snapshot", "stale snapshot", "forgotten log"])
def test_a_new_process_finds_the_same(filled, how):
    queries = vectors(["x", "y"], seed=5)
    if how != "no snapshot":
        filled.snapshot()
    if how == "stale snapshot":
        filled.delete(["d1", "d2"])
        filled.upsert(books(3, 100), vectors(["d100", "d101", "d102"], seed=3))
    if how == "forgotten log":
        before = next((filled.path / "snapshots").rglob("*-exact"))
        kept = filled.path / "kept"
        shutil.copytree(before, kept)
        filled.delete(["d1", "d2"])
        filled.compact()
        shutil.rmtree(next((filled.path / "snapshots").rglob("*-exact")))
        kept.rename(before)
    with Collection.open(filled.path) as reader:
        assert answers(reader.search(queries, 9)) == brute_force(filled.embeddings(), queries, 9)


def test_graph_is_used_from_the_measured_size_on(filled, monkeypatch):
    monkeypatch.setattr(neighbours, "GRAPH_FROM", 50)
    queries = vectors(["x"], seed=5)
    expected = brute_force(filled.embeddings(), queries, 5)
    filled.snapshot(graph=True)
    with Collection.open(filled.path) as reader:
        assert answers(reader.search(queries, 5)) == expected  # sixty vectors: the graph finds all
        assert {kind for _, kind in reader._indexes._held} == {"code-graph"}
        filled.delete(expected[0][:2])
        assert answers(reader.search(queries, 3)) == [expected[0][2:]]
        assert answers(reader.search(queries, 3, exact=True)) == [expected[0][2:]]
        assert {kind for _, kind in reader._indexes._held} == {"code-graph", "exact"}
    assert filled.verify().ok


def test_codes_are_scanned_from_the_measured_size_on(filled, monkeypatch):
    monkeypatch.setattr(neighbours, "SCAN_FROM", 50)
    queries = vectors(["x"], seed=5)
    expected = brute_force(filled.embeddings(), queries, 5)
    with Collection.open(filled.path) as reader:
        assert reader.searched_by() == "code-scan"
        assert [i for i, _ in reader.search(queries, 5).row(0)] == expected[0][:5]
        filled.upsert(books(3, 100), vectors(["d100", "d101", "d102"], seed=3))
        assert len(reader.search(queries, 100).ids) == 63
    filled.snapshot()
    assert [p.name.partition("-")[2] for p in (filled.path / "snapshots").glob("*/*")] == ["code-scan"]
    assert filled.verify().ok


def test_a_code_given_is_used_with_the_vectors_behind_it(filled):
    queries = vectors(["x"], seed=5)
    expected = brute_force(filled.embeddings(), queries, 5)
    assert filled.code() is None
    filled.set_code(ScalarCode(4).fit(filled.embeddings().vectors))
    with Collection.open(filled.path) as reader:
        assert reader.searched_by() == "coded"
        assert answers(reader.search(queries, 5)) == expected  # ranked again by the vectors: the scores are exact
        filled.snapshot()
        filled.delete(expected[0][:2])
        filled.upsert(books(1, 100), vectors(["d100"], seed=3))
        assert answers(reader.search(queries, 3)) == brute_force(filled.embeddings(), queries, 3)
        assert reader.search(queries, 3, "id = 'd3'").ids.tolist() == ["d3"]
    assert filled.verify().ok
    filled.set_code(BinaryCode().fit(filled.embeddings().vectors))  # another code: the old codes are not used for it
    assert len(filled.search(queries, 5).ids) == 5
    with pytest.raises(InputError, match="9-d"):
        filled.set_code(ScalarCode(4).fit(np.eye(9)))
    filled.set_code(None)
    assert filled.searched_by() == "exact"
    assert not list((filled.path / "codes").iterdir())


def test_fewer_hits_than_k_and_none(filled, tmp_path):
    queries = vectors(["x"], seed=5)
    assert len(filled.search(queries, 1000).ids) == 60
    assert len(filled.search(queries, 10, "id = 'd3'").ids) == 1
    assert len(filled.search(queries, 10, "year = 1").ids) == 0
    assert len(filled.search(vectors([]), 10)) == 0
    with Collection.create(tmp_path / "empty", SPACE) as empty:
        assert answers(empty.search(queries, 3)) == [[]]
        assert answers(empty.bm25(["apple"], 3)) == [[]]
        assert empty.embeddings().vectors.shape == (0, 8)
        assert list(empty.iterate()) == []
        empty.snapshot()
        empty.compact()
        assert empty.verify().ok
    for bad in (0, -1):
        with pytest.raises(InputError):
            filled.search(queries, bad)
        with pytest.raises(InputError):
            filled.bm25(["a"], bad)
        with pytest.raises(InputError):
            list(filled.iterate(batch=bad))


def test_bm25_equals_the_formula(filled):
    texts = ["apple", "apple apple pear", "pear plum", "plum " * 10, "cherry"]
    items = [Document(f"t{i}", t) for i, t in enumerate(texts)]
    filled.delete(where="exists id")
    filled.upsert(items, vectors([d.id for d in items]))
    lengths = np.array([len(t.split()) for t in texts])

    def score(words, i):
        total = 0.0
        for word in words:
            n = sum(word in t.split() for t in texts)
            idf = max(np.log((5 - n + 0.5) / (n + 0.5)), 1e-6)
            f = texts[i].split().count(word)
            total += idf * f * 2.2 / (f + 1.2 * (0.25 + 0.75 * lengths[i] / lengths.mean()))
        return total

    run = filled.bm25(["pear apple", "cherry"], 10).to_run()
    assert set(run["0"]) == {"t0", "t1", "t2"}
    for i, found in run["0"].items():
        assert found == pytest.approx(score(["pear", "apple"], int(i[1])), rel=1e-5)
    assert list(run["1"]) == ["t4"]


def test_bm25_ties_break_by_id_even_at_the_cut(filled):
    same = [Document(i, "zebra") for i in ("c", "a", "e", "b", "d")]
    filled.upsert(same, vectors([d.id for d in same]))
    assert answers(filled.bm25(["zebra"], 3)) == [["a", "b", "c"]]
    assert answers(filled.bm25(Queries.of({"q": "zebra"}), 2, "id in ('e', 'b', 'd')")) == [["b", "d"]]
    assert answers(filled.bm25(["number3 title"], 1)) == [["d3"]]


@pytest.mark.parametrize("text", ['"', "a AND", "NEAR(", "title:apple", "*", "-", "^x", "a\0b", "\ud800", "", "'; --"])
def test_bm25_takes_any_text(filled, text):
    filled.bm25([text], 3)


@given(st.text(max_size=60))
@settings(max_examples=100, deadline=None)
def test_match_expressions_are_never_syntax_errors(text):
    from isometry.store.fulltext import match_expression

    db = sqlite3.connect(":memory:")
    db.execute("CREATE VIRTUAL TABLE s USING fts5 (t)")
    if expression := match_expression(text):
        db.execute("SELECT rowid FROM s WHERE s MATCH ?", (expression,)).fetchall()
    db.close()


def test_replacing_a_document_leaves_nothing_of_the_old(filled):
    new = Document("d3", "completely different", payload={"color": "red"})
    filled.upsert([new], vectors(["d3"], seed=8))
    assert filled.get("d3") == [new]
    assert answers(filled.bm25(["number3"], 1)) == [[]]
    assert answers(filled.bm25(["completely"], 1)) == [["d3"]]
    assert filled.ids("color = 'red'") == ["d3"]
    assert "d3" not in filled.ids("exists year")
    assert len(filled) == 60
    assert filled.verify().ok


def test_delete(filled):
    assert filled.delete(["d1", "nobody", "d1"]) == 1
    assert filled.delete("d2") == 1
    assert filled.delete([f"d{i}" for i in range(30)], where="year = 2003") == 4
    assert filled.delete(where="year = 2003") == 5
    assert filled.delete([]) == 0
    with pytest.raises(InputError):
        filled.delete()
    with pytest.raises(UnknownName, match="d1"):
        filled.get(["d0", "d1"])
    with pytest.raises(UnknownName):
        filled.embeddings(ids=["d1"])
    assert filled.delete(where="exists id") == 49
    assert len(filled) == 0
    assert filled.verify().ok


@pytest.mark.parametrize(
    ("items", "ids", "space", "error"),
    [
        ([Document("a", "x"), Document("a", "y")], ["a", "b"], SPACE, InputError),
        ([Document("a", "x")], ["b"], SPACE, InputError),
        ([Document("a", "x")], ["a", "b"], SPACE, InputError),
        ([Document("a", "x"), Document("b", "x")], ["a", "a"], SPACE, InputError),
        ([Document("a", "x")], ["a"], OTHER, SpaceMismatch),
        ([Document("a", "x")], ["a"], replace(SPACE, revision="2"), SpaceMismatch),
        ([Document("", "x")], [""], SPACE, InputError),
        ([Document("a\0", "x")], ["a\0"], SPACE, InputError),
        ([Document("a", "x\ud800")], ["a"], SPACE, InputError),
        ([Document("a", 3)], ["a"], SPACE, InputError),
        ([Document("a", "x", payload={"n": float("nan")})], ["a"], SPACE, InputError),
        ([Document("a", "x", payload={"n": 2**63})], ["a"], SPACE, InputError),
        ([Document("a", "x", payload={"n": object()})], ["a"], SPACE, InputError),
        ([Document("a", "x", payload={3: 1})], ["a"], SPACE, InputError),
        ([Document("a", "x", payload={"s": "\0"})], ["a"], SPACE, InputError),
        ([Document("a", "x", payload=[1])], ["a"], SPACE, InputError),
        (["a"], ["a"], SPACE, InputError),
    ],
)
def test_bad_upserts_change_nothing(filled, items, ids, space, error):
    before, sequence = list(filled.iterate()), filled.sequence
    with pytest.raises(error):
        filled.upsert([*books(2, 500), *items], vectors(["d500", "d501", *ids], space))
    assert list(filled.iterate()) == before
    assert filled.sequence == sequence


def test_deep_payloads_and_multi_vectors_are_refused(filled):
    deep = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(InputError, match="deeper"):
        filled.upsert([Document("a", "x", payload={"p": deep})], vectors(["a"]))
    multi = Embeddings(vectors(["a", "b"]).vectors, id_array(["a"]), SPACE, offsets=np.array([0, 2]))
    with pytest.raises(InputError, match="multi-vector"):
        filled.upsert([Document("a", "x")], multi)


def test_several_spaces(filled):
    ids = filled.ids()
    with pytest.raises(InputError):
        filled.add_space(vectors(ids[:-1], OTHER))
    with pytest.raises(InputError):
        filled.add_space(vectors(ids))
    filled.add_space(vectors(ids, OTHER, seed=4).take(np.arange(59, -1, -1)))
    np.testing.assert_array_equal(filled.embeddings(OTHER.id).vectors, vectors(ids, OTHER, seed=4).vectors)
    assert filled.spaces == [SPACE, OTHER]
    assert filled.default_space == SPACE
    assert filled.search(vectors(["d0"], OTHER, seed=4), 1).ids[0] == "d0"
    with pytest.raises(InputError, match="every space"):
        filled.upsert(books(1), vectors(["d0"]))
    filled.upsert(books(1, 77), [vectors(["d77"], OTHER), vectors(["d77"])])
    assert filled.verify().ok
    with pytest.raises(InputError, match="default"):
        filled.remove_space(SPACE.id)
    filled.snapshot()
    filled.remove_space(OTHER.id)
    assert filled.spaces == [SPACE]
    with pytest.raises(SpaceMismatch, match="other"):
        filled.search(vectors(["q"], OTHER), 1)
    with pytest.raises(UnknownName):
        filled.embeddings(OTHER.id)
    filled.add_space(vectors(filled.ids(), OTHER, seed=6), default=True)
    assert filled.default_space == OTHER
    assert filled.search(vectors(["d0"], OTHER, seed=6), 1).ids[0] == "d0"
    filled.remove_space(SPACE.id)
    assert filled.verify().ok


def test_create_and_open(tmp_path):
    with pytest.raises(StoreError, match="no collection"):
        Collection.open(tmp_path / "none")
    with Collection.create(tmp_path / "deep" / "er", SPACE) as made:
        assert (made.name, made.sequence, made.path) == ("er", 1, tmp_path / "deep" / "er")
        made.set_meta({"model": "toy", "root": None, "n": [1, {"x": "ü"}]})
        made.set_meta({"root": "/data"})
        assert made.meta == {"model": "toy", "root": "/data", "n": [1, {"x": "ü"}]}
        assert made.sequence == 3
        with pytest.raises(InputError):
            made.set_meta({"x": object()})
    with pytest.raises(StoreError, match="already a collection"):
        Collection.create(tmp_path / "deep" / "er", SPACE)
    with Collection.create(tmp_path / "deep" / "er", SPACE, exist_ok=True) as again:
        assert again.meta["model"] == "toy"
    with pytest.raises(SpaceMismatch):
        Collection.create(tmp_path / "deep" / "er", OTHER, exist_ok=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("x")
    with pytest.raises(StoreError, match="already something else"):
        Collection.create(tmp_path / "full", SPACE)
    (tmp_path / "bare").mkdir()
    Collection.create(tmp_path / "bare", SPACE).close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bare", "deep", "full"]


def test_readers_cannot_write_and_closed_is_closed(filled):
    with Collection.open(filled.path) as reader:
        for change in (
            lambda: reader.upsert(books(1), vectors(["d0"])),
            lambda: reader.delete(["d0"]),
            lambda: reader.set_meta({}),
            reader.snapshot,
            reader.compact,
        ):
            with pytest.raises(StoreError, match="write=True"):
                change()
    reader.close()
    for use in (reader.count, lambda: reader.search(vectors(["x"]), 1), lambda: reader.bm25(["x"], 1)):
        with pytest.raises(StoreError, match="closed"):
            use()


def test_newer_formats_are_refused(filled):
    path = filled.path
    filled.close()
    with sqlite3.connect(path / "collection.sqlite") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreVersion, match="99"):
        Collection.open(path)
    with sqlite3.connect(path / "collection.sqlite") as db:
        db.execute("PRAGMA application_id = 7")
    db.close()
    with pytest.raises(CorruptStore):
        Collection.open(path)


def test_export_and_import_round_trip(filled, tmp_path):
    filled.add_space(vectors(filled.ids(), OTHER, seed=3))
    filled.set_meta({"model": "toy"})
    file = tmp_path / "x.parquet"
    filled.export(file)
    with Collection.import_parquet(tmp_path / "copy", file) as copy:
        assert list(copy.iterate()) == list(filled.iterate())
        assert copy.meta == {"model": "toy"}
        assert (copy.spaces, copy.default_space) == ([SPACE, OTHER], SPACE)
        for space in (SPACE, OTHER):
            np.testing.assert_array_equal(copy.embeddings(space.id).vectors, filled.embeddings(space.id).vectors)
        assert copy.verify().ok
    np.testing.assert_array_equal(Embeddings.from_parquet(file).vectors, filled.embeddings().vectors)
    with pytest.raises(StoreError):
        Collection.import_parquet(tmp_path / "copy", file)
    with pytest.raises(StoreError, match="No such file"):
        filled.export(tmp_path / "none" / "x.parquet")
    (tmp_path / "bad").write_text("no parquet")
    for bad, error in ((tmp_path / "bad", DataFormatError), (tmp_path / "none", InputError)):
        with pytest.raises(error):
            Collection.import_parquet(tmp_path / "new", bad)
    filled.embeddings().to_parquet(tmp_path / "vectors.parquet")
    with pytest.raises(DataFormatError, match="payload"):
        Collection.import_parquet(tmp_path / "new", tmp_path / "vectors.parquet")
    assert not (tmp_path / "new").exists()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text("abc.é", max_size=3), v, max_size=3),
    max_leaves=6,
)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


@given(TEXT.filter(bool), TEXT, TEXT, TEXT, st.dictionaries(st.text("abc.é", max_size=3), JSON, max_size=4))
@settings(max_examples=60, deadline=None)
def test_any_document_comes_back(tmp_path_factory, identity, text, title, source, payload):
    item = Document(identity, text, title, source, payload)
    with Collection.create(tmp_path_factory.mktemp("any") / "c", SPACE) as made:
        made.upsert([item], vectors([identity]))
        (found,) = made.get([identity])
        assert found == item
        assert json.dumps(found.payload) == json.dumps(item.payload)
        assert made.verify().ok
        assert made.delete([identity]) == 1
        assert made.verify().ok


def test_upsert_of_nothing_is_a_commit_of_nothing(filled):
    filled.upsert([], vectors([]))
    assert len(filled) == 60


def test_filter_objects_and_text_select_alike(filled):
    assert filled.ids(Filter.parse("year > 2003")) == filled.ids("year > 2003")
    with pytest.raises(InputError):
        filled.ids({"year": 3})


def test_a_filter_of_another_kind_is_named(filled):
    filled.check_where(None)
    filled.check_where("year > 2001 and tags = 'a' and title = 'x' and not id = 'd1'")
    wrong = {
        "year = 'old'": "holds numbers, the filter compares it with text",
        "title > 5": "'title' holds text",
        "tags = 3 or year = 2001": "'tags' holds text",
    }
    for where, words in wrong.items():
        with pytest.raises(InputError, match=words):
            filled.check_where(where)
    with pytest.raises(UnknownName, match="yaer"):
        filled.check_where("yaer > 2000")
