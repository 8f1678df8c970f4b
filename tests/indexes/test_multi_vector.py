"""Two-stage multi-vector search: exact where it must be, a protocol-true index in every other respect."""

import json
import shutil

import numpy as np
import pytest

from isometry.errors import (
    CorruptStore,
    DimensionMismatch,
    InputError,
    SpaceMismatch,
    StoreError,
    UnknownName,
)
from isometry.indexes import HNSW, Exact, MultiVectorIndex, maxsim_scores
from isometry.indexes.ragged_rows import RaggedRows
from isometry.protocols import Index
from isometry.spaces import FDE, carve_queries
from isometry.types import Embeddings, Space, id_array

SPACE = Space("made", 16, similarity="maxsim")


def items(n, seed=0, prefix="d", lengths=(1, 12), centres=30):
    """Sets of unit tokens around shared centres; each set keeps to a few of them, so that sets have neighbours."""
    rng = np.random.default_rng(seed)
    middle = np.random.default_rng(99).standard_normal((centres, 16))
    counts = rng.integers(*lengths, n)
    own = np.repeat(rng.integers(0, centres, n), counts)
    x = middle[(own + rng.integers(0, 4, len(own))) % centres] + 0.5 * rng.standard_normal((len(own), 16))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Embeddings(x, id_array(f"{prefix}{i}" for i in range(n)), SPACE, offsets=offsets)


def brute(queries, documents, k, allowed=None):
    scores = maxsim_scores(queries, documents)
    keep = np.arange(len(documents)) if allowed is None else np.flatnonzero(allowed)
    rows = [[(documents.ids[j], float(row[j])) for j in keep] for row in scores]
    return [sorted(row, key=lambda pair: (-pair[1], pair[0]))[:k] for row in rows]


def flat(hits):
    return [row for _, row in hits]


def near(a, b):
    assert [[i for i, _ in row] for row in a] == [[i for i, _ in row] for row in b]
    np.testing.assert_allclose([s for row in a for _, s in row], [s for row in b for _, s in row], rtol=1e-5)


def made(documents=None, **options):
    index = MultiVectorIndex(SPACE, **{"fde": FDE(repetitions=6, k_sim=2), **options})
    index.add(items(300) if documents is None else documents)
    return index


def test_is_an_index():
    index = made()
    assert isinstance(index, Index)
    assert len(index) == 300
    assert not index.exact


@pytest.mark.parametrize("options", [{}, {"fde": None}, {"carve": 1.5}], ids=str)
def test_small_sets_are_searched_exactly(options):
    documents, queries = items(300), items(9, 1, "q")
    assert flat(made(documents, **options).search(queries, 7)) == brute(queries, documents, 7)


def test_exact_search_by_batches(monkeypatch):
    documents, queries = items(300), items(9, 1, "q")
    monkeypatch.setattr("isometry.indexes.multi_vector.SCORES", 700)
    assert flat(made(documents).search(queries, 7)) == brute(queries, documents, 7)


@pytest.mark.parametrize("first", [None, Exact, HNSW], ids=str)
def test_candidates_are_ranked_by_maxsim(first):
    documents, queries = items(300), items(20, 1, "q")
    options = {} if first is None else {"first": first if first is Exact else lambda s: HNSW(s, threads=1)}
    index, best = made(documents, **options), brute(queries, documents, 10)
    exact = dict(zip(documents.ids.tolist(), maxsim_scores(queries, documents).T.tolist(), strict=True))
    recalls = []
    for candidates in (10, 60, 300):
        found = flat(index.search(queries, 10, candidates=candidates))
        for i, row in enumerate(found):
            assert len(row) == 10
            assert row == sorted(row, key=lambda pair: (-pair[1], pair[0]))
            np.testing.assert_allclose([s for _, s in row], [exact[d][i] for d, _ in row], rtol=1e-5)
        recalls.append(
            np.mean([len({d for d, _ in a} & {d for d, _ in b}) / 10 for a, b in zip(found, best, strict=True)])
        )
    assert recalls[0] < recalls[1]
    assert recalls[1] > 0.8
    assert recalls[2] == 1


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_dtypes_score_what_they_keep(dtype):
    documents, queries = items(100), items(5, 1, "q")
    index, exact = made(documents, dtype=dtype), maxsim_scores(queries, documents)
    found = index.search(queries, 100)
    bound = {"float32": 0, "float16": 2**-11, "int8": 16 / 127 / 2}[dtype] * 12  # per token: |q|_1 times half a step
    for i in range(5):
        scores = dict(found.row(i))
        np.testing.assert_allclose([scores[d] for d in documents.ids], exact[i], atol=bound + 1e-5)
    assert index._tokens.codes.dtype == dtype


