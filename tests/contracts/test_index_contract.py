"""What every index must do: one suite over every class of `isometry.indexes` in every storage type."""

import inspect
import json
import subprocess
import sys
from functools import partial
from typing import get_args

import numpy as np
import pytest

import isometry.indexes
from isometry.codes import RotatedCode
from isometry.errors import CorruptStore, DimensionMismatch, InputError, SpaceMismatch, StoreError
from isometry.indexes import HNSW, IVF, Coded, CodeGraph, CodeScan, check_recall, code_graph, hnsw
from isometry.indexes.exact import Exact
from isometry.protocols import Index
from isometry.types import Embeddings, Space, id_array

CLASSES = [c for c in (getattr(isometry.indexes, n) for n in isometry.indexes.__all__) if inspect.isclass(c)]
CASES = {f"Exact-{dtype}": partial(Exact, dtype=dtype) for dtype in get_args(isometry.indexes.exact.DType)}
CASES |= {f"HNSW-{dtype}": partial(HNSW, dtype=dtype, threads=1) for dtype in get_args(hnsw.GraphDType)}
CASES |= {"CodeScan": CodeScan, "CodeGraph": CodeGraph, "CodeGraph-threads": partial(CodeGraph, threads=3)}
CASES |= {"IVF": IVF}


def coded(space):
    """A flat index of 8-bit codes, fitted on vectors like those the suite adds."""
    return Coded(space, RotatedCode(8).fit(vectors(500, 7)))


CASES |= {"Coded": coded}
MULTI_VECTOR = {"MultiVectorIndex"}  # takes several vectors an item: tests/indexes/test_multi_vector.py
CLASSES = [c for c in CLASSES if c.__name__ not in MULTI_VECTOR]
SPACE = Space("made", 16)
N = 300


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def make(request, monkeypatch):
    """Build an empty index; graphs must be walked, not replaced by a scan because the index is small."""
    monkeypatch.setattr(hnsw, "STEP_ROWS", {1: 0})
    monkeypatch.setattr(code_graph, "STEP_ROWS", {"all": 0, "filtered": 0})
    return lambda space=SPACE: request.param(space)


def vectors(n, seed=0, dim=16):
    x = np.random.default_rng(seed).standard_normal((n, dim))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def emb(n=N, seed=0, prefix="d", space=SPACE):
    return Embeddings(vectors(n, seed), id_array(f"{prefix}{i}" for i in range(n)), space)


def filled(make, e=None):
    index = make()
    index.add(emb() if e is None else e)
    return index


def flat(hits):
    return [hits.row(i) for i in range(len(hits))]


def test_every_class_is_in_the_suite():
    assert {c.__name__ for c in CLASSES} == {name.partition("-")[0] for name in CASES}


def test_is_an_index_and_answers_sorted(make):
    index, queries = filled(make), emb(7, 1, "q")
    assert isinstance(index, Index)
    assert len(index) == N
    hits = index.search(queries, 10)
    assert hits.query_ids.tolist() == queries.ids.tolist()
    assert hits.offsets.tolist() == list(range(0, 71, 10))
    assert hits.scores.dtype == np.float32
    for _, row in hits:
        assert row == sorted(row, key=lambda pair: (-pair[1], pair[0]))
        assert len({i for i, _ in row}) == 10
        assert {i for i, _ in row} <= set(index.ids)


def test_recall_against_brute_force(make):
    index, queries = filled(make), emb(40, 1, "q")
    scores = check_recall(index, Exact.of(emb()), queries, 10)
    assert len(scores) == 40
    assert scores.mean("recall@10") >= (0.93 if getattr(index, "dtype", "") == "int8" else 0.97)


def test_none_and_one(make):
    index, queries = make(), emb(3, 1, "q")
    assert flat(index.search(queries, 5)) == [[], [], []]
    assert flat(index.search(queries, 5, np.zeros(0, bool))) == [[], [], []]
    index.add(emb(0))
    assert len(index) == 0
    index.add(emb(1))
    assert [[i for i, _ in row] for row in flat(index.search(queries, 5))] == [["d0"]] * 3
    assert len(index.search(emb(0, 1, "q"), 5)) == 0
    assert flat(index.search(emb(1, 1, "q"), 5))[0][0][0] == "d0"


def test_k_beyond_n_returns_all(make):
    for count in (1, 4):  # one query and several go different ways in some libraries
        hits = filled(make).search(emb(count, 1, "q"), 10 * N)
        assert np.diff(hits.offsets).tolist() == [N] * count
        assert set(hits.ids.tolist()) == set(emb().ids)


