"""Bad input: one clear sentence on stderr, exit code 2, nothing on stdout, nothing half-written."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from isometry.types import Embeddings, Space


def refuses(ran, *words):
    """The command printed one sentence with these words, no traceback, and nothing else."""
    assert ran.code == 2, (ran.out, ran.err)
    assert ran.out == ""
    line = ran.err.strip().splitlines()[-1]
    assert "Traceback" not in ran.err
    for word in words:
        assert str(word) in line, line
    return line


@pytest.fixture
def nothing_made(home):
    """No collection may appear."""
    folder = home / "collections"
    before = sorted(folder.iterdir()) if folder.is_dir() else []
    yield
    assert (sorted(folder.iterdir()) if folder.is_dir() else []) == before


@pytest.mark.usefixtures("nothing_made")
class TestSources:
    def test_missing_path(self, isometry, tmp_path):
        refuses(isometry("index", tmp_path / "nowhere"), "nowhere", "does not exist")

    def test_empty_folder(self, isometry, tmp_path):
        refuses(isometry("index", tmp_path, "--name", "x"), "empty")

    def test_empty_file(self, isometry, tmp_path):
        (tmp_path / "e.txt").write_text("")
        refuses(isometry("index", tmp_path / "e.txt", "--name", "x"), "e.txt", "empty")

    def test_binary_renamed_txt(self, isometry, tmp_path):
        (tmp_path / "b.txt").write_bytes(b"\x00\x01\x02" * 200)
        refuses(isometry("index", tmp_path / "b.txt", "--name", "x"), "b.txt", "binary")

    def test_unreadable_file(self, isometry, tmp_path, monkeypatch):
        file = tmp_path / "secret.txt"
        file.write_text("words")
        file.chmod(0)
        if os.geteuid() == 0:  # permissions do not bind the superuser: refuse as the system would
            opened = Path.open

            def refused(self, *arguments, **options):
                if self == file:
                    raise PermissionError(13, "Permission denied", str(self))
                return opened(self, *arguments, **options)

            monkeypatch.setattr(Path, "open", refused)
        refuses(isometry("index", file, "--name", "x"), "secret.txt", "ermission")

    def test_malformed_json_line(self, isometry, tmp_path):
        (tmp_path / "t.jsonl").write_text('{"text": "fine"}\n{"text": \n')
        refuses(isometry("index", tmp_path / "t.jsonl", "--name", "x"), "t.jsonl:2")

    def test_duplicate_ids(self, isometry, tmp_path):
        (tmp_path / "t.jsonl").write_text('{"id": "a", "text": "one"}\n{"id": "a", "text": "two"}\n')
        refuses(isometry("index", tmp_path / "t.jsonl", "--name", "x"), "'a'", "t.jsonl:2")

    def test_unknown_column(self, isometry, tmp_path):
        (tmp_path / "t.csv").write_text("words,year\nhello there,1999\n")
        refuses(isometry("index", tmp_path / "t.csv", "--name", "x", "--text-column", "word"), "word")

    def test_qrels_of_unknown_ids(self, isometry, tmp_path):
        (tmp_path / "corpus.jsonl").write_text('{"_id": "d", "text": "words"}\n')
        (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "words"}\n')
        (tmp_path / "qrels").mkdir()
        (tmp_path / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq\tmissing\t1\n")
        refuses(isometry("eval", "--data", tmp_path), "test.tsv:2", "missing")

    def test_pdf_without_text_and_encrypted(self, isometry, tmp_path):
        pypdf = pytest.importorskip("pypdf")
        writer = pypdf.PdfWriter()
        writer.add_blank_page(100, 100)
        writer.write(tmp_path / "blank.pdf")
        refuses(isometry("index", tmp_path / "blank.pdf", "--name", "x"), "blank.pdf", "text")
        writer.encrypt("secret", algorithm="RC4-128")
        writer.write(tmp_path / "locked.pdf")
        refuses(isometry("index", tmp_path / "locked.pdf", "--name", "x"), "locked.pdf", "encrypted")

    def test_zip_bomb(self, isometry, tmp_path):
        with (
            zipfile.ZipFile(tmp_path / "bomb.docx", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
            archive.open("word/document.xml", "w", force_zip64=True) as part,
        ):
            for _ in range(1100):
                part.write(b"\0" * 2**20)
        refuses(isometry("index", tmp_path / "bomb.docx", "--name", "x"), "bomb.docx")

    def test_huge_file(self, isometry, tmp_path):
        with (tmp_path / "huge.txt").open("wb") as file:
            file.truncate(2 * 2**30)  # sparse
        refuses(isometry("index", tmp_path / "huge.txt", "--name", "x"), "huge.txt", "limit")

    def test_names_and_models(self, isometry, notes):
        refuses(isometry("index", notes, "--name", "a b?"), "a b?")
        refuses(isometry("index", notes, "--name", "papers"), "built-in")
        refuses(isometry("index", notes, "--name", "x", "--model", "minilmm"), "minilmm", "minilm")
        refuses(isometry("index", notes, "--name", "x", "--max-tokens", "9999"), "9999")
        refuses(isometry("index", notes, "--name", "x", "--engine", "warp"), "warp", "fast")


def test_skip_bad_continues_and_counts(isometry, tmp_path):
    (tmp_path / "t.jsonl").write_text('{"text": "fine words"}\n{"text": \n{"text": "more words"}\n')
    report = isometry("index", tmp_path / "t.jsonl", "--name", "skipbad", "--skip-bad", "--json").json
    assert report["documents"] == 2
    assert "1" in " ".join(report["warnings"] + [s["reason"] for s in report["skipped"]])


def test_broken_utf8_is_read_and_reported(isometry, tmp_path):
    text = "Die Straße nach München führt über größere Brücken; schöne Grüße aus Österreich. " * 5
    (tmp_path / "l.txt").write_bytes(text.encode("cp1252"))
    report = isometry("index", tmp_path / "l.txt", "--name", "latin", "--json").json
    assert any("l.txt" in w for w in report["warnings"])
    (row,) = isometry("search", "bridges", "-c", "latin", "-k", "1", "--json").json
    assert "München" in row["text"]


def test_queries_and_k(isometry):
    refuses(isometry("search", "  ", "-c", "papers"), "empty")
    refuses(isometry("search", "x" * 1_000_001, "-c", "papers"), "1,000,001")
    for k in ("0", "-3"):
        refuses(isometry("search", "pooling", "-c", "papers", "-k", k), k, "at least 1")
    assert len(isometry("search", "pooling", "-c", "papers", "-k", "5000", "--mode", "vector", "--json").json) == 102
    refuses(isometry("search", "pooling", "-c", "papers", "--mode", "magic"), "magic")
    assert isometry("search", "pooling", "-c", "papers", "-k", "ten").code == 2


def test_filters(isometry):
    refuses(isometry("search", "pooling", "-c", "papers", "--where", "year >="), "character")
    refuses(isometry("search", "pooling", "-c", "papers", "--where", "yeer > 2000"), "yeer", "year")
    injection = isometry("search", "pooling", "-c", "papers", "--where", "kind = '; DROP TABLE documents'", "--json")
    assert injection.json == []
    assert isometry("doctor", "papers").code == 0


def test_unknown_names_come_with_the_nearest(isometry):
    refuses(isometry("search", "x", "-c", "paper"), "paper", "papers")
    refuses(isometry("recipes", "run", "hnsw-recal"), "hnsw-recall")
    refuses(isometry("recipes", "show", "gist"), "gist")
    refuses(isometry("recipes", "run", "hnsw-recall", "--preset", "smok"), "smoke")
    refuses(isometry("recipes", "run", "hnsw-recall", "--seeds", "0"), "--seeds")
    refuses(isometry("eval", "--data", "ir/scifac"), "scifac")
    refuses(isometry("data", "show", "paperz"), "papers")
    refuses(isometry("config", "colour"), "colour")
    refuses(isometry("compare", "--recipes", "nothing"), "nothing")
    refuses(isometry("doctor", "nowhere"), "nowhere")
    refuses(isometry("delete", "nowhere", "--yes"), "nowhere")


def test_broken_settings_are_named(isometry, home):
    file = home / "config.toml"
    kept = file.read_text() if file.exists() else None
    try:
        file.write_text("k = = 3\n")
        refuses(isometry("search", "pooling"), "config.toml")
        file.write_text("colour = 'red'\n")
        refuses(isometry("search", "pooling"), "colour")
    finally:
        file.unlink() if kept is None else file.write_text(kept)


def test_vectors_that_are_not(isometry, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    emb = Embeddings(np.eye(4, dtype=np.float32), list("abcd"), Space("m", 4))
    table = emb.to_arrow()
    bad = np.eye(4, dtype=np.float32)
    bad[2, 1] = np.nan
    column = pa.FixedSizeListArray.from_arrays(pa.array(bad.reshape(-1)), 4)
    pq.write_table(table.set_column(1, "vector", column), tmp_path / "nan.parquet")
    refuses(isometry("inspect", tmp_path / "nan.parquet"), "NaN")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    refuses(isometry("inspect", tmp_path / "other.parquet"), "other.parquet")
    refuses(isometry("import", tmp_path / "other.parquet", "--name", "imported"), "other.parquet")
    refuses(isometry("inspect", tmp_path / "gone.parquet"), "gone.parquet")


def test_a_collection_of_another_space_or_a_newer_format(isometry, tmp_path, home):
    from isometry.store import Collection
    from isometry.types import Document

    with Collection.create(home / "collections/foreign", Space("other-model", 4)) as made:
        made.upsert([Document("a", "text")], Embeddings(np.eye(4)[:1], ["a"], Space("other-model", 4)))
        made.set_meta({"model": "minilm"})
    refuses(isometry("search", "x", "-c", "foreign", "--mode", "vector"), "other-model", "minilm")
    (tmp_path / "a.txt").write_text("words")
    refuses(isometry("index", tmp_path, "--name", "foreign"), "other-model")
    import sqlite3

    file = home / "collections/foreign/collection.sqlite"
    with sqlite3.connect(file) as connection:
        names = [r[0] for r in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        connection.execute(f"PRAGMA user_version = {version + 99}")
    connection.close()
    assert names
    assert version > 0
    refuses(isometry("search", "x", "-c", "foreign", "--mode", "keyword"), "newer")


def test_a_second_writer_waits_and_then_says_who_writes(isometry, notes, home):
    from isometry.errors import StoreLocked
    from isometry.store import Collection

    isometry("index", notes, "--name", "two")
    with Collection.open(home / "collections/two", write=True):
        with pytest.raises(StoreLocked, match=str(os.getpid())):
            Collection.open(home / "collections/two", write=True, wait=0.2)
        assert isometry("search", "cats", "-c", "two").code == 0


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.5, 2.0, 3.5])
def test_ctrl_c_at_any_time_leaves_a_sound_collection(isometry, home, tmp_path, delay):
    for i in range(120):
        (tmp_path / f"{i}.txt").write_text(f"Note number {i}. " + "words about many things " * 60)
    name = f"interrupted-{delay}"
    command = [sys.executable, "-m", "isometry.cli.app", "index", str(tmp_path), "--name", name]
    env = {**os.environ, "ISOMETRY_HOME": str(home)}
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    assert process.returncode in (0, 130)
    if (home / "collections" / name).exists():
        assert isometry("doctor", name).code == 0
    report = isometry("index", tmp_path, "--name", name, "--json").json
    assert report["documents"] == report["added"] + report["unchanged"] >= 120


def test_a_reader_that_leaves_is_no_error(home):
    env = {**os.environ, "ISOMETRY_HOME": str(home)}
    command = f"{sys.executable} -m isometry.cli.app recipes --json | head -c 10"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=env)
    assert "Traceback" not in done.stderr
    assert done.stdout.startswith("[")


def test_help_of_every_command_has_an_example(isometry):
    import typer

    from isometry.cli.app import app

    def walk(command, *path):
        children = getattr(command, "commands", {})
        if path and (not children or path == ("recipes",)):
            yield path
        for name, child in children.items():
            yield from walk(child, *path, name)

    paths = list(walk(typer.main.get_command(app)))
    assert len(paths) >= 20
    for path in paths:
        ran = isometry(*path, "--help")
        assert ran.code == 0
        assert f"Example: isometry {' '.join(path)}" in ran.out, path


def test_json_is_valid_even_where_an_interval_is_not_finite(isometry, tmp_path):
    """One judged query gives no interval; JSON has no infinity."""
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d", "text": "cats"}\n{"_id": "e", "text": "tax"}\n')
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "cats"}\n')
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
    ran = isometry("eval", "--data", tmp_path, "--json")
    json.loads(ran.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_a_folder_that_cannot_be_made_is_refused_before_the_work(isometry, tmp_path):
    (tmp_path / "taken").write_text("a file")
    for option in ("--plots", "--save"):
        refuses(
            isometry("recipes", "run", "hnsw-recall", option, tmp_path / "taken"), "Cannot make the folder", "taken"
        )


def test_one_note_is_too_little_for_a_recipe(isometry, tmp_path):
    (tmp_path / "note.md").write_text("# Bees\n\nBees make honey.\n")
    refuses(isometry("recipes", "run", "muvera", "--data", tmp_path), "at least 2 different texts")
    refuses(isometry("recipes", "run", "hnsw-recall", "--data", tmp_path), "at least 50 different texts, got 1")
    refuses(isometry("recipes", "run", "hnsw-recall", "--data", tmp_path), "at least 50 different texts, got 1")


def test_negative_seeds(isometry):
    for command in (("shrink", "papers"), ("inspect", "papers"), ("eval",)):
        ran = isometry(*command, "--seed", "-1")
        assert ran.code == 2
        assert "--seed" in ran.err
        assert "Traceback" not in ran.err