def test_default_search_uses_candidates_when_there_are_many(monkeypatch):
    documents, queries = items(300), items(5, 1, "q")
    index, asked = made(documents), []
    search = index._first.search
    monkeypatch.setattr(index._first, "search", lambda q, k, where: asked.append(k) or search(q, k, where))
    index.search(queries, 3)
    assert asked == []
    monkeypatch.setattr("isometry.indexes.multi_vector.SMALL", 10)
    index.search(queries, 3)
    index.search(queries, 12)
    assert asked == [200, 240]


@pytest.mark.parametrize("candidates", [None, 8])
def test_masks(candidates):
    documents, queries = items(300), items(6, 1, "q")
    index = made(documents)
    for share in (0.0, 0.02, 0.5, 1.0):
        mask = np.random.default_rng(1).random(300) < share
        found = index.search(queries, 5, mask, candidates=candidates)
        assert np.diff(found.offsets).tolist() == [min(5, mask.sum())] * 6
        assert set(found.ids) <= set(documents.ids[mask])
        if candidates is None:
            assert flat(found) == brute(queries, documents, 5, mask)


def test_masks_follow_the_first_stage_wherever_it_keeps_its_rows():
    class Backwards(Exact):
        """Keeps its rows in another order."""

        def add(self, emb):
            super().add(emb.take(np.arange(len(emb))[::-1]))

    documents, queries = items(300), items(6, 1, "q")
    index = made(documents, first=Backwards)
    mask = np.random.default_rng(1).random(300) < 0.3
    found = index.search(queries, 5, mask, candidates=30)
    assert np.diff(found.offsets).tolist() == [5] * 6
    assert set(found.ids) <= set(documents.ids[mask])


def test_ids_are_replaced_and_removed():
    documents, other, queries = items(300), items(300, 5), items(6, 1, "q")
    index = made(documents)
    index.add(other.take(range(50, 90)))  # other token counts under known ids
    assert index.ids.tolist() == documents.ids.tolist()
    expected = {**{documents.ids[i]: documents.item(i) for i in range(300)},
                **{other.ids[i]: other.item(i) for i in range(50, 90)}}  # fmt: skip
    removed = [f"d{i}" for i in range(0, 300, 2)]
    assert index.remove([*removed, *removed, "nobody"]) == 150
    assert index.remove(["nobody"]) == 0
    kept = {i: x for i, x in expected.items() if i not in set(removed)}
    offsets = np.concatenate([[0], np.cumsum([len(x) for x in kept.values()])]).astype(np.int64)
    now = Embeddings(np.concatenate(list(kept.values())), id_array(kept), SPACE, offsets=offsets)
    assert index.ids.tolist() == list(kept)
    near(flat(index.search(queries, 9)), brute(queries, now, 9))
    found = index.search(queries, 9, candidates=40)
    assert np.diff(found.offsets).tolist() == [9] * 6
    assert set(found.ids) <= set(kept)


def test_rows_left_behind_are_reclaimed():
    rows, one = RaggedRows(SPACE, "int8"), items(40)
    for _ in range(10):
        rows.put(rows.encode(one))
        assert len(rows.codes) <= 2 * len(one.vectors)
    rows.remove(np.arange(39))
    assert len(rows.codes) <= 2 * len(one.item(39))
    twice = one.take([39, 39])
    rows.put(rows.encode(twice))
    assert (len(rows), rows.counts.tolist()) == (1, [len(one.item(39))])


def test_many_small_additions_equal_one(tmp_path):
    documents, queries = items(60), items(4, 1, "q")
    index = made(documents.take([0]), dtype="int8")
    for i in range(1, 60):
        index.add(documents.take([i]))
    assert flat(index.search(queries, 5)) == flat(made(documents, dtype="int8").search(queries, 5))


def test_equal_scores_rank_by_id():
    one = items(1)
    x = np.concatenate([one.vectors] * 30)
    offsets = np.arange(31) * len(one.vectors)
    documents = Embeddings(x, id_array(f"{i:02}" for i in range(30))[::-1], SPACE, offsets=offsets)
    for candidates in (None, 30):
        found = made(documents).search(one, 4, candidates=candidates)
        assert found.ids.tolist() == ["00", "01", "02", "03"]