def test_equal_vectors_tie_by_id(make):
    one = vectors(1)[0]
    e = Embeddings(np.tile(one, (50, 1)), id_array(f"{i:02d}" for i in np.random.default_rng(0).permutation(50)), SPACE)
    hits = filled(make, e).search(Embeddings(one[None], id_array("q"), SPACE), 50)
    assert hits.ids.tolist() == [f"{i:02d}" for i in range(50)]
    assert len(set(hits.scores.tolist())) == 1


def test_bad_arguments(make):
    index, queries = filled(make), emb(2, 1, "q")
    for k in (0, -1, 2.5, True):
        with pytest.raises(InputError, match="k must be"):
            index.search(queries, k)
    with pytest.raises(InputError, match="mask"):
        index.search(queries, 3, np.ones(N - 1, bool))
    with pytest.raises(InputError, match="mask"):
        index.search(queries, 3, np.arange(N))
    with pytest.raises(InputError, match="single text"):
        index.remove("d1")


def test_other_space_width_or_kind_is_refused(make):
    index, other = filled(make), emb(2, 1, "q", Space("other", 16))
    with pytest.raises(SpaceMismatch, match="other"):
        index.search(other, 3)
    with pytest.raises(SpaceMismatch, match="other"):
        index.add(other)
    with pytest.raises(DimensionMismatch):
        Embeddings(np.full((1, 16), np.nan), id_array("a"), SPACE)
    multi = Embeddings(vectors(4), id_array("ab"), SPACE, offsets=np.array([0, 1, 4]))
    for act in (index.add, lambda m: index.search(m, 3)):
        with pytest.raises(InputError, match="pool"):
            act(multi)
    assert len(index) == N
    with pytest.raises(InputError, match="cosine, dot or euclidean"):
        make(Space("bits", 16, similarity="hamming"))


@pytest.mark.parametrize("form", ["float64", "float16", "fortran", "strided"])
def test_any_floating_input(make, form):
    x = vectors(N).astype(np.float16)  # the same numbers in every form
    forms = {
        "float64": x.astype(np.float64),
        "float16": x,
        "fortran": np.asfortranarray(x, np.float32),
        "strided": np.repeat(x.astype(np.float32), 2, axis=0)[::2],
    }
    ids, queries = emb().ids, emb(5, 1, "q")
    plain = filled(make, Embeddings(np.ascontiguousarray(x, np.float32), ids, SPACE)).search(queries, 10)
    assert flat(filled(make, Embeddings(forms[form], ids, SPACE)).search(queries, 10)) == flat(plain)


def test_remove_and_bring_back(make):
    index, e = filled(make), emb()
    assert index.remove(["d3", "d3", "nobody", "d299"]) == 2
    assert index.remove([]) == 0
    assert len(index) == N - 2
    assert not {"d3", "d299"} & set(index.search(e, N).ids.tolist())
    index.add(e.take([3]))
    assert index.search(e.take([3]), 1).ids.tolist() == ["d3"]
    assert index.remove(index.ids.tolist()) == N - 1
    assert flat(index.search(e.take([0]), 3)) == [[]]
    index.add(e)
    assert [row[0][0] for row in flat(index.search(e, 1))] == e.ids.tolist()


def test_a_known_id_is_replaced(make):
    index, e = filled(make), emb()
    moved = Embeddings(-e.vectors[:50], e.ids[:50], SPACE)
    index.add(moved)
    assert len(index) == N
    assert index.ids.tolist() == e.ids.tolist()
    assert [row[0][0] for row in flat(index.search(moved, 1))] == e.ids[:50].tolist()
    twice = Embeddings(vectors(2, 9), id_array(["new", "new"]), SPACE)
    index.add(twice)
    assert len(index) == N + 1
    (identity, score), *_ = index.search(twice.take([1]), 1).row(0)
    assert identity == "new"
    assert score == pytest.approx(1, abs=0.02)


def test_input_is_never_written_to(make):
    e = emb()
    before = e.vectors.copy()
    for index in (filled(make, e), Exact.of(e)):
        index.add(Embeddings(vectors(N, 5), e.ids, SPACE))
        index.remove(["d0"])
        np.testing.assert_array_equal(e.vectors, before)
        assert e.ids[0] == "d0"


