"""`isometry tune`, `distill`, `merge`, `cut`, `rerank` and `compare --data`, as a user types them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from small_models import save_small_decoder, save_small_model, write_pairs


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("base") / "small")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("data") / "mine.tsv")


def test_the_road_from_data_to_a_better_search(isometry, base, table, tmp_path):
    steps = ("--steps", "6", "--batch-size", "16", "--lr", "2e-3", "--elsewhere", "none")
    ran = isometry("tune", table, "--base", base, *steps, "--out", tmp_path / "a")
    assert ran.code == 0, ran.err
    assert "mrr" in ran.out
    assert "held-out data" in ran.out
    assert "isometry index DATA --model" in ran.err
    other = isometry("tune", table, "--base", base, *steps, "--seed", "1", "--out", tmp_path / "b", "--json")
    assert other.json["held_out"]["n"] == 40
    merged = isometry("merge", tmp_path / "a", tmp_path / "b", "--data", table, "--out", tmp_path / "m")
    assert "best single" in merged.out
    small = isometry("cut", tmp_path / "a", "--layers", "1", "--dims", "8", "--out", tmp_path / "c")
    assert "Not measured" in small.out
    (tmp_path / "notes").mkdir()
    for i, text in enumerate(("the red cat was seen near the gate", "an old ship and a tree", "what about the tax")):
        (tmp_path / "notes" / f"{i}.txt").write_text(text)
    indexed = isometry("index", tmp_path / "notes", "--name", "cut", "--model", tmp_path / "c")
    assert indexed.code == 0, indexed.err
    assert isometry("search", "red cat", "-c", "cut", "--mode", "vector").code == 0


def test_students_search_their_teachers_collection_only(isometry, base, table, tmp_path):
    ran = isometry("distill", table, "--teacher", base, "--layers", "1", "--steps", "4", "--out", tmp_path / "s")
    assert ran.code == 0, ran.err
    assert "of its teacher's quality" in " ".join(ran.out.split())
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("the red cat was seen near the gate")
    isometry("index", tmp_path / "notes", "--name", "taught", "--model", base)
    found = isometry("search", "cat", "-c", "taught", "--query-model", tmp_path / "s", "--mode", "vector")
    assert found.code == 0, found.err
    refused = isometry("search", "cat", "-c", "taught", "--query-model", "minilm", "--mode", "vector")
    assert refused.code == 2
    assert "not known to be aligned" in refused.err


@pytest.mark.parametrize("kind", ["cross-encoder", "yes-no"])
def test_rerankers_are_trained_and_used(isometry, base, table, tmp_path, kind):
    from isometry.workbench.rerankers import load_reranker

    body = base if kind == "cross-encoder" else save_small_decoder(tmp_path / "decoder")
    ran = isometry(
        "rerank", table, "--kind", kind, "--base", body, "--encoder", base, "--steps", "2", "--depth", "4",
        "--out", tmp_path / "r", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert ran.json["kind"] == kind
    assert ran.json["held_out"]["n"] == 40
    (tmp_path / "notes").mkdir()
    texts = ["the red cat was seen near the gate", "an old ship and a tree", "what about the tax"]
    for i, text in enumerate(texts):
        (tmp_path / "notes" / f"{i}.txt").write_text(text)
    isometry("index", tmp_path / "notes", "--name", f"for-{kind}", "--model", base)
    found = isometry("search", "red cat", "-c", f"for-{kind}", "--rerank", tmp_path / "r", "--json")
    assert found.code == 0, found.err
    expected = load_reranker(str(tmp_path / "r")).predict([("red cat", text) for text in texts])
    assert [hit["score"] for hit in found.json] == pytest.approx(sorted(expected.tolist(), reverse=True), abs=1e-4)
    short = isometry(
        "search", "red cat", "-c", f"for-{kind}", "--rerank", tmp_path / "r", "--rerank-depth", "1", "-k", "2", "--json"
    )
    assert len(short.json) == 2  # never fewer than asked for


def test_what_is_no_reranker_is_refused(isometry, base, tmp_path):
    (tmp_path / "a.txt").write_text("the red cat was seen near the gate")
    isometry("index", tmp_path / "a.txt", "--name", "plain", "--model", base)
    for name, said in (
        (base, "never trained to score pairs"), (tmp_path / "nowhere", "no reranker"), (" ", "no reranker"),
        ("yes-no:no-such-model", "no-such-model"),
    ):  # fmt: skip
        ran = isometry("search", "cat", "-c", "plain", "--rerank", name)
        assert ran.code == 2, name
        assert said in ran.err
    alone = isometry("search", "cat", "-c", "plain", "--rerank-depth", "5")
    assert alone.code == 2
    assert "give --rerank" in alone.err


def test_compare_ranks_techniques_on_my_data(isometry, base, table):
    ran = isometry("compare", "--data", table, "--recipes", "gistembed", "--model", base, "--steps", "3", "--json")
    assert ran.code == 0, ran.err
    assert {row["recipe"] for row in ran.json["tuning"]["techniques"]} == {"default", "gistembed"}


def test_techniques_are_listed(isometry):
    ran = isometry("tune", "--list")
    assert ran.code == 0
    assert "gistembed" in ran.out
    assert "default" in ran.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("tune", "no-such-set", "--out", "x"), "no-such-set"),
        (("tune", "TABLE", "--recipe", "gistembedd", "--out", "x"), "gistembed"),
        (("rerank", "TABLE", "--kind", "listwise", "--out", "x"), "cross-encoder"),
        (("tune", "TABLE", "--budget", "soon", "--out", "x"), "10m"),
        (("tune", "TABLE", "--lr", "-1", "--steps", "3", "--base", "BASE", "--out", "x"), "lr > 0"),
        (("tune", "TABLE", "--base", "no/such/model", "--out", "x"), "no/such/model"),
        (
            ("tune", "TABLE", "--budget", "0.01s", "--base", "BASE", "--batch-size", "160", "--out", "x"),
            "give at least",
        ),
        (("merge", "BASE", "--out", "x"), "two models"),
        (("merge", "BASE", "BASE", "--method", "magic", "--out", "x"), "slerp"),
        (("merge", "BASE", "BASE", "--weights", "1,b", "--out", "x"), "numbers separated"),
        (("cut", "BASE", "--layers", "3", "--out", "x"), "3"),
        (("cut", "BASE", "--out", "x"), "--layers, --dims"),
        (("distill", "TABLE", "--teacher", "BASE", "--layers", "9", "--out", "x"), "9"),
        (("compare", "--data", "TABLE", "--recipes", ","), "at least one"),
        (("compare", "--data", "sts/stsb", "--recipes", "gistembed,bebr"), "need a file or folder"),
        (
            ("tune", "TABLE", "--lr", "0", "--steps", "3", "--base", "BASE", "--out", "x"),
            "lr > 0",
        ),
        (("tune", "TABLE", "--budget", "9" * 400, "--out", "x"), "10m"),
        (("tune", "TABLE", "--out", "."), "must name the folder"),
        (("tune", "TABLE", "--base", "BASE", "--fresh", "--out", "BASE"), "this command reads"),
        (("merge", "BASE", "BASE", "--method", "task-arithmetic", "--out", "x"), "needs --base"),
    ],
)
def test_wrong_input_is_one_sentence(isometry, base, table, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    ran = isometry(*[{"TABLE": table, "BASE": base}.get(a, a) for a in arguments])
    assert ran.code == 2
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_goes_on(home, base, table, tmp_path, how):
    """Killed in training, the same command ends with the weights an uninterrupted run has."""
    import os

    import numpy as np

    from isometry.encoders import load

    def command(out):
        return [sys.executable, "-m", "isometry.cli.app", "tune", str(table), "--base", str(base), "--steps", "60",
                "--batch-size", "16", "--lr", "1e-3", "--elsewhere", "none", "--out", str(out)]  # fmt: skip

    environment = {**os.environ, "ISOMETRY_HOME": str(home)}
    subprocess.run(command(tmp_path / "whole"), env=environment, check=True, capture_output=True)
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # children of a shell's background job hear none
    try:
        killed = subprocess.Popen(
            command(tmp_path / "again"), env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE
        )
    finally:
        signal.signal(signal.SIGINT, heard)
    unfinished = tmp_path / ".again.unfinished" / "run-0"
    for _ in range(1200):
        if (unfinished / "checkpoint-12" / "trainer_state.json").exists() or killed.poll() is not None:
            break
        time.sleep(0.05)
    killed.send_signal(how)
    _, said = killed.communicate()
    assert how != signal.SIGINT or b"run the same command to go on" in said
    assert not (tmp_path / "again").exists()
    assert unfinished.exists()
    subprocess.run(command(tmp_path / "again"), env=environment, check=True, capture_output=True)
    texts = ["a red cat", "what about the old ship ?"]
    a, b = (load(str(tmp_path / name), engine="torch").encode_document(texts) for name in ("whole", "again"))
    np.testing.assert_allclose(a, b, atol=1e-5)
    assert not unfinished.exists()
