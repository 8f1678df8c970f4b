"""Vector files: round trips, rows of unequal length, what a truncated or foreign file says, benchmark folders."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isometry.data.vecs import read_filtered_set, read_objects, read_vecs, write_vecs
from isometry.errors import DataFormatError


@given(rows=st.lists(st.lists(st.floats(width=32, allow_nan=False), max_size=5), max_size=6))
def test_fvecs_round_trip(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("v") / "x.fvecs"
    write_vecs(path, [np.array(row, np.float32) for row in rows])
    found = read_vecs(path)
    assert [row.tolist() for row in found] == rows
    assert all(row.dtype == np.float32 for row in found)


def test_ivecs_rows_may_differ_in_length_and_bytes_are_the_format(tmp_path):
    write_vecs(tmp_path / "x.ivecs", [np.array([3, 1]), np.array([], int), np.array([7])])
    assert np.fromfile(tmp_path / "x.ivecs", "<i4").tolist() == [2, 3, 1, 0, 1, 7]
    assert [row.tolist() for row in read_vecs(tmp_path / "x.ivecs")] == [[3, 1], [], [7]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.fvecs", b"\x02\0\0\0\0\0\0\0", "record 0 claims 2 values"),
        ("x.fvecs", b"\xff\xff\xff\xff", "record 0 claims -1 values"),
        ("x.fvecs", b"\0\0\0", "3 bytes are no whole number"),
        ("x.bvecs", b"", "only .fvecs and .ivecs"),
    ],
)
def test_broken_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataFormatError, match=message):
        read_vecs(tmp_path / name)


def folder(root, n=5, q=2):
    write_vecs(root / "database_vectors.fvecs", np.eye(n, dtype=np.float32))
    write_vecs(root / "query_vectors.fvecs", np.eye(n, dtype=np.float32)[:q])
    lines = [json.dumps({"year": i, "tags": ["a"]}) for i in range(n)]
    (root / "database_attributes.jsonl").write_text("\n".join(lines) + "\n")
    (root / "em_query_attributes.jsonl").write_text('{"label": 1}\n{"label": 2}\n')
    write_vecs(root / "ground_truth.ivecs", [np.array([0, 1]), np.array([1, 0])])
    write_vecs(root / "ground_truth_em.ivecs", [np.array([1, -1]), np.array([], int)])


def test_a_benchmark_folder(tmp_path):
    folder(tmp_path)
    found = read_filtered_set(tmp_path)
    assert found.vectors.shape == (5, 5)
    assert found.queries.shape == (2, 5)
    assert found.attributes[3] == {"year": 3, "tags": ["a"]}
    assert found.filters == {"em": [{"label": 1}, {"label": 2}]}
    assert [row.tolist() for row in found.truth["em"]] == [[1], []]  # the sentinel is gone
    assert [row.tolist() for row in found.truth[""]] == [[0, 1], [1, 0]]


def test_what_a_folder_lacks_is_named(tmp_path):
    folder(tmp_path)
    (tmp_path / "em_query_attributes.jsonl").write_text('{"label": 1}\n')
    with pytest.raises(DataFormatError, match="1 rows for 2 queries"):
        read_filtered_set(tmp_path)
    (tmp_path / "database_attributes.jsonl").unlink()
    with pytest.raises(DataFormatError, match=r"database_attributes\.jsonl is missing"):
        read_filtered_set(tmp_path)
    write_vecs(tmp_path / "database_vectors.fvecs", [np.ones(2, np.float32), np.ones(3, np.float32)])
    (tmp_path / "database_attributes.jsonl").write_text("[]\n")
    with pytest.raises(DataFormatError, match="differ in width"):
        read_filtered_set(tmp_path)
    with pytest.raises(DataFormatError, match="jsonl:1: this line is no JSON object"):
        read_objects(tmp_path / "database_attributes.jsonl")
    (tmp_path / "database_attributes.jsonl").write_text("{}\n{\n")
    with pytest.raises(DataFormatError, match="jsonl:2: this line is not JSON"):
        read_objects(tmp_path / "database_attributes.jsonl")