def test_single_token_sets_rank_like_dot_products():
    documents, queries = items(200, lengths=(1, 2)), items(5, 1, "q", lengths=(1, 2))
    plain = Space("plain", 16, similarity="dot")
    exact = Exact(plain)
    exact.add(Embeddings(documents.vectors, documents.ids, plain))
    expected = exact.search(Embeddings(queries.vectors, queries.ids, plain), 6)
    near(flat(made(documents).search(queries, 6)), flat(expected))


def test_carved_queries_rank():
    documents, queries = items(300), items(6, 1, "q", lengths=(20, 30))
    index = made(documents, carve=0.7)
    near(flat(index.search(queries, 5)), brute(carve_queries(queries, 0.7), documents, 5))


def test_added_by_parts(monkeypatch):
    monkeypatch.setattr("isometry.indexes.multi_vector.ENCODED", 1)
    documents, queries = items(30), items(3, 1, "q")
    assert len(made(documents).search(queries, 2, candidates=5).ids) == 6


@pytest.mark.parametrize("options", [{}, {"fde": None}, {"dtype": "int8", "carve": 0.7}, {"first": HNSW},
                                     {"dtype": "float16"}], ids=str)  # fmt: skip
def test_saved_and_loaded(options, tmp_path):
    if "first" in options:
        options = {"first": lambda space: HNSW(space, threads=1)}
    index, queries = made(**options), items(6, 1, "q")
    index.remove(["d3"])
    index.save(tmp_path / "i")
    index.save(tmp_path / "i")
    again = MultiVectorIndex.load(tmp_path / "i")
    assert (again.space, again.dtype, again.carve) == (index.space, index.dtype, index.carve)
    for candidates in (None, 20):
        assert flat(again.search(queries, 5, candidates=candidates)) == flat(
            index.search(queries, 5, candidates=candidates)
        )
    again.add(items(3, 7, "new"))
    again.remove(["d5"])
    assert len(again) == 301
    again.save(tmp_path / "i")
    assert len(MultiVectorIndex.load(tmp_path / "i")) == 301
    assert len(list((tmp_path / "i").glob("first-*"))) == (0 if index.fde is None else 1)


def test_empty_index(tmp_path):
    index, queries = MultiVectorIndex(SPACE, fde=FDE(repetitions=2, k_sim=1)), items(2, 1, "q")
    assert np.diff(index.search(queries, 3).offsets).tolist() == [0, 0]
    index.save(tmp_path / "i")
    again = MultiVectorIndex.load(tmp_path / "i")
    again.add(items(4))
    assert np.diff(again.search(queries, 9).offsets).tolist() == [4, 4]
    assert len(again.search(queries.take([]), 3)) == 0


def test_a_centring_encoding_is_fitted_outside():
    with pytest.raises(InputError, match=r"fitted to token embeddings first: fde.fit\(emb\)"):
        MultiVectorIndex(SPACE, fde=FDE(center=True))
    assert len(made(fde=FDE(repetitions=2, k_sim=2, center=True).fit(items(300)))) == 300
    unfitted = FDE(repetitions=2, k_sim=2)
    made(fde=unfitted)
    assert not unfitted.fitted


def test_other_spaces_and_configurations_are_refused():
    index, other = made(), Space("other", 16, similarity="maxsim")
    strange = Embeddings(items(2).vectors, items(2).ids, other, offsets=items(2).offsets)
    for use in (lambda: index.add(strange), lambda: index.search(strange, 1)):
        with pytest.raises(SpaceMismatch, match="other"):
            use()
    with pytest.raises(SpaceMismatch):
        MultiVectorIndex(SPACE, fde=FDE(repetitions=2).fit(strange))
    queries = items(2, 1, "q")
    for changed in (FDE(repetitions=6, k_sim=2, seed=1), FDE(repetitions=6, k_sim=2, fill_empty=False)):
        with pytest.raises(SpaceMismatch, match="fde:"):
            index._first.search(changed.fit(queries).transform_query(queries), 1)
    assert len(index) == 300


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k must be"),
        ({"k": True}, "k must be"),
        ({"k": 1, "candidates": 0}, "candidates must be"),
        ({"k": 1, "where": np.ones(3, bool)}, "where must be a boolean mask"),
        ({"k": 1, "where": np.ones(300)}, "where must be a boolean mask"),
    ],
)
def test_bad_search(arguments, message):
    with pytest.raises(InputError, match=message):
        made().search(items(2, 1, "q"), **arguments)


