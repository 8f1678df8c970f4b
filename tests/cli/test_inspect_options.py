"""``isometry inspect``: local dimension, the recall of a graph, and whether the width suffices for judgments."""

import json

import numpy as np
import pytest

from isometry.types import Embeddings, Space, id_array


@pytest.fixture
def vectors(tmp_path):
    x = np.random.default_rng(0).normal(size=(400, 24)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    path = tmp_path / "cloud.parquet"
    Embeddings(x, id_array(f"d{i}" for i in range(400)), Space("cloud", 24)).to_parquet(path)
    return path


@pytest.fixture
def judged(tmp_path):
    """A BEIR folder: every pair of eight documents is the answer to a query."""
    folder = tmp_path / "pairs"
    (folder / "qrels").mkdir(parents=True)
    pairs = [(i, j) for i in range(8) for j in range(i)]
    corpus = [{"_id": f"d{i}", "title": "", "text": f"Text number {i}."} for i in range(8)]
    queries = [{"_id": f"q{n}", "text": f"Which are {i} and {j}?"} for n, (i, j) in enumerate(pairs)]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, corpus)))
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    rows = [f"q{n}\td{i}\t1" for n, pair in enumerate(pairs) for i in pair]
    (folder / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]) + "\n")
    return folder


def test_dimension_and_forecast_are_shown(isometry, vectors):
    ran = isometry("inspect", vectors)
    assert ran.code == 0, ran.err
    assert "local dimension" in ran.out
    assert "at ef 10" in ran.out
    found = isometry("inspect", vectors, "--json").json
    low, middle, high = found["lid_quartiles"]
    assert low < middle < high
    assert [f["ef"] for f in found["recall_forecast"]] == [10, 32, 64, 128, 256]
    assert all(0 < f["low"] <= f["high"] <= 1 for f in found["recall_forecast"])
    assert "recall_measured" not in found
    assert "limit" not in found


def test_recall_is_measured_on_request(isometry, vectors):
    found = isometry("inspect", vectors, "--check-recall", "--json").json["recall_measured"]
    assert found["10"] < found["256"] == pytest.approx(1, abs=0.01)
    assert "recall, measured" in isometry("inspect", vectors, "--check-recall").out


def test_judgments_are_held_against_the_width(isometry, vectors, judged):
    ran = isometry("inspect", vectors, "--judgments", judged)
    assert ran.code == 0, ran.err
    assert "28 queries with up to 2 answers" in ran.out
    assert "24 dimensions can rank them" in " ".join(ran.out.split())
    found = isometry("inspect", vectors, "--judgments", judged, "--json").json["limit"]
    assert found["possible"] is True
    assert (found["bounds"]["lower"], found["bounds"]["upper"]) == (4, 4)
    assert found["dim"] == 24


def test_a_judged_collection_has_its_own(isometry, judged):
    assert isometry("index", judged, "--name", "judged").code == 0
    assert "Some vectors of 4 dimensions" in isometry("inspect", "judged", "--limit").out


def test_without_judgments_it_says_what_to_give(isometry, vectors):
    ran = isometry("inspect", vectors, "--limit")
    assert ran.code == 2
    assert "--judgments FOLDER" in ran.err
