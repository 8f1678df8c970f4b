"""What a collection survives: kill -9, Ctrl-C, a full disk, a read-only folder, damage, other processes."""

from __future__ import annotations

import errno
import importlib.util
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from isometry.errors import CorruptStore, StoreError, StoreLocked
from isometry.store import Collection, documents, snapshots
from isometry.types import Document, Embeddings, Space, id_array

SPACE = Space("toy", 8)
ROOT = Path(__file__).resolve().parents[2]


def vectors(ids, seed=0):
    x = np.random.default_rng(seed).normal(size=(len(ids), 8)).astype(np.float32)
    return Embeddings(x / np.linalg.norm(x, axis=1, keepdims=True), id_array(ids), SPACE)


def books(n, start=0, words="some text"):
    return [Document(f"d{i}", f"{words} n{i}", payload={"i": i}) for i in range(start, start + n)]


def add(collection, n, start=0, words="some text"):
    return collection.upsert(books(n, start, words), vectors([f"d{i}" for i in range(start, start + n)]))


@pytest.fixture
def folder(tmp_path):
    with Collection.create(tmp_path / "c", SPACE) as made:
        add(made, 50)
        made.snapshot()
    return tmp_path / "c"


def run(code: str, *arguments: object, **options) -> subprocess.CompletedProcess[str]:
    """Run Python code in another process that knows the functions above."""
    preamble = (
        "import sys, importlib.util\n"
        f"spec = importlib.util.spec_from_file_location('here', {__file__!r})\n"
        "here = importlib.util.module_from_spec(spec); spec.loader.exec_module(here)\n"
        "globals().update(vars(here))\n"
    )
    command = [sys.executable, "-c", preamble + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


# -- crashes --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crashes():
    """The harness of benchmarks/durability.py."""
    spec = importlib.util.spec_from_file_location("durability", ROOT / "benchmarks" / "durability.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_kill_at_random_moments_loses_nothing_acknowledged(tmp_path):
    out = tmp_path / "figures.json"
    command = [sys.executable, ROOT / "benchmarks" / "durability.py", "--kills", 40, "--damages", 0]
    command += ["--documents", 0, "--seed", 7, "--out", out]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert '"kills": 40' in out.read_text()


def test_damaged_snapshots_are_seen_and_made_anew(tmp_path, crashes):
    outcome = crashes.harm_snapshots(tmp_path / "c", 20, seed=1)
    assert outcome["rebuilt"] == 20


def test_a_damaged_database_is_never_read_as_something_else(tmp_path, crashes):
    outcome = crashes.harm_database(tmp_path / "c", 40, seed=2)
    assert sum(n for what, n in outcome.items() if "CorruptStore" in what) > 5


@pytest.mark.parametrize("at", ["write_fields", "rows_of"])
def test_ctrl_c_leaves_nothing_half_written(folder, monkeypatch, at):
    with Collection.open(folder, write=True) as collection:
        before, sequence = list(collection.iterate()), collection.sequence

        def interrupted(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(documents, at, interrupted)
        with pytest.raises(KeyboardInterrupt):
            add(collection, 100, start=20, words="other")
        monkeypatch.undo()
        assert list(collection.iterate()) == before
        assert collection.sequence == sequence
        assert collection.verify().ok
        add(collection, 1, start=99)
        assert collection.count() == 51


def test_a_real_ctrl_c_during_upsert(folder):
    code = """
import signal, threading, os
collection = Collection.open(sys.argv[1], write=True)
items, emb = books(4000, 100), vectors([f"d{i}" for i in range(100, 4100)])
threading.Timer(0.08, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    while True:
        collection.upsert(items, emb)
except KeyboardInterrupt:
    print(collection.count(), collection.verify().ok)
"""
    done = run(code, folder)
    assert done.stdout.split() in (["50", "True"], ["4050", "True"]), done.stderr


# -- full and read-only disks -----------------------------------------------------------------------------------------


def test_a_full_database_is_one_sentence_and_no_loss(folder):
    with Collection.open(folder, write=True) as collection:
        db = collection._session.db
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {pages + 1}")
        before = list(collection.iterate())
        with pytest.raises(StoreError, match="disk is full"):
            add(collection, 3000, start=100)
        assert list(collection.iterate()) == before
        assert collection.verify().ok
        db.execute("PRAGMA max_page_count = 1000000")
        add(collection, 3000, start=100)
        assert collection.count() == 3050


def test_a_file_that_cannot_grow(folder):
    """The kernel refuses to write beyond a size (RLIMIT_FSIZE), in the journal and in the snapshot."""
    code = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
collection = Collection.open(sys.argv[1], write=True)
size = 400_000
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
try:
    for start in range(100, 100_000, 500):
        add(collection, 500, start)
        print(start, flush=True)
except StoreError as error:
    print(type(error).__name__, error)
"""
    done = run(code, folder)
    *acknowledged, last = done.stdout.splitlines()
    assert last.startswith("StoreError"), done.stderr
    with Collection.open(folder, write=True) as collection:
        assert collection.count() == 50 + 500 * len(acknowledged)
        assert collection.verify().ok
        add(collection, 500, start=200_000)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_snapshot_that_cannot_be_written_leaves_the_old(folder, monkeypatch, code):
    with Collection.open(folder, write=True) as collection:
        add(collection, 1, start=60)

        def full(_):
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(snapshots, "_sync", full)
        with pytest.raises(StoreError):
            collection.snapshot()
        monkeypatch.undo()
        left = [p.name for p in snapshots.place(folder, SPACE).iterdir()]
        assert left == ["000000000002-exact"]
        assert collection.verify().ok


def test_a_read_only_folder_can_be_searched_and_refuses_changes(folder):
    code = """
import os, tempfile
with tempfile.TemporaryDirectory() as warm, Collection.create(warm + "/c", SPACE) as collection:
    add(collection, 2)  # everything is imported while the interpreter's own files can surely be read
    collection.snapshot()
    with Collection.open(collection.path) as reader:
        reader.search(vectors(["d0"]), 1, "i = 1"), reader.bm25(["n1"], 1), reader.verify()
if os.getuid() == 0:  # permissions do not bind root
    os.setgid(65534); os.setuid(65534)
with Collection.open(sys.argv[1]) as collection:
    print(collection.count(), collection.search(vectors(["d0"]), 1).ids[0], collection.bm25(["n7"], 1).ids[0])
    print(collection.verify().ok)
try:
    Collection.open(sys.argv[1], write=True)
except StoreError as error:
    print(error)
try:
    Collection.create(sys.argv[1] + "/sub", SPACE)
except StoreError as error:
    print(error)
"""
    reachable = Path(shutil.copytree(folder, Path(tempfile.gettempdir()) / f"isometry-{os.getpid()}"))
    try:
        for path in [reachable, *reachable.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        done = run(code, reachable)
    finally:
        for path in [reachable, *reachable.rglob("*")]:
            path.chmod(0o755)
        shutil.rmtree(reachable)
    lines = done.stdout.splitlines()
    assert lines[:2] == ["50 d0 d7", "True"], done.stderr
    assert len(lines) == 4
    assert all("cannot be written here" in line for line in lines[2:])


# -- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"x", b"SQLite format 3\0" + b"\0" * 5000, b"hello " * 5000])
def test_a_broken_database_is_refused_and_kept(folder, content):
    database = folder / "collection.sqlite"
    database.write_bytes(content)
    for write in (False, True):
        with pytest.raises(CorruptStore):
            Collection.open(folder, write=write)
    with pytest.raises(CorruptStore):
        Collection.create(folder, SPACE, exist_ok=True)
    assert database.read_bytes() == content


def test_a_database_cut_short_is_refused(folder):
    database = folder / "collection.sqlite"
    size = database.stat().st_size
    for keep in (size - 1, size // 2, 16384, 100):
        os.truncate(database, keep)
        with pytest.raises(CorruptStore):
            Collection.open(folder)


@pytest.mark.parametrize(
    ("damage", "check"),
    [
        ("UPDATE documents SET text = 'forged' WHERE id = 'd3'", "documents"),
        ("UPDATE documents SET payload = '{}' WHERE id = 'd3'", "documents"),
        ("UPDATE vectors_1 SET vector = zeroblob(32) WHERE document = 4", "vectors"),
        ("UPDATE vectors_1 SET vector = zeroblob(31) WHERE document = 4", "vectors"),
        ("UPDATE vectors_1 SET document = 999 WHERE document = 4", "vectors"),
        ("DELETE FROM vectors_1 WHERE document = 4", "vectors"),
        ("UPDATE spaces SET space = '{}'", "spaces"),
    ],
)
def test_verify_sees_forged_truth_and_leaves_it(folder, damage, check):
    db = sqlite3.connect(folder / "collection.sqlite")
    db.execute(damage)
    db.commit()
    before = list(db.iterdump())
    with Collection.open(folder, write=True) as collection:
        report = collection.verify()
        assert not report.ok
        assert any(c.name.startswith(check) and not c.ok for c in report.checks)
    assert list(db.iterdump()) == before
    db.close()


def test_forged_truth_is_never_returned(folder):
    db = sqlite3.connect(folder / "collection.sqlite")
    db.execute("UPDATE documents SET text = 'forged' WHERE id = 'd3'")
    db.execute("UPDATE vectors_1 SET vector = zeroblob(32) WHERE document = 9")
    db.commit()
    db.close()
    with Collection.open(folder) as collection:
        with pytest.raises(CorruptStore, match="d3"):
            collection.get(["d3"])
        with pytest.raises(CorruptStore, match="checksum"):
            collection.embeddings()
        assert collection.get(["d4"])[0].id == "d4"


@pytest.mark.parametrize(
    ("damage", "check"),
    [
        ("INSERT INTO search (search) VALUES ('delete-all')", "full text"),
        ("INSERT INTO search (rowid, title, text) VALUES (3, 'extra', 'words')", "full text"),
        ("DELETE FROM fields WHERE document = 7", "filter fields"),
        ("UPDATE fields SET value = 77 WHERE document = 7", "filter fields"),
    ],
)
def test_verify_repairs_what_is_derived(folder, damage, check):
    db = sqlite3.connect(folder / "collection.sqlite")
    db.execute(damage)
    db.commit()
    db.close()
    with Collection.open(folder, write=True) as collection:
        assert not collection.verify(repair=False).ok
        report = collection.verify()
        assert report.ok
        assert [c.name for c in report.checks if c.repaired] == [check]
        assert collection.verify(repair=False).ok
        assert collection.bm25(["n6"], 1).ids.tolist() == ["d6"]
        assert collection.ids("i = 6") == ["d6"]


def test_lost_commits_are_seen_by_the_snapshot(folder):
    old = shutil.copy(folder / "collection.sqlite", folder.parent / "old")
    with Collection.open(folder, write=True) as collection:
        add(collection, 5, start=70)
        collection.snapshot()
    shutil.copy(old, folder / "collection.sqlite")
    with Collection.open(folder, write=True) as collection:
        assert any("lost commits" in c.detail for c in collection.verify(repair=False).checks)
        assert collection.search(vectors(["d0"]), 100).ids.size == 50
        assert collection.verify().ok


# -- other processes --------------------------------------------------------------------------------------------------


def test_a_second_writer_waits_then_is_told_who_writes(folder):
    with Collection.open(folder, write=True):
        with pytest.raises(StoreLocked, match=f"process {os.getpid()}"):
            Collection.open(folder, write=True, wait=0.05)
        done = run("Collection.open(sys.argv[1], write=True, wait=0.05)", folder)
        assert "StoreLocked" in done.stderr
        assert f"process {os.getpid()}" in done.stderr
        Collection.open(folder).close()
    Collection.open(folder, write=True, wait=0).close()


def test_a_waiting_writer_gets_its_turn_and_a_dead_one_gives_way(folder):
    first = Collection.open(folder, write=True)
    threading.Timer(0.2, first.close).start()
    Collection.open(folder, write=True, wait=30).close()
    code = "c = Collection.open(sys.argv[1], write=True)\nimport os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert run(code, folder).returncode == -signal.SIGKILL
    Collection.open(folder, write=True, wait=0).close()


def test_readers_see_whole_commits_while_another_process_writes(folder):
    """The writer keeps every document at one version per commit; no reader ever sees two versions."""
    code = """
with Collection.open(sys.argv[1], write=True) as collection:
    print("ready", flush=True)
    for version in range(40):
        add(collection, 50, words=f"v{version}")
        if version % 10 == 5:
            collection.snapshot()
        if version % 20 == 15:
            collection.compact()
"""
    arguments = [sys.executable, "-c", "pass"]
    with Collection.open(folder, write=True) as collection:
        add(collection, 50, words="start")
    worker = threading.Thread(target=lambda: arguments.append(run(code, folder)))
    worker.start()
    seen = set()
    with Collection.open(folder) as reader:
        while worker.is_alive():
            versions = {d.text.split()[0] for d in reader.iterate()}
            assert len(versions) == 1
            seen |= versions
            assert reader.search(vectors(["d0"]), 1).ids.tolist() == ["d0"]
            assert len(reader.bm25(["n4"], 9).ids) == 1
            time.sleep(0.005)
        worker.join()
        assert arguments[-1].returncode == 0, arguments[-1].stderr
        assert {d.text.split()[0] for d in reader.iterate()} == {"v39"}
    assert len(seen) > 1


def test_threads_share_a_collection(folder):
    errors = []
    with Collection.open(folder, write=True) as collection:

        def work(number):
            try:
                for turn in range(10):
                    if number == 0:
                        add(collection, 3, start=1000 + turn)
                    assert collection.search(vectors(["d0"]), 1).ids.tolist() == ["d0"]
                    assert collection.count("i < 50") == 50
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not errors