def test_bad_items():
    index = made()
    none = Embeddings(np.eye(16)[:1], id_array(["x", "empty"]), SPACE, offsets=np.array([0, 1, 1]))
    for use in (lambda: index.add(none), lambda: index.search(none, 1)):
        with pytest.raises(InputError, match="without a token vector, first 'empty'"):
            use()
    single = Embeddings(np.eye(16), id_array(map(str, range(16))), SPACE)
    with pytest.raises(InputError, match="one vector per id"):
        index.add(single)
    with pytest.raises(DimensionMismatch, match="NaN"):
        Embeddings(np.full((1, 16), np.nan), id_array("x"), SPACE, offsets=np.array([0, 1]))
    large = Embeddings(np.full((1, 16), 1e6), id_array("x"), SPACE, offsets=np.array([0, 1]))
    half = made(dtype="float16")
    with pytest.raises(DimensionMismatch, match="65504"):
        half.add(large)
    assert len(half) == len(half._first) == len(index) == 300
    with pytest.raises(InputError, match="single text"):
        index.remove("d1")
    with pytest.raises(InputError, match="not by cosine"):
        MultiVectorIndex(Space("made", 16))
    with pytest.raises(UnknownName):
        MultiVectorIndex(SPACE, dtype="float64")


def test_corrupt_folders(tmp_path):
    with pytest.raises(StoreError, match="no index"):
        MultiVectorIndex.load(tmp_path)
    made().save(tmp_path / "good")
    for n, file in enumerate(sorted(p for p in (tmp_path / "good").rglob("*") if p.is_file())):
        bad = tmp_path / f"bad{n}"
        shutil.copytree(tmp_path / "good", bad)
        target = bad / file.relative_to(tmp_path / "good")
        content = bytearray(target.read_bytes())
        content[len(content) // 2] ^= 1
        target.write_bytes(bytes(content))
        with pytest.raises(CorruptStore):
            MultiVectorIndex.load(bad)
    (first,) = (tmp_path / "good").glob("first-*")
    shutil.rmtree(first)
    with pytest.raises(CorruptStore, match="missing"):
        MultiVectorIndex.load(tmp_path / "good")


def test_a_first_stage_of_another_index_is_refused(tmp_path):
    made().save(tmp_path / "a")
    made(items(20, 3)).save(tmp_path / "b")
    (mine,), (other,) = (tmp_path / "a").glob("first-*"), (tmp_path / "b").glob("first-*")
    shutil.rmtree(mine)
    shutil.copytree(other, mine)
    with pytest.raises(CorruptStore, match="checksum"):
        MultiVectorIndex.load(tmp_path / "a")


def test_a_foreign_first_stage_needs_its_reader(tmp_path):
    class Foreign(Exact):
        """An index from elsewhere."""

    index = made(first=Foreign)
    index.save(tmp_path / "i")
    with pytest.raises(StoreError, match="pass its reader"):
        MultiVectorIndex.load(tmp_path / "i")
    assert len(MultiVectorIndex.load(tmp_path / "i", first=Foreign.load)) == 300


def test_bytes_of_a_compact_index(tmp_path):
    """int8 tokens with int8 encodings of a twentieth of their size take less than 31 % of the float32 tokens."""
    rng = np.random.default_rng(0)
    space = Space("made", 96, similarity="maxsim", normalized=False)
    documents = Embeddings(rng.standard_normal((200 * 80, 96)), id_array(map(str, range(200))), space,
                           offsets=np.arange(201) * 80)  # fmt: skip
    index = MultiVectorIndex(space, fde=FDE(k_sim=3, d_proj=8), dtype="int8")
    with pytest.warns(UserWarning, match="norms"):
        index.add(documents)
    index.save(tmp_path / "i")
    maps = sum(value.nbytes for value in index.fde.state().values())
    size = sum(p.stat().st_size for p in (tmp_path / "i").rglob("*.npy")) - maps
    assert size <= 0.31 * documents.vectors.nbytes
    assert json.loads((tmp_path / "i" / "manifest.json").read_text())["manifest"]["kind"] == "multi_vector"
