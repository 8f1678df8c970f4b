"""The main job as a user does it: index, search, change files, index again, judge, inspect, move, mend."""

import json

import numpy as np
import pytest

from isometry.types import Embeddings


@pytest.fixture
def indexed(isometry, notes):
    ran = isometry("index", notes, "--name", "notes", "--json")
    assert ran.code == 0, ran.err
    return ran.json


def test_index_reports_what_it_did_and_what_it_skipped(indexed):
    assert indexed["documents"] == 4
    assert [s["path"] for s in indexed["skipped"]] == ["photo.bin"]
    assert indexed["cut_documents"] == 0


def test_search_finds_by_meaning_and_says_where(isometry, indexed):
    rows = isometry("search", "pets that like to nap", "-c", "notes", "-k", "2", "--json").json
    assert len(rows) == 2
    assert set(rows[0]) == {"id", "score", "text", "source", "payload"}
    assert rows[0]["source"].startswith("cats.md")
    assert rows[0]["payload"]["file"] == "cats.md"
    assert rows[0]["score"] >= rows[1]["score"]
    shown = isometry("search", "motor without spark plug", "-c", "notes", "-k", "1")
    assert "engine.rst" in shown.out
    assert shown.code == 0


@pytest.mark.parametrize("mode", ["vector", "keyword", "hybrid"])
def test_every_mode_finds_the_obvious(isometry, indexed, mode):
    rows = isometry("search", "diesel engine", "-c", "notes", "--mode", mode, "--json").json
    assert rows[0]["source"].startswith("deep/engine.rst")


def test_explain_shows_what_each_stage_gave(isometry, indexed):
    rows = isometry("search", "diesel engine", "-c", "notes", "-k", "1", "--explain", "--json").json
    assert len(rows[0]["explanation"]) >= 2
    assert {"stage", "score"} <= set(rows[0]["explanation"][0])
    assert "explanation" not in isometry("search", "diesel", "-c", "notes", "--json").json[0]


def test_k_beyond_the_collection_gives_all_and_filters_hold(isometry, indexed):
    assert len(isometry("search", "cat", "-c", "notes", "-k", "99", "--mode", "vector", "--json").json) == 4
    rows = isometry("search", "cat", "-c", "notes", "-k", "9", "--where", "file = 'tax.txt'", "--json").json
    assert [r["payload"]["file"] for r in rows] == ["tax.txt"]
    spread = isometry("search", "cat", "-c", "notes", "-k", "3", "--diverse", "0.3", "--json").json
    assert len({r["id"] for r in spread}) == 3


def test_indexing_again_embeds_only_what_changed(isometry, tmp_path):
    (tmp_path / "a.txt").write_text("The first file is about bread.\n")
    (tmp_path / "b.txt").write_text("The second file is about wine.\n")
    first = isometry("index", tmp_path, "--name", "again", "--json").json
    assert (first["added"], first["unchanged"], first["removed"]) == (2, 0, 0)
    (tmp_path / "a.txt").write_text("The first file is about cheese.\n")
    (tmp_path / "b.txt").unlink()
    (tmp_path / "c.txt").write_text("A third file is about olives.\n")
    second = isometry("index", tmp_path, "--name", "again", "--json").json
    assert (second["added"], second["unchanged"], second["removed"]) == (2, 0, 1)
    third = isometry("index", tmp_path, "--name", "again", "--json").json
    assert (third["added"], third["unchanged"], third["removed"]) == (0, 2, 0)
    rows = isometry("search", "wine", "-c", "again", "--json").json
    assert sorted(r["payload"]["file"] for r in rows) == ["a.txt", "c.txt"]