@pytest.mark.parametrize("share", [0, 0.001, 0.01, 0.1, 0.5, 1])
@pytest.mark.parametrize("planner", ["graph", "scan"])
def test_filters(make, share, planner, monkeypatch):
    if planner == "scan":
        monkeypatch.undo()
    index, queries = filled(make), emb(6, 1, "q")
    mask = np.zeros(N, bool)
    mask[np.random.default_rng(0).permutation(N)[: round(share * N)]] = True
    hits = index.search(queries, 10, mask)
    assert np.diff(hits.offsets).tolist() == [min(10, mask.sum())] * 6
    assert set(hits.ids.tolist()) <= set(index.ids[mask])
    best = Exact.of(emb()).search(queries, 10, mask)
    if mask.any():
        assert np.isin(hits.ids, best.ids).mean() > 0.9


def test_a_filter_against_the_grain_is_answered(make):
    """Only the rows farthest from the query pass: a graph meets them last."""
    e = emb()
    query = e.take([0])
    mask = (e.vectors @ e.vectors[0]) < -0.4
    hits = filled(make, e).search(query, 5, mask)
    best = Exact.of(e).search(query, 5, mask)
    assert len(hits.ids) == 5
    assert len(set(hits.ids) & set(best.ids)) >= 4


def test_order_and_batches_do_not_matter(make):
    e, queries = emb(), emb(9, 1, "q")
    index = make()
    for part in np.array_split(np.random.default_rng(3).permutation(N), 4):
        index.add(e.take(part))
    whole, mixed = filled(make).search(queries, 5), index.search(queries, 5)
    if index.exact:
        assert flat(mixed) == flat(whole)
    else:
        assert np.mean([len(set(whole.ids[whole.span(i)]) & set(mixed.ids[mixed.span(i)])) for i in range(9)]) > 4.7
    one_by_one = [index.search(queries.take([i]), 5).row(0) for i in range(9)]
    assert one_by_one == flat(mixed)


READ = """
import json, sys
import numpy as np
import isometry.indexes as ix
from isometry.indexes import code_graph, hnsw
from isometry.types import Embeddings
hnsw.STEP_ROWS, code_graph.STEP_ROWS = {1: 0}, {"all": 0, "filtered": 0}
index = getattr(ix, sys.argv[1]).load(sys.argv[2], mmap=sys.argv[4] == "1")
hits = index.search(Embeddings.from_parquet(sys.argv[3]), 8, np.arange(len(index)) % 2 == 0)
print(json.dumps([index.ids.tolist(), [hits.row(i) for i in range(len(hits))]]))
"""


@pytest.mark.parametrize("mmap", [False, True])
def test_a_new_process_reads_what_was_saved(make, mmap, tmp_path):
    index, queries = filled(make), emb(4, 1, "q")
    index.remove(["d5", "d77"])
    index.add(emb(10, 4))
    queries.to_parquet(tmp_path / "q.parquet")
    index.save(tmp_path / "index")
    command = [
        sys.executable,
        "-c",
        READ,
        type(index).__name__,
        tmp_path / "index",
        tmp_path / "q.parquet",
        str(int(mmap)),
    ]
    ids, rows = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert ids == index.ids.tolist()
    expected = flat(index.search(queries, 8, np.arange(len(index)) % 2 == 0))
    assert [[tuple(pair) for pair in row] for row in rows] == expected


def test_a_loaded_index_can_be_changed_and_saved_over_itself(make, tmp_path):
    index = filled(make)
    index.save(tmp_path)
    loaded = type(index).load(tmp_path, mmap=True)
    loaded.add(emb(5, 8, "new"))
    loaded.remove(["d0"])
    loaded.save(tmp_path)
    again = type(index).load(tmp_path)
    assert again.ids.tolist() == loaded.ids.tolist()
    assert [row[0][0] for row in flat(again.search(emb(5, 8), 1))] == [f"new{i}" for i in range(5)]
    names = {
        entry["file"] for entry in json.loads((tmp_path / "manifest.json").read_text())["manifest"]["files"].values()
    }
    assert {p.name for p in tmp_path.iterdir()} == names | {"manifest.json"}


def test_a_flipped_bit_is_found(make, tmp_path):
    index = filled(make)
    index.save(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        broken = bytearray(whole)
        broken[len(broken) // 2] ^= 1
        path.write_bytes(bytes(broken))
        with pytest.raises(CorruptStore):
            type(index).load(tmp_path)
        path.unlink()
        with pytest.raises(StoreError):
            type(index).load(tmp_path)
        path.write_bytes(whole)
    assert len(type(index).load(tmp_path)) == N


def test_what_cannot_be_read(make, tmp_path):
    index = filled(make)
    with pytest.raises(StoreError, match="no index"):
        type(index).load(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="Cannot write"):
        index.save(tmp_path / "file")
    index.save(tmp_path / "index")
    for other in set(CLASSES) - {type(index)}:
        with pytest.raises(StoreError, match="kind"):
            other.load(tmp_path / "index")
