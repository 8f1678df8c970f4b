"""Late interaction on the command line: index with token vectors, search and judge by them, keep them in step."""

import json
import shutil

import pytest


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A BEIR folder whose questions need two facts of one text."""
    root = tmp_path_factory.mktemp("pairs") / "pairs"
    (root / "qrels").mkdir(parents=True)
    likes = ["apples", "bassoons", "cactuses", "drums", "eels", "figs"]
    corpus, queries, qrels = [], [], ["query-id\tcorpus-id\tscore"]
    for i in range(6):
        text = f"Person {i} likes {likes[i]}, walking, {likes[(i + 1) % 6]}, rain, {likes[(i + 3) % 6]} and quiet."
        corpus.append({"_id": f"d{i}", "title": "", "text": text})
        queries.append({"_id": f"q{i}", "text": f"Who likes {likes[i]} and {likes[(i + 1) % 6]}?"})
        qrels.append(f"q{i}\td{i}\t1")
    (root / "corpus.jsonl").write_text("\n".join(map(json.dumps, corpus)))
    (root / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    (root / "qrels" / "test.tsv").write_text("\n".join(qrels) + "\n")
    return root


@pytest.fixture
def indexed(isometry, folder):
    ran = isometry("index", folder, "--name", "pairs", "--late-interaction", "--dim", "32", "--json")
    assert ran.code == 0, ran.err
    return ran.json


def test_index_says_what_the_tokens_take(isometry, indexed, folder):
    tokens = indexed["tokens"]
    assert set(tokens) == {"embedded", "documents", "dim", "bytes"}
    assert (tokens["documents"], tokens["dim"]) == (6, 32)
    again = isometry("index", folder, "--name", "pairs", "--json")
    assert again.json["tokens"]["embedded"] == 0
    assert again.json["tokens"]["dim"] == 32
    assert again.err == ""
    shown = isometry("index", folder, "--name", "pairs", "--late-interaction")
    assert "6 documents with 32-d token vectors (0 embedded)" in shown.out
    (row,) = (r for r in isometry("list", "--json").json if r["name"] == "pairs")
    assert row["bytes"] > tokens["bytes"]


def test_late_is_the_default_and_explains_itself(isometry, indexed):
    ran = isometry("search", "who likes drums and eels", "-c", "pairs", "-k", "3", "--explain", "--json")
    assert ran.err == ""
    assert [row["explanation"][0]["stage"] for row in ran.json] == ["maxsim"] * 3
    assert [row["explanation"][0]["rank"] for row in ran.json] == [1, 2, 3]
    asked = isometry("search", "who likes drums and eels", "-c", "pairs", "-k", "3", "--mode", "late", "--json")
    assert [r["id"] for r in asked.json] == [r["id"] for r in ran.json]
    assert "drums" in ran.json[0]["text"]
    assert "eels" in ran.json[0]["text"]


@pytest.mark.parametrize(("mode", "stages"), [("vector", {"retrieve"}), ("keyword", {"bm25"}), ("late", {"maxsim"})])
def test_each_mode_stays_itself(isometry, indexed, mode, stages):
    rows = isometry("search", "drums", "-c", "pairs", "--mode", mode, "--explain", "-k", "1", "--json").json
    assert {part["stage"] for part in rows[0]["explanation"]} == stages


def test_a_mode_in_the_settings_goes_before_the_default(isometry, indexed):
    isometry("config", "mode", "vector")
    try:
        rows = isometry("search", "drums", "-c", "pairs", "--explain", "--json").json
    finally:
        isometry("config", "mode", "hybrid")
    assert rows[0]["explanation"][0]["stage"] == "retrieve"


def test_filters_and_k_hold(isometry, indexed):
    assert len(isometry("search", "drums", "-c", "pairs", "-k", "99", "--json").json) == 6
    rows = isometry("search", "drums", "-c", "pairs", "-k", "9", "--where", "id != 'd3'", "--json").json
    assert len(rows) == 5
    assert "d3" not in {r["id"] for r in rows}


def test_late_against_vector(isometry, indexed):
    ran = isometry("eval", "-c", "pairs", "--mode", "late", "--against", "vector", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["mode"] == "late"
    assert ran.json["against"]["mode"] == "vector"
    assert ran.json["metrics"]["mrr"]["mean"] > 0.7


def test_what_was_lost_is_made_again_and_said(isometry, indexed, home):
    shutil.rmtree(home / "collections" / "pairs" / "late")
    ran = isometry("search", "drums", "-c", "pairs", "--json")
    assert len(ran.json) == 6
    assert "The token vectors of 'pairs' are missing; 6 documents were embedded just now." in ran.err
    assert isometry("search", "drums", "-c", "pairs", "--json").err == ""


def test_a_trained_model_from_its_folder(isometry, folder, minilm, tmp_path):
    from isometry.encoders import LateInteraction
    from isometry.modules.token_projection import TokenProjection

    LateInteraction(minilm, head=TokenProjection(384, 24, seed=5)).save(tmp_path / "model")
    ran = isometry("index", folder, "-n", "trained", "--late-interaction", "--late-model", tmp_path / "model", "--json")
    assert ran.json["tokens"]["dim"] == 24
    shutil.rmtree(tmp_path / "model")
    assert len(isometry("search", "drums", "-c", "trained", "--json").json) == 6


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--dim", "32"), "give --late-interaction as well"),
        (("--late-interaction", "--dim", "0"), "1 to 384"),
        (("--late-interaction", "--dim", "500"), "1 to 384"),
        (("--late-interaction", "--late-model", "nowhere"), "nowhere"),
        (("--late-interaction", "--late-model", "nowhere", "--dim", "9"), "not both"),
    ],
)
def test_wrong_options_are_refused(isometry, folder, arguments, says):
    ran = isometry("index", folder, "-n", "refused", *arguments)
    assert ran.code == 2
    assert says in " ".join(ran.err.split())


def test_a_collection_without_tokens_says_so(isometry, notes):
    isometry("index", notes, "--name", "plain")
    ran = isometry("search", "cat", "-c", "plain", "--mode", "late")
    assert ran.code == 2
    assert "--late-interaction" in ran.err