def test_export_and_import_keep_everything(isometry, indexed, tmp_path):
    file = tmp_path / "notes.parquet"
    assert isometry("export", file, "-c", "notes").code == 0
    assert isometry("import", file, "--name", "copy").code == 0
    one = isometry("search", "receipts", "-c", "notes", "--json").json
    assert isometry("search", "receipts", "-c", "copy", "--json").json == one
    assert isometry("export", file, "-c", "notes").code == 2
    assert isometry("import", file, "--name", "copy").code == 2
    assert isometry("delete", "copy", "--yes").code == 0
    assert "copy" not in [r["name"] for r in isometry("list", "--json").json]


def test_doctor_finds_a_sound_collection_and_repairs_a_cache(isometry, indexed, home):
    report = isometry("doctor", "notes", "--json").json
    assert report["ok"]
    assert {"name", "ok", "detail", "repaired"} <= set(report["checks"][0])
    snapshots = [p for p in (home / "collections/notes/snapshots").rglob("*") if p.is_file() and p.stat().st_size > 64]
    if snapshots:
        data = bytearray(snapshots[0].read_bytes())
        data[len(data) // 2] ^= 0xFF
        snapshots[0].write_bytes(bytes(data))
        assert isometry("doctor", "notes", "--json").json["ok"]
        assert isometry("search", "cats", "-c", "notes").code == 0


def test_doctor_reports_a_broken_database_and_touches_nothing(isometry, notes, home):
    isometry("index", notes, "--name", "broken")
    file = home / "collections/broken/collection.sqlite"
    data = bytearray(file.read_bytes())
    data[: len(data) // 2] = b"\xff" * (len(data) // 2)
    file.write_bytes(bytes(data))
    ran = isometry("doctor", "broken", "--json")
    assert ran.code == 1
    assert ran.json["ok"] is False
    assert file.read_bytes() == bytes(data)
    assert isometry("search", "cats", "-c", "broken").code == 2


def test_the_built_in_corpus_answers_on_a_fresh_machine(isometry):
    rows = isometry("search", "make vectors smaller without losing recall", "-c", "papers", "--json").json
    assert len(rows) == 10
    assert "vector-storage-compression" in [r["id"] for r in rows]
    recent = isometry("search", "pooling", "-c", "papers", "--where", "year >= 2025", "--json").json
    assert recent
    assert all(r["payload"]["year"] >= 2025 for r in recent)


def test_eval_on_the_built_in_judgments(isometry):
    report = isometry("eval", "-c", "papers", "--mode", "hybrid", "--against", "keyword", "--json").json
    assert report["n"] >= 60
    mean, (low, high) = report["metrics"]["ndcg@10"]["mean"], report["metrics"]["ndcg@10"]["ci95"]
    assert 0.5 < low < mean < high <= 1
    assert report["synthetic"] is False
    assert set(report["against"]["metrics"]["ndcg@10"]) == {"delta", "ci95", "p", "wins", "losses"}


def test_eval_without_judgments_can_make_pseudo_queries_and_says_so(isometry, indexed):
    assert isometry("eval", "-c", "notes").code == 2
    ran = isometry("eval", "-c", "papers", "--synthetic", "20")
    assert ran.code == 0
    assert "synthetic" in ran.out
    report = isometry("eval", "-c", "papers", "--synthetic", "20", "--json").json
    assert report["synthetic"] is True
    assert report["n"] == 20


def test_eval_of_a_beir_folder(isometry, tmp_path):
    documents = [("d1", "cats sleep"), ("d2", "tax forms"), ("d3", "diesel engines")]
    (tmp_path / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": i, "title": "", "text": t}) + "\n" for i, t in documents)
    )
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "napping pets"}\n{"_id": "q2", "text": "motor"}\n')
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td3\t1\n")
    report = isometry("eval", "--data", tmp_path, "--json").json
    assert report["n"] == 2
    assert report["metrics"]["mrr"]["mean"] == 1.0
    made = isometry("index", tmp_path, "--name", "beir", "--json").json
    assert made["judged_queries"] == 2
    assert isometry("eval", "-c", "beir", "--json").json["metrics"]["mrr"]["mean"] == 1.0


def test_inspect_prints_findings_and_writes_a_report(isometry, tmp_path):
    page = tmp_path / "papers.html"
    ran = isometry("inspect", "papers", "--html", page)
    assert ran.code == 0, ran.err
    assert page.read_text().lower().startswith("<!doctype html>")
    report = isometry("inspect", "papers", "--json").json
    assert report["findings"]
    rng = np.random.default_rng(0)
    from isometry.types import Space

    emb = Embeddings(rng.normal(size=(300, 8)), [str(i) for i in range(300)], Space("m", 8, normalized=False))
    emb.to_parquet(tmp_path / "e.parquet")
    assert isometry("inspect", tmp_path / "e.parquet", "--json").code == 0


def test_settings_are_kept_checked_and_undone(isometry):
    assert isometry("config", "k", "3").code == 0
    assert len(isometry("search", "pooling", "-c", "papers", "--json").json) == 3
    assert isometry("config", "--json").json["k"] == 3
    assert isometry("config", "k", "zero").code == 2
    assert isometry("config", "k", "0").code == 2
    assert isometry("config", "k", "--unset").code == 0
    assert isometry("config", "k", "--json").json == {"k": 10}


def test_where_and_data_and_recipes_speak_json(isometry):
    rows = isometry("where", "mmr", "--json").json
    assert rows
    assert set(rows[0]) == {"name", "path", "line", "recipe", "test"}
    sets = isometry("data", "list", "--json").json
    assert "papers" in [s["name"] for s in sets]
    assert isometry("data", "show", "papers").code == 0
    recipes = isometry("recipes", "--json").json
    assert {"slug", "title", "kind", "mechanism", "claims", "status"} == set(recipes[0])
    assert isometry("recipes", "show", "hnsw-recall").code == 0
    assert isometry("recipes", "report").code == 0


def test_a_recipe_can_be_copied(isometry, tmp_path):
    assert isometry("recipes", "cp", "gistembed", tmp_path).code == 0
    assert "CARD" in (tmp_path / "gistembed.py").read_text()
    assert isometry("recipes", "cp", "gistembed", tmp_path).code == 2


def test_compare_runs_what_fits_the_data_and_corrects_for_looking_at_several(isometry, tmp_path):
    topics = ("cats and kittens", "taxes and money", "engines and oil", "owls and night")
    rows = "".join(f"{topics[i % 4].split()[0]}\tA sentence number {i} about {topics[i % 4]}.\n" for i in range(400))
    (tmp_path / "mine.tsv").write_text("label\ttext\n" + rows)
    ran = isometry("compare", "--data", tmp_path / "mine.tsv", "--recipes", "text-embedding-depth,limit", "--json")
    assert ran.code == 0, ran.err
    assert "Left out limit" in ran.err
    assert {row["recipe"] for row in ran.json["claims"]} == {"text-embedding-depth"}
    assert all(row["p_adj"] >= row["p"] for row in ran.json["claims"])
    alone = isometry("compare", "--data", tmp_path / "mine.tsv", "--recipes", "limit")
    assert (alone.code, alone.out) == (2, "")


def test_a_model_folder_is_found_again_by_its_path(isometry, notes, tmp_path):
    """A folder's name alone does not lead back to it; a plain folder needs its pooling again."""
    import shutil

    from isometry.encoders.folders import locate

    folder = tmp_path / "my-model"
    shutil.copytree(locate("minilm")[1], folder)
    assert isometry("index", notes, "--name", "own-model", "--model", folder).code == 0
    assert isometry("search", "cats", "-c", "own-model", "--mode", "vector").code == 0
    for name in ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"):
        (folder / name).unlink()
    refused = isometry("index", notes, "--name", "plain-model", "--model", folder)
    assert (refused.code, refused.out) == (2, "")
    assert isometry("index", notes, "--name", "plain-model", "--model", folder, "--pooling", "cls").code == 0
    assert isometry("search", "cats", "-c", "plain-model", "--mode", "vector").code == 0
